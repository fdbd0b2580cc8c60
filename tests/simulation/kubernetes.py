"""An API server: objects with versions and uids, conflicts, server-side apply, deletion with grace, lists and watches.

It does at once and for certain what it is asked to; that calls take time, fail, or lose their answer is the business of
those who call (`apiclient`). What is in it are plain objects, never changed in place: a write puts a new one there, so
that whoever holds an old one holds what was true then.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from controller.world import NAMESPACE, WITH_GENERATION
from flinkjob.controller.cluster import KINDS, Kind
from flinkjob.controller.names import controller_of
from flinkjob.controller.observed import Manifest
from flinkjob.election.apiserver import APPLY

from .network import Network

KIND_OF_PLURAL = {kind.plural: kind for kind in KINDS.values()}

Key = tuple[str, str]
"""Plural and name; all is in one namespace."""


class Refusal(Exception):
    """What the API server answers instead."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Happened(NamedTuple):
    """Something that a watch tells.

    Attributes:
        version: when. type: ADDED, MODIFIED or DELETED. object: as it is since, or was last.
    """

    version: int
    type: str
    object: Manifest


class Call(NamedTuple):
    """A request.

    Attributes:
        user: who asks. known: which generation of the FlinkJob he decided by; 0: he does not decide.
    """

    user: str
    method: str
    path: str
    query: Mapping[str, str]
    body: Manifest | None
    content_type: str
    known: int


