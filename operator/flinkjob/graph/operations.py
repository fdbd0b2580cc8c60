"""The operations: every modification of the ExecutionGraph, as a value.

An operation is what the leader writes to the log and what a successor replays; ``ExecutionGraph.apply`` is the only code
that gives it its meaning. On the wire and in the log it is a msgpack array that opens with the operation's tag:
``[8, 0, 3, 0, 2, 1764000000000]`` is *the attempt 0 of subtask 3 of vertex 0 is RUNNING*. Tags and the order of fields are
the log's format: append a field with a default, never reorder, never reuse a tag.

Vertices and TaskManagers are named by their index, subtasks and attempts by number. Times (``at``) are milliseconds of
the Unix epoch, given by the leader that decided; they order nothing and are there for people and for backoffs.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from flinkjob.graph.states import ExecutionState, JobStatus

MAX_INT = (1 << 63) - 1
"""The largest number that a time, a size or a count can be."""


class InputSplit(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A piece of a source's input: a byte range of a file, or whatever a custom enumerator made (``payload``)."""

    path: str = ""
    start: int = 0
    length: int = 0
    payload: Any = None


class EpochStarted(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=1):
    """A leader began its term. The first one of a graph also names the *run* that attempts belong to."""

    epoch: int
    leader: str
    at: int


class JobStatusChanged(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=2):
    """The job went over to another state; ``cause`` tells why it fails, is cancelled or reconciles."""

    status: JobStatus
    at: int
    cause: str = ""


class TaskManagerRegistered(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=3):
    """A TaskManager joined; its index is the number of those registered before it. ``address`` is for people."""

    id: str
    address: str
    slots: int
    at: int


class TaskManagerRemoved(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=4):
    """A TaskManager is gone for good: it holds no attempt any more."""

    taskmanager: int
    cause: str
    at: int


class SplitsCreated(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=5):
    """The input splits of a source vertex are known; they are handed out in this order."""

    vertex: int
    splits: tuple[InputSplit, ...]


class SplitsAssigned(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=6):
    """The next ``count`` splits of the vertex belong to this subtask from now on, whatever becomes of the attempt.

    They stay with the subtask: a later attempt reads the same splits in the same order, so that a re-run produces what
    the first run produced, and a checkpoint can count splits.
    """

    vertex: int
    subtask: int
    first: int
    count: int


class TaskDeploying(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=7):
    """A slot was chosen; the command to run the attempt is sent once this is durable."""

    vertex: int
    subtask: int
    attempt: int
    taskmanager: int
    at: int


class TaskStateChanged(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=8):
    """An attempt is RUNNING, CANCELING or CANCELED."""

    vertex: int
    subtask: int
    attempt: int
    state: ExecutionState
    at: int


class ResultPartition(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a finished attempt left in storage; its path follows from the attempt.

    Attributes:
        size: bytes of the partition file, 0 when the attempt produced none.
        records: records written to it.
        checksum: CRC-32 of the file's index, which holds those of the data.
    """

    size: int = 0
    records: int = 0
    checksum: int = 0

    @property
    def possible(self) -> bool:
        """Whether there can be such a partition; what a TaskManager tells need not be true."""
        return 0 <= self.size <= MAX_INT and 0 <= self.records <= MAX_INT and 0 <= self.checksum <= 0xFFFFFFFF


class TaskFinished(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=9):
    """An attempt is FINISHED: this makes its partition visible and its accumulators count."""

    vertex: int
    subtask: int
    attempt: int
    at: int
    partition: ResultPartition = ResultPartition()
    accumulators: dict[str, int | float] = {}


class TaskFailed(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=10):
    """An attempt is FAILED, and why."""

    vertex: int
    subtask: int
    attempt: int
    at: int
    cause: str


class RestartState(msgspec.Struct, array_like=True, frozen=True):
    """What a restart strategy remembers; it is logged, so that a failover does not renew the budget.

    Attributes:
        restarts: restarts since the start of the job (fixed-delay) or since the backoff was reset (exponential-delay).
        backoff_ms: the last delay (exponential-delay).
        last_at: when the last failure was, milliseconds.
        due_at: until when the last restart is waited for (exponential-delay), milliseconds.
        failures: times of the failures in the current interval (failure-rate), milliseconds.
    """

    restarts: int = 0
    backoff_ms: int = 0
    last_at: int = 0
    failures: tuple[int, ...] = ()
    due_at: int = 0


class RestartScheduled(msgspec.Struct, array_like=True, frozen=True, tag=11):
    """These subtasks (vertex, subtask) are to run again, not before ``due``, each once its present attempt has ended."""

    tasks: tuple[tuple[int, int], ...]
    due: int
    cause: str
    strategy: RestartState
    at: int


class TasksReset(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=12):
    """These subtasks of the vertex are CREATED again, each with the next attempt number."""

    vertex: int
    subtasks: tuple[int, ...]
    at: int


class RestartedTask(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A task that a failover could not continue, and why."""

    vertex: int
    subtask: int
    reason: str


class FailoverCompleted(msgspec.Struct, array_like=True, frozen=True, tag=13):
    """A new leader has reconciled. This is the history that status, REST and report show.

    Attributes:
        epoch: the new leader's.
        leader: its id.
        cause: why the previous term ended, as far as is known.
        started_at: when the new leader began to replay, milliseconds.
        replayed_operations: operations replayed after the snapshot.
        replay_ms: how long that took.
        reconcile_ms: from the epoch's start to the last verdict.
        decided_at: when scheduling went on, milliseconds.
        verdicts: how many tasks were continued, advanced, redeployed, restarted, orphaned.
        restarted: the tasks that had to run again.
        silent_since: when the previous leader last gave a sign of life, milliseconds, by the clock of its machine; 0 where
            that is not known.
    """

    epoch: int
    leader: str
    cause: str
    started_at: int
    replayed_operations: int
    replay_ms: float
    reconcile_ms: float
    decided_at: int
    verdicts: dict[str, int]
    restarted: tuple[RestartedTask, ...] = ()
    silent_since: int = 0

    @property
    def gap_ms(self) -> int:
        """For how long nobody decided anything, as far as is known: from the previous leader's last sign of life, or else
        from the start of the replay, to the first decision."""
        since = min(self.silent_since, self.started_at) if self.silent_since else self.started_at
        return max(0, self.decided_at - since)


Operation: TypeAlias = (
    EpochStarted
    | JobStatusChanged
    | TaskManagerRegistered
    | TaskManagerRemoved
    | SplitsCreated
    | SplitsAssigned
    | TaskDeploying
    | TaskStateChanged
    | TaskFinished
    | TaskFailed
    | RestartScheduled
    | TasksReset
    | FailoverCompleted
)

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises on bytes that it cannot decode."""

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[Operation])


def encode_operations(operations: Sequence[Operation]) -> bytes:
    """A block's payload: one msgpack array of operations."""
    return _ENCODER.encode(operations)


def decode_operations(payload: bytes) -> list[Operation]:
    """The operations of a block's payload.

    Raises:
        msgspec.DecodeError: the bytes are no msgpack, or no list of known operations.
    """
    try:
        return _DECODER.decode(payload)
    except UNREADABLE as error:
        raise msgspec.DecodeError(f"no list of operations: {error}") from None
