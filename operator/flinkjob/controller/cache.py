"""What the operator knows of the cluster: the last that it has heard of each object, by the job that the object belongs to.

News comes by several ways (watches, lists, the answers to the operator's own calls), in no particular order: a version
that is older than the one known changes nothing, and an object once seen deleted does not come back. Versions are compared
as numbers, which Kubernetes has guaranteed since 1.35 and has always been so with etcd.

Only what decisions are made of is kept: a pod's own specification is a hash in its annotations.
"""

import math
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from flinkjob.api.flinkjob import GROUP
from flinkjob.controller.cluster import FLINK_JOB, POD, STATEFUL_SET, Kind, Listing
from flinkjob.controller.names import COMPONENT_LABEL, JOB_LABEL
from flinkjob.controller.observed import Manifest

REMEMBERED_DELETIONS = 10_000
"""How many of the last deleted objects are kept in mind, so that late news of them is known to be late."""

SHARED_LENGTH = 64
"""Characters up to which a string is likely to be in other objects, too: names, labels, reasons, times."""


class JobKey(NamedTuple):
    """What a job is called."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


ObjectKey = tuple[Kind, str, str]
"""Kind, namespace, name."""


class Cache:
    """See the module. For the thread of one event loop.

    Args:
        changed: told the job whose object is new, has changed or is gone.
    """

    def __init__(self, changed: Callable[[JobKey], None]) -> None:
        self._changed = changed
        self._objects: dict[ObjectKey, Manifest] = {}
        self._of_job: dict[JobKey, set[ObjectKey]] = {}
        self._deleted: OrderedDict[str, float] = OrderedDict()

    def jobs(self) -> Iterable[JobKey]:
        """The jobs that are known or that something known belongs to."""
        return list(self._of_job)

    def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """What is known of an object."""
        return self._objects.get((kind, namespace, name))

    def all(self, kind: Kind) -> Iterator[Manifest]:
        """All that is known of a kind."""
        return (manifest for key, manifest in self._objects.items() if key[0] == kind)

    def of_job(self, job: JobKey, kind: Kind | None = None) -> Iterator[Manifest]:
        """Everything, or everything of a kind, that belongs to a job, the FlinkJob itself included."""
        for key in self._of_job.get(job, ()):
            if kind is None or key[0] == kind:
                yield self._objects[key]

    def saw(self, kind: Kind, manifest: Manifest) -> None:
        """An object is like this."""
        metadata = manifest["metadata"]
        key = (kind, metadata["namespace"], metadata["name"])
        if version_of(manifest) <= self._deleted.get(metadata["uid"], -1):
            return
        known = self._objects.get(key)
        if known is not None:
            if version_of(known) >= version_of(manifest):
                return
            self._drop(key)
        job = job_of(kind, manifest)
        if job is not None:
            self._objects[key] = manifest
            self._of_job.setdefault(job, set()).add(key)
            self._changed(job)

    def lost(self, kind: Kind, namespace: str, name: str, uid: str, version: float = math.inf) -> None:
        """The object of that uid is gone.

        Args:
            version: since when; a watch by label also says so of one that has lost its label, and may get it back.
        """
        self._deleted[uid] = version
        if len(self._deleted) > REMEMBERED_DELETIONS:
            self._deleted.popitem(last=False)
        key = (kind, namespace, name)
        known = self._objects.get(key)
        if known is not None and known["metadata"]["uid"] == uid:
            self._changed(self._drop(key))

    def forget(self, job: JobKey, kind: Kind) -> None:
        """Objects of a kind that is not watched may have changed: know nothing of a job's any more."""
        for key in [key for key in self._of_job.get(job, ()) if key[0] == kind]:
            self._drop(key)

    def compare(self, kind: Kind, namespace: str | None, listing: Listing) -> bool:
        """Drop what a full list of a kind, metadata at least, does not have: its deletion went unheard.

        Returns:
            Whether everything that is listed is known.
        """
        listed = {(x["metadata"]["namespace"], x["metadata"]["name"]): x["metadata"] for x in listing.items}
        for key, manifest in list(self._objects.items()):
            metadata = manifest["metadata"]
            if key[0] != kind or namespace not in (None, key[1]) or version_of(manifest) > int(listing.version):
                continue
            if listed.get(key[1:], {}).get("uid") != metadata["uid"]:
                self.lost(*key, metadata["uid"], int(listing.version))
        return all(self._knows(kind, metadata) for metadata in listed.values())

    def _knows(self, kind: Kind, metadata: dict[str, Any]) -> bool:
        if metadata["uid"] in self._deleted:
            return True
        known = self.get(kind, metadata["namespace"], metadata["name"])
        return known is not None and known["metadata"]["uid"] == metadata["uid"]

    def _drop(self, key: ObjectKey) -> JobKey:
        job = job_of(key[0], self._objects.pop(key))
        assert job is not None
        of_job = self._of_job[job]
        of_job.discard(key)
        if not of_job:
            del self._of_job[job]
        return job


def version_of(manifest: Manifest) -> int:
    """The version of an object, comparable with others of its kind."""
    return int(manifest["metadata"]["resourceVersion"])


def job_of(kind: Kind, manifest: Manifest) -> JobKey | None:
    """The job that an object belongs to; None for one that belongs to no job."""
    metadata = manifest["metadata"]
    name = metadata["name"] if kind == FLINK_JOB else metadata.get("labels", {}).get(JOB_LABEL)
    return None if name is None else JobKey(metadata["namespace"], name)


def slim(kind: Kind, manifest: Manifest) -> Manifest:
    """What is kept of an object: of a FlinkJob nearly all, of others what `Child.of` and `Pod.of` read.

    Strings that many objects have are kept once for all, which halves the memory that a job takes.
    """
    kept: Manifest = _shared(_kept(kind, manifest))
    return kept


def _kept(kind: Kind, manifest: Manifest) -> Manifest:
    metadata = manifest["metadata"]
    if kind == FLINK_JOB:
        kept = {key: value for key, value in metadata.items() if key != "managedFields"}
        kept["annotations"] = {key: x for key, x in metadata.get("annotations", {}).items() if key != _LAST_APPLIED}
        return {**manifest, "metadata": kept}
    slimmed: Manifest = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": _slim_metadata(metadata)}
    if kind in (POD, STATEFUL_SET):
        spec, status = manifest.get("spec", {}), manifest.get("status", {})
        slimmed["spec"] = {key: spec[key] for key in ("nodeName", "replicas") if key in spec}
        slimmed["status"] = {key: status[key] for key in _STATUS if key in status}
    return slimmed


def _shared(value: Any) -> Any:
    if isinstance(value, dict):
        return {sys.intern(key): _shared(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_shared(each) for each in value]
    return sys.intern(value) if isinstance(value, str) and len(value) <= SHARED_LENGTH else value


def _slim_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {key: metadata[key] for key in _METADATA if key in metadata}
    kept["labels"] = {key: x for key, x in metadata.get("labels", {}).items() if key in (JOB_LABEL, COMPONENT_LABEL)}
    kept["annotations"] = {key: x for key, x in metadata.get("annotations", {}).items() if key.startswith(GROUP)}
    kept["ownerReferences"] = [x for x in metadata.get("ownerReferences", ()) if x.get("controller")]
    return kept


_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"  # the whole object, once more
_METADATA = (
    "name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp",
)  # fmt: skip
_STATUS = ("phase", "reason", "message", "conditions", "containerStatuses", "startTime", "readyReplicas")
