"""The words that a JobManager and a TaskManager exchange.

Everything is a msgspec array with a tag; what arrives is checked against these types before anyone looks at it. Each
command of a leader carries its epoch, and a TaskManager refuses a lower one than it has seen. Each report and each answer
can be repeated without harm: reports of ended attempts are sent until they are acknowledged, a split is asked for by its
number.
"""

from typing import NamedTuple, TypeAlias

import msgspec

from flinkjob.graph.operations import InputSplit, ResultPartition
from flinkjob.graph.states import ExecutionState

PROTOCOL_VERSION = 1


class AttemptId(NamedTuple):
    """One attempt of one subtask. ``run`` tells attempts of one graph from those of another run of the same job."""

    run: int
    vertex: int
    subtask: int
    attempt: int


class Report(msgspec.Struct, array_like=True, frozen=True):
    """What a TaskManager has to say of an attempt: RUNNING, FINISHED, CANCELED or FAILED (DEPLOYING: not begun yet).

    Attributes:
        partition: what a FINISHED attempt left in storage.
        accumulators: those of a FINISHED attempt.
        cause: why it FAILED.
        lost_input: (vertex, subtask) of a producer whose partition was missing or damaged.
    """

    attempt: AttemptId
    state: ExecutionState
    partition: ResultPartition = ResultPartition()
    accumulators: dict[str, int | float] = {}
    cause: str = ""
    lost_input: tuple[int, int] | None = None


# From a TaskManager


class Register(msgspec.Struct, array_like=True, frozen=True, tag="register"):
    """The first message of a connection: who it is and *all* that it has.

    ``lost`` is the address of the leader that it was last connected to: a standby that still takes that one for the leader
    knows by it that there will soon be another.
    """

    version: int
    job: str
    id: str
    address: str
    slots: int
    reports: tuple[Report, ...]
    lost: str = ""


class Reports(msgspec.Struct, array_like=True, frozen=True, tag="reports"):
    """What has changed since."""

    reports: tuple[Report, ...]


class SplitRequest(msgspec.Struct, array_like=True, frozen=True, tag="split?"):
    """A source attempt asks for its split number ``index`` (from 0)."""

    attempt: AttemptId
    index: int


class Progress(msgspec.Struct, array_like=True, frozen=True):
    """How far a running attempt says it is (0 to 1), and what it has written: shown to people, never logged."""

    attempt: AttemptId
    fraction: float
    records: int
    size: int


class Heartbeat(msgspec.Struct, array_like=True, frozen=True, tag="heartbeat"):
    """A sign of life."""

    progress: tuple[Progress, ...] = ()


FromTaskManager: TypeAlias = Register | Reports | SplitRequest | Heartbeat

# From a JobManager


class Registered(msgspec.Struct, array_like=True, frozen=True, tag="registered"):
    """The leader took the TaskManager in.

    Attributes:
        epoch: the leader's.
        job_graph: as ``JobGraph.encode`` made it.
        storage: URL of the job's storage.
        heartbeat_interval_ms, heartbeat_timeout_ms: how often to give a sign of life, and when to take the leader for lost.
        reconnection_timeout_ms: how long to keep tasks without a leader.
        cancellation_timeout_ms: how long a task may take to stop before it is killed.
    """

    epoch: int
    job_graph: bytes
    storage: str
    heartbeat_interval_ms: int
    heartbeat_timeout_ms: int
    reconnection_timeout_ms: int
    cancellation_timeout_ms: int


class Refused(msgspec.Struct, array_like=True, frozen=True, tag="refused"):
    """Not here: this JobManager does not lead (``leader`` names who does, if known) or cannot use the TaskManager."""

    leader: str
    reason: str


class InputPartition(msgspec.Struct, array_like=True, frozen=True):
    """A finished producer's partition, as its consumer needs to find and check it."""

    subtask: int
    attempt: int
    partition: ResultPartition


class Deployment(msgspec.Struct, array_like=True, frozen=True):
    """An attempt to run: for each input of its vertex, the partitions to read."""

    attempt: AttemptId
    inputs: tuple[tuple[InputPartition, ...], ...] = ()


class Deploy(msgspec.Struct, array_like=True, frozen=True, tag="deploy"):
    """Run these."""

    epoch: int
    deployments: tuple[Deployment, ...]


class Cancel(msgspec.Struct, array_like=True, frozen=True, tag="cancel"):
    """Stop these."""

    epoch: int
    attempts: tuple[AttemptId, ...]


class Acknowledge(msgspec.Struct, array_like=True, frozen=True, tag="ack"):
    """The ends of these are durable in the log, or of no interest: forget them."""

    epoch: int
    attempts: tuple[AttemptId, ...]


class Splits(msgspec.Struct, array_like=True, frozen=True, tag="split!"):
    """The answer to a SplitRequest: split number ``index``, or None when there are no more."""

    epoch: int
    attempt: AttemptId
    index: int
    split: InputSplit | None


class JobOver(msgspec.Struct, array_like=True, frozen=True, tag="over"):
    """The job has ended: the TaskManager may go."""

    epoch: int
    status: str


class Alive(msgspec.Struct, array_like=True, frozen=True, tag="alive"):
    """The answer to a Heartbeat."""

    epoch: int


FromJobManager: TypeAlias = Registered | Refused | Deploy | Cancel | Acknowledge | Splits | JobOver | Alive
