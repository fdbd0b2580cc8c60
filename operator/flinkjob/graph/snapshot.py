"""The ExecutionGraph as bytes, and back: what bounds the length of a replay.

The same operations give the same bytes, whether they were applied at once or a snapshot was taken and restored in between;
so the bytes also serve to compare graphs.
"""

import sys
from array import array
from itertools import chain
from typing import Any

import msgspec

from flinkjob.api.errors import IllegalOperation
from flinkjob.graph.operations import UNREADABLE, FailoverCompleted, InputSplit, RestartState
from flinkjob.graph.states import ExecutionState, JobStatus
from flinkjob.graph.vertex import ExecutionJobVertex, TaskId

SNAPSHOT_VERSION = 1


class TaskManagerInfo(msgspec.Struct, array_like=True):
    """A TaskManager that the job has known."""

    id: str
    address: str
    slots: int
    registered_at: int
    removed: str = ""


class ExceptionEntry(msgspec.Struct, array_like=True, frozen=True):
    """A failure that people should see: which attempt of which task (vertex -1: the job itself), where and why."""

    vertex: int
    subtask: int
    attempt: int
    taskmanager: int
    at: int
    cause: str


class _Columns(msgspec.Struct, array_like=True):
    state: bytes
    numbers: list[bytes]
    splits: tuple[InputSplit, ...] | None
    splits_taken: int
    assigned: dict[int, list[int]]
    accumulators: dict[int, dict[str, int | float]]


class _Scalars(msgspec.Struct):
    """The attributes of an ExecutionGraph of the same names."""

    lsn: int
    run: int
    epoch: int
    leader: str
    status: JobStatus
    status_cause: str
    status_times: dict[JobStatus, int]
    started_at: int
    taskmanagers: list[TaskManagerInfo]
    restart_due: dict[TaskId, int]
    restart_state: RestartState
    restarts: int
    failover_count: int
    failovers: list[FailoverCompleted]
    exceptions: list[ExceptionEntry]


class _Snapshot(msgspec.Struct, array_like=True):
    version: int
    byteorder: str
    job_id: str
    scalars: _Scalars
    vertices: list[_Columns]


SCALARS = _Scalars.__struct_fields__
"""The attributes of an ExecutionGraph that a snapshot holds beside the columns."""

_ENCODER = msgspec.msgpack.Encoder()
_NUMBER_COLUMNS = ("attempt", "taskmanager", "since", "deployed_at", "size", "records", "checksum")


def _pack(vertex: ExecutionJobVertex) -> _Columns:
    numbers = [getattr(vertex, name).tobytes() for name in _NUMBER_COLUMNS]
    taken, assigned, accumulators = vertex.splits_taken, vertex.assigned, vertex.accumulators
    return _Columns(bytes(vertex.state), numbers, vertex.splits, taken, assigned, accumulators)


def _unpack(vertex: ExecutionJobVertex, columns: _Columns) -> None:
    n = vertex.parallelism
    if (
        len(columns.state) != n
        or len(columns.numbers) != len(_NUMBER_COLUMNS)
        or max(columns.state) >= len(ExecutionState)
    ):
        raise IllegalOperation(f"the snapshot of vertex {vertex.job_vertex.name!r} does not hold its {n} subtasks")
    vertex.state = bytearray(columns.state)
    for name, data in zip(_NUMBER_COLUMNS, columns.numbers, strict=True):
        column = array(getattr(vertex, name).typecode)
        if len(data) != n * column.itemsize:
            raise IllegalOperation(f"the snapshot of vertex {vertex.job_vertex.name!r} has {name} cut short")
        column.frombytes(data)
        setattr(vertex, name, column)
    vertex.counts = [vertex.state.count(state) for state in ExecutionState]
    vertex.splits, vertex.splits_taken = columns.splits, columns.splits_taken
    vertex.assigned, vertex.accumulators = columns.assigned, columns.accumulators


def _check_vertex(vertex: ExecutionJobVertex, taskmanagers: int) -> None:
    """What the columns say of splits, subtasks and TaskManagers must be there."""
    taken = vertex.splits_taken
    subtasks = chain(vertex.assigned, vertex.accumulators)
    if (
        not 0 <= taken <= len(vertex.splits or ())
        or sorted(chain.from_iterable(vertex.assigned.values())) != list(range(taken))
        or not all(0 <= subtask < vertex.parallelism for subtask in subtasks)
        or not -1 <= min(vertex.taskmanager) <= max(vertex.taskmanager) < taskmanagers
    ):
        raise IllegalOperation(f"the snapshot of vertex {vertex.job_vertex.name!r} names what is not there")


def _check_restarts(restart_due: dict[TaskId, int], vertices: list[ExecutionJobVertex]) -> None:
    for vertex, subtask in restart_due:
        if not 0 <= vertex < len(vertices) or not 0 <= subtask < vertices[vertex].parallelism:
            raise IllegalOperation(f"the snapshot restarts subtask {subtask} of vertex {vertex}, which is not there")


def encode_snapshot(job_id: str, scalars: dict[str, Any], vertices: list[ExecutionJobVertex]) -> bytes:
    """The bytes of a graph whose SCALARS and vertices these are."""
    columns = [_pack(vertex) for vertex in vertices]
    return _ENCODER.encode(_Snapshot(SNAPSHOT_VERSION, sys.byteorder, job_id, _Scalars(**scalars), columns))


def decode_snapshot(job_id: str, data: bytes, vertices: list[ExecutionJobVertex]) -> dict[str, Any]:
    """Fill the columns of the new ``vertices`` from the bytes; the SCALARS are returned.

    Raises:
        IllegalOperation: the bytes are no snapshot, damaged, or of another version, byte order or job.
    """
    try:
        held = msgspec.msgpack.decode(data, type=_Snapshot)
    except UNREADABLE as error:
        raise IllegalOperation(f"the snapshot cannot be read: {error}") from None
    expected = (SNAPSHOT_VERSION, sys.byteorder, job_id, len(vertices))
    found = (held.version, held.byteorder, held.job_id, len(held.vertices))
    if found != expected:
        raise IllegalOperation(f"the snapshot is of (version, byte order, job, vertices) {found}, wanted is {expected}")
    for vertex, columns in zip(vertices, held.vertices, strict=True):
        _unpack(vertex, columns)
        _check_vertex(vertex, len(held.scalars.taskmanagers))
    _check_restarts(held.scalars.restart_due, vertices)
    return {name: getattr(held.scalars, name) for name in SCALARS}
