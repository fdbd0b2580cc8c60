"""The leader's part of a FlinkJob's status, as a function of the live state (`api.status` says what it means).

It looks at vertices and TaskManagers, never at subtasks, so that it costs the same for a job of ten tasks and of a million.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

from flinkjob.api.status import (
    FailoverStatus,
    FlinkJobStatus,
    JobStatusInfo,
    LeaderStatus,
    LogStatus,
    RestartedTaskStatus,
    TaskCounts,
    Verdicts,
    VertexStatus,
)
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.operations import FailoverCompleted
from flinkjob.graph.states import ExecutionState, JobStatus
from flinkjob.jobmanager.surroundings import LOG_UNREADABLE, Leading

MAX_RESTARTED = 20
"""Tasks that one failover names."""
MAX_TEXT = 1024
"""Characters of a cause or a reason."""
LAG_STEP = 1000.0
"""A lag is told in steps of so many milliseconds: less than one is none, and a status must not change with each look."""

_BEFORE_THE_END = {
    JobStatus.FINISHED: JobStatus.RUNNING,
    JobStatus.CANCELED: JobStatus.CANCELLING,
    JobStatus.FAILED: JobStatus.FAILING,
}


def leader_status(leading: Leading) -> FlinkJobStatus | None:
    """What the leader says; None while it has nothing to say yet."""
    graph = leading.graph
    if graph is None:
        return None
    return FlinkJobStatus(
        job_status=_job_status(graph, _certain(leading, graph.status)),
        leader=LeaderStatus(pod=graph.leader, epoch=graph.epoch, since=timestamp(leading.since)),
        reconciling=graph.status is JobStatus.RECONCILING,
        running_tasks=dict(leading.running_tasks),
        failovers=graph.failover_count,
        failover_history=tuple(_failover(graph, failover) for failover in graph.failovers),
        log=log_status(leading),
    )


def log_status(leading: Leading) -> LogStatus | None:
    """How the log fares; None where there is none."""
    if leading.problem:
        if leading.reason != LOG_UNREADABLE:
            return None
        return LogStatus(writable=False, problem=leading.problem[:MAX_TEXT])
    writer = leading.writer
    if writer is None:
        return None
    problem = str(writer.failure) if writer.failure is not None else writer.degraded
    lag = writer.lag_seconds * 1000 // LAG_STEP * LAG_STEP
    return LogStatus(writable=problem is None, lag_ms=lag, problem=problem[:MAX_TEXT] if problem else None)


def timestamp(at_ms: int) -> str:
    """A time as Kubernetes writes it, to the millisecond."""
    text = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _certain(leading: Leading, status: JobStatus) -> JobStatus:
    """The job's status, or what it was before its end while that is not durable: upon that word the operator stops all."""
    writer = leading.writer
    return _BEFORE_THE_END[status] if status.terminal and writer is not None and writer.lag else status


def _job_status(graph: ExecutionGraph, status: JobStatus) -> JobStatusInfo:
    ended = graph.status_times.get(status) if status.terminal else None
    failing = status in (JobStatus.FAILING, JobStatus.FAILED)
    counts = [sum(column) for column in zip(*(vertex.counts for vertex in graph.vertices), strict=True)]
    return JobStatusInfo(
        job_id=graph.job_graph.id,
        state=status.name,
        start_time=timestamp(graph.started_at),
        end_time=timestamp(ended) if ended is not None else None,
        tasks=_counts(counts),
        vertices=tuple(
            VertexStatus(name=vertex.job_vertex.name, parallelism=vertex.parallelism, tasks=_counts(vertex.counts))
            for vertex in graph.vertices
        ),
        error=graph.status_cause[:MAX_TEXT] if failing else None,
    )


def _counts(counts: Iterable[int]) -> TaskCounts:
    by_state = {state.name.lower(): count for state, count in zip(ExecutionState, counts, strict=True)}
    return TaskCounts(total=sum(by_state.values()), **by_state)


def _failover(graph: ExecutionGraph, failover: FailoverCompleted) -> FailoverStatus:
    known = {verdict: failover.verdicts.get(verdict, 0) for verdict in Verdicts.__struct_fields__}
    return FailoverStatus(
        epoch=failover.epoch,
        leader=failover.leader,
        cause=failover.cause[:MAX_TEXT],
        detected_at=timestamp(failover.started_at),
        replay_ms=failover.replay_ms,
        reconcile_ms=failover.reconcile_ms,
        gap_ms=float(failover.gap_ms),
        replayed_operations=failover.replayed_operations,
        verdicts=Verdicts(**known),
        restarted=tuple(
            RestartedTaskStatus(task=graph.task_name(task.vertex, task.subtask), reason=task.reason[:MAX_TEXT])
            for task in failover.restarted[:MAX_RESTARTED]
        ),
    )
