"""A TaskExecutor under a clock of the test, and short words for what goes in and out."""

from dataclasses import dataclass, field
from typing import TypeVar

from flinkjob.graph.states import ExecutionState
from flinkjob.worker import events as ev
from flinkjob.worker import protocol as msg
from flinkjob.worker.protocol import AttemptId, Deployment, Report
from flinkjob.worker.taskexecutor import TaskExecutor

E = TypeVar("E")

HEARTBEAT_INTERVAL = 1_000
HEARTBEAT_TIMEOUT = 5_000
RECONNECTION_TIMEOUT = 60_000
GRACE = 3_000


def attempt(subtask: int, number: int = 0) -> AttemptId:
    """An attempt of vertex 0."""
    return AttemptId(1, 0, subtask, number)


def registered(epoch: int) -> msg.Registered:
    """The leader of this epoch takes the TaskManager in."""
    return msg.Registered(
        epoch, b"graph", "/storage", HEARTBEAT_INTERVAL, HEARTBEAT_TIMEOUT, RECONNECTION_TIMEOUT, GRACE
    )


def deploy(epoch: int, *attempts: AttemptId) -> msg.Deploy:
    """Deploy attempts without inputs."""
    return msg.Deploy(epoch, tuple(Deployment(id) for id in attempts))


@dataclass
class Bench:
    """An executor, its clock, and all effects so far."""

    slots: int = 2
    now: int = 0
    effects: list[ev.Effect] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.executor = TaskExecutor(id="tm", job="job", address="here", slots=self.slots, now=self.now)

    def tell(self, *events: ev.Event) -> list[ev.Effect]:
        """Feed events; returns the effects of these."""
        effects = [effect for event in events for effect in self.executor.handle(event, now=self.now)]
        self.effects += effects
        return effects

    def join(self, epoch: int = 1) -> list[ev.Effect]:
        """Connect and be registered."""
        return self.tell(ev.Connected(), registered(epoch))

    def pass_time(self, milliseconds: int) -> list[ev.Effect]:
        """Let time pass in one step."""
        self.now += milliseconds
        return self.tell(ev.Tick())


def only(kind: type[E], effects: list[ev.Effect]) -> list[E]:
    """The effects of this type."""
    return [effect for effect in effects if isinstance(effect, kind)]


def reports(effects: list[ev.Effect]) -> list[Report]:
    """All reports sent, those of registrations included."""
    messages = [effect.message for effect in only(ev.Send, effects)]
    return [report for m in messages if isinstance(m, (msg.Register, msg.Reports)) for report in m.reports]


def states(effects: list[ev.Effect]) -> list[tuple[int, ExecutionState]]:
    """(subtask, state) of all reports sent."""
    return [(report.attempt.subtask, report.state) for report in reports(effects)]
