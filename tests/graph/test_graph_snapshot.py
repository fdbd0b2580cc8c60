"""Snapshots: what is no snapshot of this job is refused, never believed and never a crash."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flinkjob.api.errors import IllegalOperation
from flinkjob.graph import operations as ops
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.jobgraph import JobGraph
from flinkjob.graph.operations import InputSplit, ResultPartition
from flinkjob.graph.states import ExecutionState, JobStatus

from .samples import GOLDEN, JOB_ID, T, vertex, word_count


def rich() -> ExecutionGraph:
    """A graph with something in each of its fields."""
    graph = ExecutionGraph(word_count())
    graph.apply_all(
        [
            ops.EpochStarted(1, "jm-0", T),
            ops.JobStatusChanged(JobStatus.RUNNING, T),
            ops.TaskManagerRegistered("tm-0", "host:0", 4, T),
            ops.TaskManagerRegistered("tm-1", "host:1", 4, T),
            ops.SplitsCreated(0, (InputSplit("a", 0, 5), InputSplit(payload={"k": [1, None], "j": 2.5}))),
            ops.SplitsAssigned(0, 3, 0, 1),
            ops.SplitsAssigned(0, 1, 1, 1),
            *(ops.TaskDeploying(0, subtask, 0, 0, T + subtask) for subtask in range(4)),
            ops.TaskStateChanged(0, 1, 0, ExecutionState.RUNNING, T + 5),
            ops.TaskFinished(0, 2, 0, T + 6, ResultPartition(1, 2, 0xFFFFFFFF), {"z": 1, "a": 0.5}),
            ops.TaskFailed(0, 3, 0, T + 7, "why"),
            ops.RestartScheduled(((0, 3), (0, 2)), T + 9, "why", ops.RestartState(1, 2, 3, (4, 5), 6), T),
            ops.TaskManagerRemoved(1, "gone", T + 8),
            GOLDEN[-1][0],
        ]
    )
    return graph


def test_a_snapshot_is_restored_with_every_field() -> None:
    graph = rich()
    restored = ExecutionGraph.restore(graph.job_graph, graph.snapshot())
    for name, value in vars(graph).items():
        if name != "vertices":
            assert getattr(restored, name) == value, name
    for old, new in zip(graph.vertices, restored.vertices, strict=True):
        for name in old.__slots__:
            assert getattr(new, name) == getattr(old, name), name
    assert restored.snapshot() == graph.snapshot()


def test_a_restored_graph_shares_nothing_with_the_one_it_was_taken_of() -> None:
    graph = rich()
    data = graph.snapshot()
    restored = ExecutionGraph.restore(graph.job_graph, data)
    restored.apply(ops.TasksReset(0, (3,), T))
    restored.apply(ops.EpochStarted(99, "jm", T))
    assert graph.snapshot() == data


def test_a_new_graph_has_a_snapshot_too() -> None:
    graph = ExecutionGraph(word_count())
    assert ExecutionGraph.restore(graph.job_graph, graph.snapshot()).snapshot() == graph.snapshot()


def other_job() -> JobGraph:
    """The same vertices under another id."""
    return msgspec.structs.replace(word_count(), id=JOB_ID[::-1])


def other_vertices() -> JobGraph:
    """The same id with a vertex less."""
    return JobGraph.build(job_id=JOB_ID, name="word-count", vertices=[vertex("tokenize", 4), vertex("count", 3)])


def other_parallelism() -> JobGraph:
    """The same id and names with other sizes."""
    return JobGraph.build(
        job_id=JOB_ID, name="word-count", vertices=[vertex("tokenize", 4), vertex("count", 9), vertex("report", 1)]
    )


@pytest.mark.parametrize("other", [other_job, other_vertices, other_parallelism])
def test_a_snapshot_of_another_job_is_refused(other: Callable[[], JobGraph]) -> None:
    with pytest.raises(IllegalOperation, match="the snapshot"):
        ExecutionGraph.restore(other(), rich().snapshot())


# A snapshot is [version, byteorder, job, scalars, [[state, numbers, splits, taken, assigned, accumulators], …]].
STATE, NUMBERS, SPLITS, TAKEN, ASSIGNED, ACCUMULATORS = range(6)


def set_scalar(name: str, value: Any) -> Callable[[list[Any]], None]:
    """A change of a field of the graph."""

    def change(snapshot: list[Any]) -> None:
        assert name in snapshot[3]
        snapshot[3][name] = value

    return change


def set_column(column: int, value: Any) -> Callable[[list[Any]], None]:
    """A change of a column of the first vertex."""

    def change(snapshot: list[Any]) -> None:
        snapshot[4][0][column] = value

    return change


def set_number(column: int, value: bytes) -> Callable[[list[Any]], None]:
    """A change of a column of numbers of the first vertex."""

    def change(snapshot: list[Any]) -> None:
        snapshot[4][0][NUMBERS][column] = value

    return change


def set_head(place: int, value: Any) -> Callable[[list[Any]], None]:
    """A change of what the snapshot says of itself."""

    def change(snapshot: list[Any]) -> None:
        snapshot[place] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        set_head(0, 2),
        set_head(1, "middle"),
        set_head(2, "other"),
        set_head(4, []),
        set_column(STATE, b"\0\0\0"),
        set_column(STATE, b"\0\0\0\7"),
        set_column(NUMBERS, []),
        set_number(0, b"\0" * 12),
        set_number(0, b"\0" * 17),
        set_number(1, b"\2\0\0\0" * 4),
        set_number(1, b"\xfe\xff\xff\xff" * 4),
        set_column(SPLITS, None),
        set_column(TAKEN, 1),
        set_column(TAKEN, 3),
        set_column(TAKEN, -1),
        set_column(ASSIGNED, {3: [0]}),
        set_column(ASSIGNED, {3: [0, 0]}),
        set_column(ASSIGNED, {3: [0], 1: [2]}),
        set_column(ASSIGNED, {4: [0], 1: [1]}),
        set_column(ASSIGNED, {-1: [0], 1: [1]}),
        set_column(ACCUMULATORS, {4: {}}),
        set_column(ACCUMULATORS, {-1: {}}),
        set_column(ACCUMULATORS, {0: {"n": "many"}}),
        set_scalar("restart_due", {(0, 4): T}),
        set_scalar("restart_due", {(3, 0): T}),
        set_scalar("restart_due", {(-1, 0): T}),
        set_scalar("status", 8),
        set_scalar("lsn", "many"),
        set_scalar("taskmanagers", []),
    ],
)
def test_a_snapshot_that_names_what_is_not_there_is_refused(change: Callable[[list[Any]], None]) -> None:
    graph = rich()
    snapshot = msgspec.msgpack.decode(graph.snapshot())
    ExecutionGraph.restore(graph.job_graph, msgspec.msgpack.encode(snapshot))
    change(snapshot)
    with pytest.raises(IllegalOperation, match="the snapshot"):
        ExecutionGraph.restore(graph.job_graph, msgspec.msgpack.encode(snapshot))


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x90", b"\x91" * 100_000, b"\xa2\xff\xff", msgspec.msgpack.encode([1])]
)
def test_bytes_that_are_no_snapshot_are_refused(data: bytes) -> None:
    with pytest.raises(IllegalOperation, match="the snapshot cannot be read"):
        ExecutionGraph.restore(word_count(), data)


@given(st.data())
def test_a_damaged_snapshot_is_refused_or_makes_a_graph_that_works(data: st.DataObject) -> None:
    stored = bytearray(rich().snapshot())
    for _ in range(data.draw(st.integers(1, 4))):
        stored[data.draw(st.integers(0, len(stored) - 1))] = data.draw(st.integers(0, 255))
    try:
        graph = ExecutionGraph.restore(word_count(), bytes(stored))
    except IllegalOperation:
        return
    assert sum(graph.count(state) for state in ExecutionState) == 8
    assert graph.accumulators() is not None
    for states in graph.vertices:
        assert all((states.splits or ())[index] for taken in states.assigned.values() for index in taken)
    graph.snapshot()


@given(st.binary(max_size=60))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(IllegalOperation):
        ExecutionGraph.restore(word_count(), data)
