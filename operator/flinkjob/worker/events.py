"""What the TaskManager's core is told (events) and what it wants done (effects).

The events of a worker process are its messages as well: what the process sends is what the core is told. A message of
the JobManager is an event too, so ``FromJobManager`` completes the list. Effects name the slot, because that is what
whoever carries them out has in hand.
"""

from typing import TypeAlias

import msgspec

from flinkjob.graph.operations import InputSplit, ResultPartition
from flinkjob.worker.protocol import AttemptId, Deployment, FromJobManager, FromTaskManager

# Events of a worker process


class Started(msgspec.Struct, array_like=True, frozen=True, gc=False, tag="started"):
    """The attempt has begun in a process that runs."""

    attempt: AttemptId


class SplitWanted(msgspec.Struct, array_like=True, frozen=True, gc=False, tag="split?"):
    """The attempt waits for its split number ``index``."""

    attempt: AttemptId
    index: int


class ProgressMade(msgspec.Struct, array_like=True, frozen=True, gc=False, tag="progress"):
    """The attempt says how far it is: a fraction from 0 to 1, records and bytes written so far."""

    attempt: AttemptId
    fraction: float
    records: int
    size: int


class Finished(msgspec.Struct, array_like=True, frozen=True, gc=False, tag="finished"):
    """The attempt has ended well, and its partition is in storage."""

    attempt: AttemptId
    partition: ResultPartition = ResultPartition()
    accumulators: dict[str, int | float] = {}


class Failed(msgspec.Struct, array_like=True, frozen=True, gc=False, tag="failed"):
    """The attempt has failed; ``lost_input`` names (vertex, subtask) of a producer whose partition was not to be read."""

    attempt: AttemptId
    cause: str
    lost_input: tuple[int, int] | None = None


class Cancelled(msgspec.Struct, array_like=True, frozen=True, gc=False, tag="cancelled"):
    """The attempt was told to stop and did."""

    attempt: AttemptId


FromRunner: TypeAlias = Started | SplitWanted | ProgressMade | Finished | Failed | Cancelled

# Events of the TaskManager itself


class ProcessDied(msgspec.Struct, frozen=True):
    """The worker process of the attempt is gone without a last word; ``cause`` has its exit code or signal."""

    attempt: AttemptId
    cause: str


class Connected(msgspec.Struct, frozen=True):
    """A connection to a JobManager is open; nothing has been said yet. ``lost``: the address of the leader before."""

    lost: str = ""


class ConnectionLost(msgspec.Struct, frozen=True):
    """There is no connection any more."""


class StopRequested(msgspec.Struct, frozen=True):
    """The TaskManager is told to go (SIGTERM): its tasks are handed back."""

    reason: str


class Tick(msgspec.Struct, frozen=True):
    """Time has passed; due at ``next_deadline`` and harmless at any other time."""


Event: TypeAlias = FromRunner | ProcessDied | Connected | ConnectionLost | StopRequested | Tick | FromJobManager

# Effects


class StartAttempt(msgspec.Struct, frozen=True):
    """Run the attempt in this slot, which is free."""

    slot: int
    deployment: Deployment


class CancelAttempt(msgspec.Struct, frozen=True):
    """Ask the attempt in this slot to stop (SIGTERM)."""

    slot: int
    attempt: AttemptId


class KillAttempt(msgspec.Struct, frozen=True):
    """Kill the attempt in this slot with all its processes (SIGKILL): its grace is over."""

    slot: int
    attempt: AttemptId


class GiveSplit(msgspec.Struct, frozen=True):
    """The answer to SplitWanted: None when there are no more."""

    slot: int
    attempt: AttemptId
    index: int
    split: InputSplit | None


class Send(msgspec.Struct, frozen=True):
    """Tell the JobManager."""

    message: FromTaskManager


class Disconnect(msgspec.Struct, frozen=True):
    """Drop the connection and look for a leader anew."""

    reason: str


class ShutDown(msgspec.Struct, frozen=True):
    """Nothing runs any more: deliver what was to be sent, and exit with this code."""

    reason: str
    code: int


Effect: TypeAlias = StartAttempt | CancelAttempt | KillAttempt | GiveSplit | Send | Disconnect | ShutDown
