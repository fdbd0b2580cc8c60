"""The API server, as the controller uses it: plain objects in and out, each call with a time limit, and typed errors.

Objects are the dicts of their JSON; what is in them is checked where they are made sense of. Whatever the controller
wants of a child it says by server-side apply under its own field manager, so that others' fields stay theirs; what it
deletes it names by its uid, so that it never hits a successor of the same name.

A call that is refused for a passing reason (429, 5xx, no answer) is repeated a few times within its time, no sooner than
the server asks for. What still fails then is left to the next look at the job.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote

from flinkjob.api.errors import AlreadyChanged, ApiRefused, ApiUnavailable, ClusterError
from flinkjob.api.flinkjob import API_VERSION
from flinkjob.controller.names import FIELD_MANAGER
from flinkjob.controller.observed import Manifest
from flinkjob.election.apiserver import APPLY, NOT_FOUND, KubernetesApi

ATTEMPTS = 4
"""How often a call is attempted before the next look at the job has to do."""
LONGEST_PAUSE = 5.0
"""Seconds that a call waits between two attempts at most, whatever the server asks for; after that the queue's patience
is the better one."""
PAGE = 500
"""Objects in one answer to a list."""

_INVALID = 422
_METADATA = "application/json;g=meta.k8s.io;v=v1;as=PartialObjectMetadata"


class Listing(NamedTuple):
    """All objects of a kind at one moment.

    Attributes:
        items: the objects.
        version: the moment; a watch goes on from here.
    """

    items: list[Manifest]
    version: str


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the kinds that the controller deals with, and where the API server has it."""

    api_version: str
    kind: str
    plural: str

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """The path of an object, of all objects of a namespace, or (None) of all there are."""
        root = "api" if "/" not in self.api_version else "apis"
        parts = [root, self.api_version]
        if namespace is not None:
            parts += ["namespaces", quote(namespace, safe="")]
        parts += [part for part in (self.plural, quote(name, safe=""), subresource) if part]
        return "/" + "/".join(parts)


FLINK_JOB = Kind(API_VERSION, "FlinkJob", "flinkjobs")
POD = Kind("v1", "Pod", "pods")
STATEFUL_SET = Kind("apps/v1", "StatefulSet", "statefulsets")
SECRET = Kind("v1", "Secret", "secrets")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")
CLAIM = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
EVENT = Kind("events.k8s.io/v1", "Event", "events")

KINDS = {
    (kind.api_version, kind.kind): kind
    for kind in (
        FLINK_JOB,
        POD,
        STATEFUL_SET,
        SECRET,
        LEASE,
        CLAIM,
        EVENT,
        Kind("v1", "Service", "services"),
        Kind("v1", "ConfigMap", "configmaps"),
        Kind("v1", "ServiceAccount", "serviceaccounts"),
        Kind("rbac.authorization.k8s.io/v1", "Role", "roles"),
        Kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
        Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    )
}


def kind_of(manifest: Mapping[str, Any]) -> Kind:
    """The kind of an object.

    Raises:
        KeyError: it is none of those that the controller deals with.
    """
    return KINDS[manifest["apiVersion"], manifest["kind"]]


def kind_named(name: str) -> Kind:
    """The kind of that name.

    Raises:
        KeyError: it is none of those that the controller deals with.
    """
    return _BY_NAME[name]


_BY_NAME = {kind.kind: kind for kind in KINDS.values()}


