"""The lease in Kubernetes: a ``coordination.k8s.io/v1`` Lease, whose resourceVersion makes compare-and-swap.

An object is written back as it was read, with the fields of the election changed: owner, labels and whatever else is on it
stay. Where the leader is reached, and why the last one is known to be dead, stands in annotations, since a Lease has no
fields for that.
"""

import asyncio
import contextlib
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from flinkjob.api.errors import AlreadyChanged, ApiRefused, ClusterError, LeaseError
from flinkjob.election.apiserver import NOT_FOUND, KubernetesApi, Object
from flinkjob.election.record import LeaseRecord
from flinkjob.election.reflector import Reflector

ADDRESS = "flinkjob.io/address"
REST = "flinkjob.io/rest"
ENDED = "flinkjob.io/ended"
API_VERSION = "coordination.k8s.io/v1"

CALL_TIMEOUT = 5.0
"""Seconds for one call; whoever calls sets a shorter limit by cancelling."""


class KubernetesLeaseStore:
    """A LeaseStore in the Lease ``name`` of ``namespace``.

    Args:
        field_manager: who writes, for ``managedFields``.
        labels: of the Lease, should it be missing and have to be made.
    """

    def __init__(
        self,
        api: KubernetesApi,
        *,
        namespace: str,
        name: str,
        field_manager: str,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self._api = api
        self._collection = f"/apis/{API_VERSION}/namespaces/{namespace}/leases"
        self._path = f"{self._collection}/{name}"
        self._field_manager = field_manager
        self._new: Object = {
            "apiVersion": API_VERSION,
            "kind": "Lease",
            "metadata": {"name": name, "namespace": namespace, "labels": dict(labels or {})},
        }
        self._known: Object | None = None
        self._changes_read = 0
        self._stirred = asyncio.Event()
        self._mirror = Reflector(
            api,
            self._collection,
            query={"fieldSelector": f"metadata.name={name}"},
            keep=_version,
            on_change=self._stir,
        )
        self._watching: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Stop watching."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})

    async def read(self) -> LeaseRecord | None:
        """See LeaseStore.

        Raises:
            LeaseError: the API server refuses or does not answer.
        """
        self._changes_read = self._mirror.changes
        try:
            self._known = await self._api.request("GET", self._path, timeout=CALL_TIMEOUT)
        except ClusterError as error:
            if not _missing(error):
                raise LeaseError(str(error)) from error
            self._known = None
        return _record(self._known) if self._known is not None else None

    async def compare_and_swap(self, expected: str, new: LeaseRecord) -> LeaseRecord | None:
        """See LeaseStore.

        Raises:
            LeaseError: the API server refuses or does not answer; the record may have been written all the same.
        """
        known = self._known
        if expected and (known is None or _version(known) != expected):
            await self.read()
            known = self._known
            if known is None or _version(known) != expected:
                return None
        body = _changed(known if known is not None and expected else self._new, new)
        method, path = ("PUT", self._path) if expected else ("POST", self._collection)
        query = {"fieldManager": self._field_manager}
        try:
            self._known = await self._api.request(method, path, query=query, body=body, timeout=CALL_TIMEOUT)
        except ClusterError as error:
            if isinstance(error, AlreadyChanged) or (expected and _missing(error)):
                return None
            raise LeaseError(str(error)) from error
        return _record(self._known)

    async def changed(self, after_version: str, timeout: float) -> bool:
        """See LeaseStore. A watch tells; while there is none to be had, the time passes and the caller reads."""
        if self._watching is None:
            self._watching = asyncio.create_task(self._mirror.run())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                # What the watch told before the last read is known by that, and may be older.
                while self._mirror.changes == self._changes_read or after_version in self._mirror.objects.values():
                    await self._stirred.wait()
                return True
        return False

    def _stir(self) -> None:
        self._stirred.set()
        self._stirred = asyncio.Event()


def _missing(error: ClusterError) -> bool:
    return isinstance(error, ApiRefused) and error.status == NOT_FOUND


def _version(lease: Object) -> str:
    return str(lease["metadata"]["resourceVersion"])


def _record(lease: Object) -> LeaseRecord:
    spec: dict[str, Any] = lease.get("spec") or {}
    annotations: dict[str, str] = lease["metadata"].get("annotations") or {}
    return LeaseRecord(
        holder=spec.get("holderIdentity") or "",
        address=annotations.get(ADDRESS, ""),
        rest=annotations.get(REST, ""),
        ended=annotations.get(ENDED, ""),
        lease_duration=float(spec.get("leaseDurationSeconds") or 0.0),
        acquire_time=spec.get("acquireTime") or "",
        renew_time=spec.get("renewTime") or "",
        transitions=spec.get("leaseTransitions") or 0,
        version=_version(lease),
    )


def _changed(lease: Object, record: LeaseRecord) -> Object:
    metadata = {key: value for key, value in lease["metadata"].items() if key != "managedFields"}
    annotations = dict(metadata.get("annotations") or {})
    for key, value in ((ADDRESS, record.address), (REST, record.rest), (ENDED, record.ended)):
        if value:
            annotations[key] = value
        else:
            annotations.pop(key, None)
    spec = {
        **(lease.get("spec") or {}),
        "holderIdentity": record.holder,
        # A Lease has whole seconds; others are not to come too early.
        "leaseDurationSeconds": max(1, math.ceil(record.lease_duration)),
        "leaseTransitions": record.transitions,
    }
    for key, text in (("acquireTime", record.acquire_time), ("renewTime", record.renew_time)):
        if text:
            spec[key] = _micro_time(text)
    return {**lease, "metadata": {**metadata, "annotations": annotations}, "spec": spec}


def _micro_time(text: str) -> str:
    """A time in the only form that the API server reads as a MicroTime."""
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