class ApiServer:
    """See the module.

    Attributes:
        objects: all there is.
        version: of the latest change.
        history: what has happened, by plural. compacted: watches from before this version have to begin anew.
        audit: told of each call that would change something, before it does. listeners: told of all that happens.
        down: it answers nobody. storm: how many of the calls are refused for the moment. lossy: how many answers are lost.
    """

    name = "lease"
    """In the network: what parts a JobManager from the lease parts it from the API server."""

    def __init__(self, clock: Callable[[], str], network: Network) -> None:
        self.objects: dict[Key, Manifest] = {}
        self.version = 100
        self.history: dict[str, list[Happened]] = {kind.plural: [] for kind in KINDS.values()}
        self.compacted = 0
        self.audit: Callable[[Call, str, Manifest | None], None] = lambda call, plural, present: None
        self.listeners: list[Callable[[str, Happened], None]] = []
        self.down = False
        self.storm = 0.0
        self.lossy = 0.0
        self.network = network
        self._clock = clock
        self._uids = 0
        self._applied: dict[tuple[str, str, str], Manifest] = {}

    # What others in the cluster use directly

    def get(self, plural: str, name: str) -> Manifest | None:
        """The object."""
        return self.objects.get((plural, name))

    def all(self, plural: str) -> list[Manifest]:
        """All objects of a kind, by name."""
        return [manifest for key, manifest in sorted(self.objects.items()) if key[0] == plural]

    def create(self, manifest: Manifest) -> Manifest:
        """Make an object.

        Raises:
            Refusal: there is one of that name.
        """
        kind = KINDS[manifest["apiVersion"], manifest["kind"]]
        key = (kind.plural, manifest["metadata"]["name"])
        if key in self.objects:
            raise Refusal(409, "AlreadyExists", f'{kind.plural} "{key[1]}" already exists')
        self._uids += 1
        metadata = {**manifest["metadata"], "namespace": NAMESPACE, "creationTimestamp": self._clock()}
        metadata["uid"] = f"uid-{self._uids}"
        if kind.kind in WITH_GENERATION:
            metadata["generation"] = 1
        return self._put(key, {**manifest, "metadata": metadata}, "ADDED")

    def update(self, key: Key, uid: str, **parts: Any) -> Manifest | None:
        """Replace parts of an object, if it is still there; its metadata are merged."""
        present = self.objects.get(key)
        if present is None or present["metadata"]["uid"] != uid:
            return None
        changed = {**present, **parts, "metadata": {**present["metadata"], **parts.get("metadata", {})}}
        return self._changed(key, present, changed)

    def delete(self, key: Key, uid: str, *, now: bool = False) -> Manifest | None:
        """Delete an object: a pod that has a node is on its way out from now on, all else is gone at once."""
        present = self.objects.get(key)
        if present is None or present["metadata"]["uid"] != uid:
            return None
        on_a_node = key[0] == "pods" and present["spec"].get("nodeName")
        if on_a_node and not now:
            if "deletionTimestamp" in present["metadata"]:
                return present
            return self.update(key, uid, metadata={"deletionTimestamp": self._clock()})
        del self.objects[key]
        for applied in [applied for applied in self._applied if applied[1] == uid]:
            del self._applied[applied]
        self.version += 1
        gone = {**present, "metadata": {**present["metadata"], "resourceVersion": str(self.version)}}
        self._tell(key[0], Happened(self.version, "DELETED", gone))
        return None

    def collect_garbage(self) -> None:
        """Delete what belongs to nobody who is still there."""
        uids = {manifest["metadata"]["uid"] for manifest in self.objects.values()}
        for key, manifest in list(self.objects.items()):
            owner = controller_of(manifest)
            if owner is not None and owner["uid"] not in uids:
                self.delete(key, manifest["metadata"]["uid"])

    def break_streams(self) -> None:
        """All watches end."""
        self._tell("", Happened(self.version, "", {}))

    # What is asked for by a call

    def serve(self, call: Call) -> Manifest:
        """Answer a call.

        Raises:
            Refusal: it cannot be done.
        """
        parts = call.path.strip("/").split("/")
        if "namespaces" not in parts:
            return self._collection_or_resources(call, parts)
        rest = [*parts[parts.index("namespaces") + 2 :], "", ""]
        plural, name, subresource = rest[:3]
        present = self.get(plural, name)
        if call.method == "GET":
            if not name:
                return self._list(plural, call.query)
            return _found(present, plural, name)
        self.audit(call, plural, present)
        body = call.body or {}
        if call.method == "POST":
            return self.create(body)
        if call.method == "PATCH" and call.content_type == APPLY:
            return self._apply(KIND_OF_PLURAL[plural], name, call.query["fieldManager"], subresource, body)
        present = _found(present, plural, name)
        if call.method == "DELETE":
            uid = body["preconditions"]["uid"]
            if uid != present["metadata"]["uid"]:
                raise Refusal(409, "Conflict", f"the UID in the precondition ({uid}) does not match")
            return self.delete((plural, name), uid) or {"kind": "Status"}
        if body["metadata"]["resourceVersion"] != present["metadata"]["resourceVersion"]:
            raise Refusal(409, "Conflict", f'{plural} "{name}": the object has been modified')
        if call.method == "PATCH":
            body = {**present, "metadata": {**present["metadata"], **body["metadata"]}}
        return self._changed((plural, name), present, body)

    def _collection_or_resources(self, call: Call, parts: list[str]) -> Manifest:
        if parts[-1] in KIND_OF_PLURAL:
            return self._list(parts[-1], call.query)
        return {"resources": [{"name": kind.plural} for kind in KINDS.values()]}

    def _list(self, plural: str, query: Mapping[str, str]) -> Manifest:
        items = [_stripped(manifest) for manifest in self.all(plural) if selected(manifest, query)]
        return {"items": items, "metadata": {"resourceVersion": str(self.version)}}

    def since(self, plural: str, query: Mapping[str, str], version: int) -> Iterator[Happened]:
        """What has happened after a version.

        Raises:
            Refusal: that is too long ago.
        """
        if version < self.compacted:
            raise Refusal(410, "Expired", "too old resource version")
        return (x for x in self.history[plural] if x.version > version and selected(x.object, query))

    def _apply(self, kind: Kind, name: str, manager: str, subresource: str, body: Manifest) -> Manifest:
        key = (kind.plural, name)
        present, told = self.objects.get(key), body["metadata"]
        if present is None:
            if "uid" in told:
                raise Refusal(409, "Conflict", f"uid mismatch: no existing object {name} was found")
            present = self.create(body)
            self._applied[manager, present["metadata"]["uid"], subresource] = _claimed(body, subresource)
            return present
        uid = present["metadata"]["uid"]
        if told.get("uid", uid) != uid:
            raise Refusal(422, "Invalid", f"{kind.kind} {name} is invalid: metadata.uid: field is immutable")
        version = present["metadata"]["resourceVersion"]
        if told.get("resourceVersion", version) != version:
            raise Refusal(409, "Conflict", f'{kind.plural} "{name}": the object has been modified')
        claimed = _claimed(body, subresource)
        before = self._applied.get((manager, uid, subresource), {})
        others = [x for (who, of, _), x in self._applied.items() if of == uid and who != manager]
        self._applied[manager, uid, subresource] = claimed
        return self._changed(key, present, _merged(present, before, claimed, others))

    # Writing

    def _changed(self, key: Key, present: Manifest, changed: Manifest) -> Manifest:
        if changed == present:
            return present
        if present.get("spec") != changed.get("spec") and present["kind"] in WITH_GENERATION:
            generation = present["metadata"]["generation"] + 1
            changed = {**changed, "metadata": {**changed["metadata"], "generation": generation}}
        return self._put(key, changed, "MODIFIED")

    def _put(self, key: Key, manifest: Manifest, type: str) -> Manifest:
        self.version += 1
        put = {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": str(self.version)}}
        self.objects[key] = put
        self._tell(key[0], Happened(self.version, type, put))
        return put

    def _tell(self, plural: str, happened: Happened) -> None:
        if plural not in ("", "events"):
            self.history[plural].append(happened)
        for listener in list(self.listeners):
            listener(plural, happened)


def selected(manifest: Manifest, query: Mapping[str, str]) -> bool:
    """Whether the selectors of a query take an object."""
    labels = manifest["metadata"].get("labels") or {}
    for term in filter(None, query.get("labelSelector", "").split(",")):
        key, has_value, value = term.partition("=")
        if key not in labels or (has_value and labels[key] != value):
            return False
    _, _, name = query.get("fieldSelector", "").partition("metadata.name=")
    return not name or manifest["metadata"]["name"] == name


def _found(manifest: Manifest | None, plural: str, name: str) -> Manifest:
    if manifest is None:
        raise Refusal(404, "NotFound", f'{plural} "{name}" not found')
    return manifest


def _stripped(manifest: Manifest) -> Manifest:
    return {**manifest, "metadata": dict(manifest["metadata"])}


def _claimed(body: Manifest, subresource: str) -> Manifest:
    """What an applied object says beyond what it is."""
    if subresource:
        return {subresource: body[subresource]}
    said = {
        key: value for key, value in body["metadata"].items() if key in ("labels", "annotations", "ownerReferences")
    }
    return {
        "metadata": said,
        **{k: v for k, v in body.items() if k not in ("apiVersion", "kind", "metadata", "status")},
    }


def _merged(live: Any, before: Any, new: Manifest, others: list[Manifest]) -> Manifest:
    """Server-side apply: what the manager says now is so, what he said before and says no more is gone; lists are atoms."""
    merged: Manifest = dict(live) if isinstance(live, dict) else {}
    before = before if isinstance(before, dict) else {}
    for key in before.keys() - new.keys():
        below = [other[key] for other in others if key in other]
        if isinstance(before[key], dict) and isinstance(merged.get(key), dict):
            merged[key] = _merged(merged[key], before[key], {}, below)
            below = below or merged[key]
        if not below:
            merged.pop(key, None)
    for key, value in new.items():
        if isinstance(value, dict):
            below = [other[key] for other in others if isinstance(other.get(key), dict)]
            merged[key] = _merged(merged.get(key), before.get(key), value, below)
        else:
            merged[key] = value
    return merged