@dataclass
class Cluster:
    """The API server, by a client that is somebody else's to close.

    Attributes:
        calls: how many attempts of calls there were, by verb and plural and whether they were answered; for metrics.
    """

    api: KubernetesApi
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = random.random
    calls: Counter[tuple[str, str, bool]] = field(default_factory=Counter)

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """The object; None where there is none."""
        return await self._or_none(self._call("GET", kind, kind.path(namespace, name)))

    async def served(self, kind: Kind) -> bool:
        """Whether the API server knows that kind."""
        resources = await self._or_none(self._call("GET", kind, f"/apis/{kind.api_version}"))
        return resources is not None and any(x["name"] == kind.plural for x in resources["resources"])

    async def apply(self, manifest: Manifest, *, subresource: str = "") -> Manifest:
        """Say what the controller wants of an object, or of its status; who else said otherwise is overruled.

        Raises:
            AlreadyChanged: the manifest has a uid or a resourceVersion, and the object there has another.
        """
        kind, metadata = kind_of(manifest), manifest["metadata"]
        path = kind.path(metadata["namespace"], metadata["name"], subresource)
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        try:
            return await self._call("PATCH", kind, path, query=query, body=manifest, content_type=APPLY)
        except ApiRefused as error:
            if error.status == _INVALID and "metadata.uid" in str(error):
                raise AlreadyChanged(str(error)) from None
            raise

    async def create(self, manifest: Manifest) -> Manifest:
        """Make an object.

        Raises:
            AlreadyChanged: there is one of that name, be it from an attempt whose answer was lost.
        """
        kind = kind_of(manifest)
        path, query = kind.path(manifest["metadata"]["namespace"]), {"fieldManager": FIELD_MANAGER}
        return await self._call("POST", kind, path, query=query, body=manifest)

    async def replace(self, manifest: Manifest) -> Manifest:
        """Write an object as a whole over the version that the manifest names.

        Raises:
            AlreadyChanged: it has another version by now, or is gone.
        """
        kind, metadata = kind_of(manifest), manifest["metadata"]
        path, query = kind.path(metadata["namespace"], metadata["name"]), {"fieldManager": FIELD_MANAGER}
        written = await self._or_none(self._call("PUT", kind, path, query=query, body=manifest))
        if written is None:
            raise AlreadyChanged(f"PUT {path}: it is gone")
        return written

    async def delete(
        self, kind: Kind, namespace: str, name: str, *, uid: str, grace: int | None = None
    ) -> Manifest | None:
        """Delete the object of that uid.

        Args:
            grace: seconds that a pod gets; None leaves it to the pod.

        Returns:
            The object, if it is still there and on its way out; None where it is gone.
        """
        options: Manifest = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            answer = await self._or_none(self._call("DELETE", kind, kind.path(namespace, name), body=options))
        except AlreadyChanged:  # there is another one of that name, so this one is gone
            return None
        return answer if answer and answer.get("kind") == kind.kind else None

    async def set_finalizers(self, kind: Kind, metadata: Mapping[str, Any], finalizers: list[str]) -> Manifest:
        """Write the finalizers of an object over the version that its metadata names.

        Raises:
            AlreadyChanged: it has another version by now, or is gone.
        """
        path = kind.path(metadata["namespace"], metadata["name"])
        expected = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        body: Manifest = {"metadata": {**expected, "finalizers": finalizers}}
        query = {"fieldManager": FIELD_MANAGER}
        call = self._call("PATCH", kind, path, query=query, body=body, content_type="application/merge-patch+json")
        patched = await self._or_none(call)
        if patched is None:
            raise AlreadyChanged(f"PATCH {path}: it is gone")
        return patched

    async def list_metadata(self, kind: Kind, namespace: str | None, selector: str = "") -> Listing:
        """The metadata of all objects of a kind, fetched in pages."""
        query = {"limit": str(PAGE), **({"labelSelector": selector} if selector else {})}
        items: list[Manifest] = []
        while True:
            page = await self._call("LIST", kind, kind.path(namespace), query=query, accept=f"{_METADATA}List")
            items += (_as_kind(kind, item) for item in page.get("items") or ())
            token = page["metadata"].get("continue")
            if not token:
                return Listing(items, page["metadata"]["resourceVersion"])
            query["continue"] = token

    async def watch_metadata(
        self, kind: Kind, namespace: str | None, selector: str, since: str
    ) -> AsyncIterator[tuple[str, Manifest]]:
        """What happens to the metadata of the objects of a kind from a version on, bookmarks included, until the API
        server ends the stream.

        Raises:
            ApiUnavailable: the stream could not be had, broke, or fell silent.
            ApiRefused: `status` is 410 when the version is too old.
        """
        self.calls["WATCH", kind.plural, True] += 1
        query = {"labelSelector": selector}
        events = self.api.watch(kind.path(namespace), query=query, version=since, accept=_METADATA)
        async for event in events:
            yield event["type"], _as_kind(kind, event["object"])

    async def _call(
        self,
        verb: str,
        kind: Kind,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Manifest:
        method = "GET" if verb == "LIST" else verb
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = await self.api.request(
                    method, path, query=query, body=body, content_type=content_type, accept=accept
                )
            except ApiUnavailable as error:
                self.calls[verb, kind.plural, False] += 1
                if attempt == ATTEMPTS or error.retry_after > LONGEST_PAUSE:
                    raise
                await self.sleep(max(error.retry_after, 0.1 * 2**attempt * (1 + self.jitter())))
            except ClusterError:
                self.calls[verb, kind.plural, True] += 1
                raise
            else:
                self.calls[verb, kind.plural, True] += 1
                return answer
        raise AssertionError("the last attempt either answers or raises")

    @staticmethod
    async def _or_none(call: Awaitable[Manifest]) -> Manifest | None:
        """What a call answers; None where there is no such object."""
        try:
            return await call
        except ApiRefused as error:
            if error.status != NOT_FOUND:
                raise
            return None


def _as_kind(kind: Kind, item: Manifest) -> Manifest:
    """An object of which only the metadata came, as one of its own kind again."""
    item["metadata"].pop("managedFields", None)
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": item["metadata"]}
