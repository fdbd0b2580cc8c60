"""The bookkeeping of one failover: who still owes a verdict, and what the verdicts were.

It is open from a new leader's start until each attempt that the log holds as active has a verdict and the partitions that
are still needed have been looked at, or the time is over. Scheduling waits for that.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from flinkjob.graph.operations import RestartedTask
from flinkjob.graph.vertex import TaskId
from flinkjob.jobmaster.verdicts import Verdict


@dataclass(frozen=True, slots=True)
class Replay:
    """What the shell knows of the replay that made the graph.

    Attributes:
        cause: why the previous leader's term ended, as far as is known.
        started_at: when the new leader began to replay, milliseconds.
        operations: how many were replayed.
        ms: how long it took.
        silent_since: when the previous leader last gave a sign of life, milliseconds; 0 where that is not known.
    """

    cause: str = ""
    started_at: int = 0
    operations: int = 0
    ms: float = 0.0
    silent_since: int = 0


_LOST_PARTITION = "its result partition is missing or damaged"
FAILED_ITSELF, INPUT_RUNS_AGAIN = "it failed by itself", "what it read runs again"
_CLASSES = (
    (re.compile("TaskManager .* no longer has it"), "not reported"),
    (re.compile("TaskManager .* is lost: "), "TaskManager lost"),
    (re.compile(_LOST_PARTITION), "partition lost"),
    (re.compile(FAILED_ITSELF), "failed"),
    (re.compile(INPUT_RUNS_AGAIN), "input runs again"),
)
REASON_CLASSES = (*(name for _, name in _CLASSES), "other")
"""The kinds of reasons why a failover restarts a task, for metrics; there are no others."""


def reason_class(reason: str) -> str:
    """The kind of a reason: one of `REASON_CLASSES`."""
    return next((name for pattern, name in _CLASSES if pattern.match(reason)), "other")


@dataclass(slots=True)
class Reconciliation:
    """One failover, while it goes on."""

    replay: Replay
    began_at: int
    pending: set[TaskId]
    unchecked: set[TaskId]
    checked: set[TaskId] = field(default_factory=set)
    verdicts: Counter[str] = field(default_factory=Counter)
    failed: set[TaskId] = field(default_factory=set)
    lost: set[TaskId] = field(default_factory=set)
    restarted: dict[TaskId, str] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether every verdict has been given."""
        return not self.pending and not self.unchecked

    def settle(self, task: TaskId, verdict: Verdict) -> None:
        """Count the verdict on a task; the first one counts."""
        if task in self.pending:
            self.pending.discard(task)
            self.verdicts[verdict.value] += 1

    def conflict(self, task: TaskId, reason: str) -> None:
        """The task cannot go on: it is restarted once the failover is over."""
        self.settle(task, Verdict.CONFLICT)
        self.failed.add(task)
        self.restarted.setdefault(task, reason)

    def partitions_checked(self, missing: Iterable[TaskId]) -> None:
        """The storage was looked at; finished tasks whose partition is gone run again."""
        self.checked |= self.unchecked
        self.unchecked = set()
        for task in missing:
            self.lost.add(task)
            self.verdicts[Verdict.CONFLICT.value] += 1
            self.restarted.setdefault(task, _LOST_PARTITION)

    def restarted_tasks(self) -> tuple[RestartedTask, ...]:
        """For the history."""
        return tuple(RestartedTask(*task, reason) for task, reason in sorted(self.restarted.items()))
