"""The closing report of a run: what happened to the job, and what each failover cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from flinkjob.jobmanager.result import FailoverResult, JobResult, RestartedTask
from flinkjob.local.monitor import JobView

VERDICTS = ("continued", "advanced", "redeployed", "restarted", "orphaned")


@dataclass(frozen=True, slots=True)
class LeaderDeath:
    """A leader that ended during the run.

    Attributes:
        leader: its id. cause: how its process ended.
        at: when, milliseconds of the Unix epoch. detected_ms: until this process noticed.
        before: the job as it was last seen before.
    """

    leader: str
    cause: str
    at: int
    detected_ms: int
    before: JobView | None


@dataclass(frozen=True, slots=True)
class Failover:
    """One change of leaders, as seen from both sides.

    ``gap_ms`` is the time from the death of the old leader to the first decision of the new one; None where this run did
    not see the death.
    """

    epoch: int
    leader: str
    cause: str
    detected_ms: int | None
    replayed_operations: int
    replay_ms: float
    reconcile_ms: float
    gap_ms: int | None
    verdicts: dict[str, int]
    restarted: tuple[RestartedTask, ...]


def replayed_failover(told: FailoverResult, death: LeaderDeath | None) -> Failover:
    """A failover that the new leader recorded, with what was seen of it from outside."""
    return Failover(
        epoch=told.epoch,
        leader=told.leader,
        cause=death.cause if death else told.cause,
        detected_ms=death.detected_ms if death else None,
        replayed_operations=told.replayed_operations,
        replay_ms=told.replay_ms,
        reconcile_ms=told.reconcile_ms,
        gap_ms=max(0, told.decided_at - death.at) if death else None,
        verdicts={name: told.verdicts.get(name, 0) for name in VERDICTS},
        restarted=told.restarted,
    )


def unlogged_failover(view: JobView, *, leader: str, death: LeaderDeath) -> Failover:
    """A failover without an operation log: the new leader began the job anew, and all that had begun is lost."""
    lost = {vertex.name: vertex.begun for vertex in (death.before.vertices if death.before else ()) if vertex.begun}
    reason = "there is no operation log: the new leader runs the whole job again"
    return Failover(
        epoch=view.epoch,
        leader=leader,
        cause=death.cause,
        detected_ms=death.detected_ms,
        replayed_operations=0,
        replay_ms=0.0,
        reconcile_ms=0.0,
        gap_ms=max(0, view.start_time - death.at),
        verdicts=dict.fromkeys(VERDICTS, 0) | {"restarted": sum(lost.values())},
        restarted=tuple(RestartedTask(f"{vertex} ({count} tasks)", reason) for vertex, count in lost.items()),
    )


@dataclass(frozen=True, slots=True)
class Report:
    """All that ``flinkjob run`` knows at the end.

    Attributes:
        result: what the last leader recorded.
        started_at: when the job began, milliseconds; without a log the last leader knows only of its own beginning.
        failovers: those of the job's whole life, the latest ten; the gap is known of those that this run saw.
        outputs: the records of the vertices that nobody reads, by vertex, as far as they are shown.
    """

    result: JobResult
    started_at: int
    failovers: Sequence[Failover]
    outputs: Mapping[str, list[Any]]

    @property
    def duration_ms(self) -> int:
        """From the beginning of the job to its end."""
        return self.result.ended_at - self.started_at

    @property
    def restarted_tasks(self) -> int:
        """How many executions were not the first of their subtask."""
        again = sum(max(0, vertex.attempts - vertex.parallelism) for vertex in self.result.vertices)
        return again + sum(f.verdicts["restarted"] for f in self.failovers if not f.replayed_operations)

    def to_json(self) -> bytes:
        """The document of ``--output json``."""
        result = self.result
        document = {
            "job": {
                "id": result.job_id,
                "name": result.name,
                "state": result.state,
                "cause": result.cause,
                "duration_ms": self.duration_ms,
            },
            "vertices": result.vertices,
            "tasks": {
                "total": sum(vertex.parallelism for vertex in result.vertices),
                "finished": sum(vertex.finished for vertex in result.vertices),
                "restarted": self.restarted_tasks,
            },
            "accumulators": result.accumulators,
            "failovers": self.failovers,
            "outputs": self.outputs,
        }
        return msgspec.json.format(msgspec.json.encode(document), indent=2)
