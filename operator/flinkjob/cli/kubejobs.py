"""FlinkJobs on a cluster: looked at, followed, and asked for a failover; all through the API server."""

import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from flinkjob.api.errors import ApiRefused, ApiUnavailable, ClusterError, InvalidInput
from flinkjob.api.flinkjob import API_VERSION, Metadata
from flinkjob.api.status import FlinkJobStatus
from flinkjob.cli.kube import Kube, Object

PATIENCE = 60.0
"""Seconds for which a job is followed although the API server does not answer."""
_WATCH_SECONDS = 60
_PAUSE = 1.0

ENDED = ("FINISHED", "FAILED", "CANCELED")


class ObjectMeta(Struct, frozen=True, kw_only=True, rename="camel"):
    """What the commands need of a resource's metadata."""

    name: str
    namespace: str
    uid: str
    resource_version: str
    creation_timestamp: str
    generation: int = 1
    deletion_timestamp: str | None = None


class JobOnCluster(Struct, frozen=True, kw_only=True):
    """A FlinkJob as the API server has it.

    Attributes:
        metadata: what identifies it.
        spec: as it was written; the operator judges it, not this program, which may be older or newer.
        status: what the operator and the leader say.
    """

    metadata: ObjectMeta
    spec: dict[str, Any]
    status: FlinkJobStatus = FlinkJobStatus()

    @property
    def name(self) -> str:
        """Its name."""
        return self.metadata.name

    @property
    def state(self) -> str:
        """Flink's JobStatus; ``-`` before there is one."""
        return (self.status.job_status.state if self.status.job_status else "") or "-"

    @property
    def ended(self) -> bool:
        """Whether the job has come to its end, so that nothing will ever run again."""
        return self.state in ENDED

    @property
    def suspended(self) -> bool:
        """Whether ``spec.job.state`` asks that nothing runs."""
        job = self.spec.get("job")
        return isinstance(job, dict) and job.get("state") == "suspended"

    @property
    def failover_nonce(self) -> int:
        """The nonce that was last asked for; 0 if none was."""
        nonce = self.spec.get("failoverNonce")
        return nonce if isinstance(nonce, int) else 0


def jobs(kube: Kube, *, all_namespaces: bool = False) -> list[JobOnCluster]:
    """All FlinkJobs of the namespace, or of the cluster, by namespace and name.

    Raises:
        InvalidInput: no namespace can have that name.
        ClusterError: they cannot be had.
    """
    _check_names(kube)
    try:
        listed = kube.get(_path(None if all_namespaces else kube.namespace))
    except ApiRefused as error:
        raise _unserved(error) from None
    found = [_decoded(item) for item in listed.get("items", [])]
    return sorted(found, key=lambda job: (job.metadata.namespace, job.name))


def job(kube: Kube, name: str) -> JobOnCluster:
    """The FlinkJob of that name in the namespace.

    Raises:
        InvalidInput: there is none.
        ClusterError: it cannot be had.
    """
    _check_names(kube, name)
    try:
        return _decoded(kube.get(_path(kube.namespace, name)))
    except ApiRefused as error:
        if error.status == 404 and "not found" in str(error) and name in str(error):
            raise InvalidInput(f"there is no FlinkJob {name!r} in namespace {kube.namespace!r}") from None
        raise _unserved(error) from None


def ask_for_failover(kube: Kube, asked: JobOnCluster) -> JobOnCluster:
    """Count ``spec.failoverNonce`` on: the operator lets the leader hand over. Two who ask at once get one failover.

    Raises:
        ClusterError: it is not allowed, or cannot be written.
    """
    body = {"spec": {"failoverNonce": asked.failover_nonce + 1}}
    return _decoded(kube.patch(_path(asked.metadata.namespace, asked.name), body))


def follow(
    kube: Kube,
    name: str,
    *,
    seconds: float | None = None,
    note: Callable[[str], None] = lambda text: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[JobOnCluster]:
    """The job as it is, and again whenever it has changed.

    Args:
        seconds: end after so long; None is never.
        note: is told of an API server that is away, and that it is back.

    Raises:
        InvalidInput: there is no such job.
        ClusterError: it has been deleted, or the API server was away for more than `PATIENCE`.
    """
    end = None if seconds is None else clock() + seconds
    away_since: float | None = None
    uid = ""
    while True:
        try:
            current = job(kube, name)
            if away_since is not None:
                away_since = None
                note("the API server answers again")
            if uid not in ("", current.metadata.uid):
                raise _deleted(kube, name)
            uid = current.metadata.uid
            yield current
            yield from _changes(kube, current, _remaining(end, clock))
        except ApiUnavailable as error:
            if away_since is None:
                away_since = clock()
                note(f"{error}; trying again")
            elif clock() - away_since > PATIENCE:
                raise
            sleep(_PAUSE)
        except InvalidInput:
            if uid:
                raise _deleted(kube, name) from None
            raise
        if end is not None and clock() >= end:
            return


def _changes(kube: Kube, current: JobOnCluster, seconds: int) -> Iterator[JobOnCluster]:
    """What comes after, until the API server ends the stream or has forgotten where it began."""
    path, version = _path(kube.namespace), current.metadata.resource_version
    try:
        for event in kube.watch(path, selector=f"metadata.name={current.name}", version=version, seconds=seconds):
            if event["type"] == "DELETED":
                raise _deleted(kube, current.name)
            if event["type"] != "BOOKMARK":
                yield _decoded(event["object"])
    except ApiRefused as error:
        if error.status != 410:
            raise


def _remaining(end: float | None, clock: Callable[[], float]) -> int:
    return _WATCH_SECONDS if end is None else max(1, min(_WATCH_SECONDS, round(end - clock())))


def _check_names(kube: Kube, name: str = "any") -> None:
    """Nothing that could mean something else in a path is sent to the API server.

    Raises:
        InvalidInput: no object can have that name, or no namespace.
    """
    Metadata(name=name, namespace=kube.namespace)


def _path(namespace: str | None, name: str = "") -> str:
    where = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return f"/apis/{API_VERSION}{where}/flinkjobs{'/' if name else ''}{name}"


def _decoded(item: Object) -> JobOnCluster:
    try:
        return msgspec.convert(item, JobOnCluster)
    except msgspec.ValidationError as error:
        name = (item.get("metadata") or {}).get("name", "?")
        raise ClusterError(f"FlinkJob {name!r} is of another version than this program: {error}") from None


def _deleted(kube: Kube, name: str) -> ClusterError:
    return ClusterError(f"the FlinkJob {name!r} in namespace {kube.namespace!r} has been deleted")


def _unserved(error: ApiRefused) -> ApiRefused:
    if error.status != 404:
        return error
    return ApiRefused(
        f"the cluster knows no FlinkJobs ({API_VERSION}): the operator's chart brings them, see docs/installation.md",
        status=404,
    )
