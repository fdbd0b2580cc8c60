"""What the JobMaster is told, and what it wants done.

Events come from the shell (connections, timers, storage, the REST API). A Decision is the answer: operations, which have
been applied already and are to be logged, and effects, which the shell releases once those operations are durable.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

from flinkjob.graph.operations import InputSplit, Operation, ResultPartition
from flinkjob.graph.states import JobStatus
from flinkjob.graph.vertex import TaskId
from flinkjob.worker.protocol import AttemptId, FromJobManager, Report


@dataclass(frozen=True, slots=True)
class TaskManagerConnected:
    """A TaskManager registered, or registered again, and reported all that it has."""

    id: str
    address: str
    slots: int
    reports: tuple[Report, ...]


@dataclass(frozen=True, slots=True)
class TaskManagerDisconnected:
    """The connection is gone; the TaskManager may come back."""

    id: str


@dataclass(frozen=True, slots=True)
class TaskManagerGone:
    """The TaskManager will not come back: its pod or process is gone, or it was silent for too long."""

    id: str
    cause: str


@dataclass(frozen=True, slots=True)
class TasksReported:
    """A TaskManager told what has changed."""

    id: str
    reports: tuple[Report, ...]


@dataclass(frozen=True, slots=True)
class SplitRequested:
    """A source attempt wants its split number ``index``."""

    id: str
    attempt: AttemptId
    index: int


@dataclass(frozen=True, slots=True)
class SplitsEnumerated:
    """The answer to EnumerateSplits."""

    vertex: int
    splits: tuple[InputSplit, ...]


@dataclass(frozen=True, slots=True)
class EnumerationFailed:
    """The splits of a vertex cannot be had: the job fails."""

    vertex: int
    cause: str


@dataclass(frozen=True, slots=True)
class PartitionsChecked:
    """The answer to CheckPartitions: the subtasks whose partition is missing or damaged."""

    missing: tuple[TaskId, ...]


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """A person wants the job cancelled."""


@dataclass(frozen=True, slots=True)
class TimePassed:
    """The time that ``JobMaster.next_deadline`` named has come."""


Event: TypeAlias = (
    TaskManagerConnected
    | TaskManagerDisconnected
    | TaskManagerGone
    | TasksReported
    | SplitRequested
    | SplitsEnumerated
    | EnumerationFailed
    | PartitionsChecked
    | CancelRequested
    | TimePassed
)


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message to a TaskManager; if it is not connected any more, its next registration settles the matter."""

    taskmanager: str
    message: FromJobManager


@dataclass(frozen=True, slots=True)
class EnumerateSplits:
    """Find the input splits of a source vertex."""

    vertex: int


@dataclass(frozen=True, slots=True)
class CheckPartitions:
    """See in storage whether the partitions of these finished subtasks are what the log says."""

    partitions: tuple[tuple[TaskId, int, ResultPartition], ...]
    """(subtask, attempt, partition)"""


@dataclass(frozen=True, slots=True)
class JobEnded:
    """The job's end is durable."""

    status: JobStatus


Effect: TypeAlias = Send | EnumerateSplits | CheckPartitions | JobEnded


@dataclass(slots=True)
class Decision:
    """What an event led to: operations to be logged, and effects to be released when they are durable."""

    operations: list[Operation] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
