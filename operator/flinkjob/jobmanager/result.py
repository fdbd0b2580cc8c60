"""The job's result: a small JSON document beside the log, written once when the job has ended."""

from collections.abc import Iterator

import msgspec

from flinkjob.api.errors import StorageError
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.operations import UNREADABLE, FailoverCompleted
from flinkjob.graph.states import ExecutionState
from flinkjob.graph.vertex import ExecutionJobVertex


class TaskOutput(msgspec.Struct, frozen=True):
    """The partition of a finished subtask that nobody reads: a part of the job's result."""

    vertex: str
    vertex_index: int
    subtask: int
    attempt: int
    run: int
    size: int
    records: int
    checksum: int


class VertexResult(msgspec.Struct, frozen=True):
    """A vertex at the end: ``finished`` of its ``parallelism`` subtasks, after ``attempts`` executions."""

    name: str
    parallelism: int
    finished: int
    attempts: int


class RestartedTask(msgspec.Struct, frozen=True):
    """A task that a failover did not continue, and why."""

    task: str
    reason: str


class FailoverResult(msgspec.Struct, frozen=True):
    """One failover; see FailoverCompleted."""

    epoch: int
    leader: str
    cause: str
    started_at: int
    replayed_operations: int
    replay_ms: float
    reconcile_ms: float
    decided_at: int
    verdicts: dict[str, int]
    restarted: tuple[RestartedTask, ...]


class JobResult(msgspec.Struct, frozen=True):
    """How a job ended, what it took, and where its result lies. Times are milliseconds of the Unix epoch."""

    job_id: str
    name: str
    state: str
    cause: str
    started_at: int
    ended_at: int
    epoch: int
    vertices: tuple[VertexResult, ...]
    accumulators: dict[str, int | float]
    failovers: tuple[FailoverResult, ...]
    outputs: tuple[TaskOutput, ...]


def job_result(graph: ExecutionGraph) -> JobResult:
    """The result of an ended job."""
    return JobResult(
        job_id=graph.job_graph.id,
        name=graph.job_graph.name,
        state=graph.status.name,
        cause=graph.status_cause,
        started_at=graph.started_at,
        ended_at=graph.status_times.get(graph.status, 0),
        epoch=graph.epoch,
        vertices=tuple(_vertex(vertex) for vertex in graph.vertices),
        accumulators=graph.accumulators(),
        failovers=tuple(_failover(graph, failover) for failover in graph.failovers),
        outputs=tuple(_outputs(graph)),
    )


def _vertex(vertex: ExecutionJobVertex) -> VertexResult:
    attempts = sum(vertex.attempt) + vertex.parallelism - vertex.counts[ExecutionState.CREATED]
    return VertexResult(vertex.job_vertex.name, vertex.parallelism, vertex.counts[ExecutionState.FINISHED], attempts)


def _failover(graph: ExecutionGraph, failover: FailoverCompleted) -> FailoverResult:
    return FailoverResult(
        epoch=failover.epoch,
        leader=failover.leader,
        cause=failover.cause,
        started_at=failover.started_at,
        replayed_operations=failover.replayed_operations,
        replay_ms=failover.replay_ms,
        reconcile_ms=failover.reconcile_ms,
        decided_at=failover.decided_at,
        verdicts=failover.verdicts,
        restarted=tuple(
            RestartedTask(graph.task_name(task.vertex, task.subtask), task.reason) for task in failover.restarted
        ),
    )


def _outputs(graph: ExecutionGraph) -> Iterator[TaskOutput]:
    for vertex in graph.vertices:
        if vertex.job_vertex.outputs:
            continue
        for subtask in vertex.subtasks_in(ExecutionState.FINISHED):
            if vertex.size[subtask]:
                yield TaskOutput(
                    vertex=vertex.job_vertex.name,
                    vertex_index=vertex.job_vertex.index,
                    subtask=subtask,
                    attempt=vertex.attempt[subtask],
                    run=graph.run,
                    size=vertex.size[subtask],
                    records=vertex.records[subtask],
                    checksum=vertex.checksum[subtask],
                )


def encode_result(result: JobResult) -> bytes:
    """As it is stored: JSON that a person can read."""
    return msgspec.json.format(msgspec.json.encode(result), indent=2)


def decode_result(data: bytes) -> JobResult:
    """What ``encode_result`` made.

    Raises:
        StorageError: the bytes are something else.
    """
    try:
        return msgspec.json.decode(data, type=JobResult)
    except UNREADABLE as error:
        raise StorageError(f"the job's result cannot be read: {error}") from None
