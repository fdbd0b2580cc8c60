"""A JobManager's process: a candidate, at most one term, and the TaskManagers' connections.

The connections are the product's (``jobmanager.connections``); what is played here is only what awaits: the reading of
messages, and the time for which a TaskManager is held.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from flinkjob.api import options as opt
from flinkjob.api.errors import FlinkJobError, ProtocolViolation
from flinkjob.api.options import Configuration
from flinkjob.jobmanager.connections import Connected, Connections
from flinkjob.jobmaster import events as ev
from flinkjob.worker import protocol as msg

from . import leaderpromises
from .candidate import Candidate
from .network import End
from .scheduler import Process
from .term import Term

if TYPE_CHECKING:
    from .cluster import Cluster

HEARTBEAT_INTERVAL = 800
HEARTBEAT_TIMEOUT = 4000
RECONNECTION_TIMEOUT = 12_000
CANCELLATION_TIMEOUT = 600
HOLD_TIMEOUT = 2000
TEND_INTERVAL = 400
"""All in milliseconds, and short: a simulated minute costs as much as a minute's messages."""


class _Storage(NamedTuple):
    url: str = ""


class Job(NamedTuple):
    """What the connections ask of the job."""

    configuration: Configuration
    id: str = ""
    storage: _Storage = _Storage()


JOB = Job(
    Configuration().with_overrides(
        {
            opt.HEARTBEAT_INTERVAL.key: f"{HEARTBEAT_INTERVAL} ms",
            opt.HEARTBEAT_TIMEOUT.key: f"{HEARTBEAT_TIMEOUT} ms",
            opt.RECONNECTION_TIMEOUT.key: f"{RECONNECTION_TIMEOUT} ms",
            opt.TASK_CANCELLATION_TIMEOUT.key: f"{CANCELLATION_TIMEOUT} ms",
        }
    )
)


@dataclass(slots=True, eq=False)
class Held:
    """A TaskManager that waits for a leader."""

    end: End
    register: msg.Register
    until: int = field(default=0)


class JobManager(Process):
    """One JobManager. Its name is its address.

    Attributes:
        job: what the connections ask of the job. stopping: it was told to stop.
        doubted_at: when it last knew that it may be the one that is cut off, milliseconds.
    """

    def __init__(self, world: "Cluster", name: str, *, rate: float, offset: int) -> None:
        super().__init__(world.scheduler, name, rate=rate, offset=offset)
        self.world = world
        self.job = JOB
        self.term: Term | None = None
        self.stopping = False
        self.doubted_at = 0
        self._led: Term | None = None
        self._ahead = 0
        self._connections = Connections(cast(Any, self))
        self._held: list[Held] = []
        self._known_leader = ""
        self.candidate = self._stand(Candidate)

    def _stand(self, candidate: type[Candidate]) -> Candidate:
        return candidate(
            self,
            self.world.lease,
            self.world.network,
            address=self.name,
            on_elected=self._elected,
            on_lost=self._end_term,
            on_seen=self._look_around,
            fence=self._is_newest,
        )

    # The clock of the time of day, as ``jobmanager.clock`` has it

    def now_ms(self) -> int:
        """The time of day."""
        return self.world.epoch_of_time + self.clock() + self._ahead

    def not_before(self, at_ms: int) -> None:
        """That moment has passed already."""
        self._ahead += max(0, at_ms - self.now_ms())

    # The end

    def die(self, *, told_after: int = 0) -> None:
        """The process ends; its connections' peers learn of it after so long."""
        self.alive = False
        self.world.jobmanager_died(self, told_after)

    def stop(self) -> None:
        """SIGTERM: make durable what was decided, close the connections, free the lease, and end."""
        if self.stopping:
            return
        self.world.note(self, "is told to stop")
        self.stopping = True
        term, self.term = self.term, None
        if term is None:
            self._stop_standing()
        elif term.opening:
            term.close()
            self._await_opening(term)
        else:
            term.close(self._stop_standing)
        self.point("stopping")

    def _await_opening(self, term: Term) -> None:
        if term.opening:
            self.after(50, self._await_opening, term)
        else:
            self._stop_standing()

    def _stop_standing(self) -> None:
        self.point("flushed")
        self._led = None
        self._connections.lead(None)
        self.candidate.release(self._exit)

    def _exit(self) -> None:
        self.world.note(self, "ends")
        self.alive = False
        self.world.jobmanager_left(self)

    # Terms

    def _elected(self) -> None:
        self.world.note(self, "is elected")
        if self.stopping:
            return
        self.point("elected")
        self.term = term = Term(
            self,
            self.world,
            self.world.store_of(self.name),
            is_leader=self.candidate.is_leader,
            send=self._connections.send,
            opened=lambda: self._lead(term),
            over=self._term_over,
        )

    def _lead(self, term: Term) -> None:
        """From now on connections belong to this term."""
        self.world.note(self, f"leads epoch {term.epoch}")
        self._led = term
        self._connections.lead(cast(Any, term))
        self._news()
        self.soon(self._tend, term)

    def _end_term(self) -> None:
        self.world.note(self, "leads no more")
        self._led = None
        self._connections.lead(None)
        if self.term is not None:
            self.term.close()
            self.term = None
        self._news()

    def _term_over(self, error: FlinkJobError) -> None:
        self.world.note(self, f"gives up: {error}")
        if not self.stopping:
            self._end_term()
            self.candidate.give_up()

    def _is_newest(self, answer: Callable[[bool | FlinkJobError], None]) -> None:
        """What the log says, asked while the lease cannot be renewed; a term that has no pen yet cannot ask."""
        writer = self.term.writer if self.term is not None else None
        if self.term is None or writer is None:
            answer(False)
            return
        epoch, asked_at = self.term.epoch, self.scheduler.now

        def answered(error: FlinkJobError | None) -> None:
            self.point("fence asked")
            if error is None:
                leaderpromises.only_the_newest_is_confirmed(self.world, epoch, asked_at)
            answer(error or True)

        writer.check_fence(answered)

    def _tend(self, term: Term) -> None:
        """See who has been silent for too long, and who is known to have ended."""
        if term is not self._led or term.master is None:
            return
        deaf = self.candidate.in_doubt()
        if deaf:
            self.doubted_at = self.now_ms()
        before = {connected.id: connected.last_heartbeat_ms for connected in self._connections}
        self._connections.drop_silent(HEARTBEAT_TIMEOUT, deaf=deaf)
        dropped = before.keys() - {connected.id for connected in self._connections}
        leaderpromises.no_silence_counts_in_doubt(self, [before[id] for id in dropped])
        for id, cause in self._ended([worker.id for worker in term.master.workers if not worker.connected]).items():
            term.dispatch(ev.TaskManagerGone(id, cause))
        self.after(TEND_INTERVAL, self._tend, term)

    def _ended(self, taskmanagers: list[str]) -> dict[str, str]:
        """Those that are known to have ended, and why."""
        return {name: self.world.ended[name] for name in taskmanagers if name in self.world.ended}

    # Connections

    def accept(self, end: End) -> None:
        """A TaskManager has called."""
        end.on_message = lambda message: self._first(end, message)

    def _first(self, end: End, register: msg.Register) -> None:
        self.point("register heard")
        end.on_message = lambda message: None
        held = Held(end, register, self.clock() + HOLD_TIMEOUT)
        if self._waits(held):
            self._held.append(held)
            self.after(HOLD_TIMEOUT, self._give_way, held)
        else:
            self._register(end, register)

    def _waits(self, held: Held) -> bool:
        """Whether nobody is known to lead, or only the one that was lost: it may well be this one, soon."""
        return self._led is None and self.candidate.leader in ("", held.register.lost)

    def _give_way(self, held: Held) -> None:
        if held in self._held:
            self._held.remove(held)
            self._register(held.end, held.register)

    def _news(self) -> None:
        for held in [held for held in self._held if not self._waits(held)]:
            self._give_way(held)

    def _look_around(self) -> None:
        if self.candidate.leader != self._known_leader:
            self._known_leader = self.candidate.leader
            self._news()

    def _register(self, end: End, register: msg.Register) -> None:
        # Taken for granted here: what a TaskManager has sent on a connection that it has given up since is not looked at.
        if not end.open or not end.other.open:
            return
        term = self._led
        if term is not None:
            term.heard[register.id] = term.now()
        connected = self._connections._register(cast(Any, end), register, register.address, self.candidate.leader)
        if connected is None:
            end.close()
        elif term is not None:
            end.on_message = lambda message: self._hear(term, connected, message)
            end.on_closed = lambda: self._left(term, connected)
            self.point("registered")

    def _hear(self, term: Term, connected: Connected, message: Any) -> None:
        connected.last_heartbeat_ms = self.now_ms()
        term.heard[connected.id] = term.now()
        try:
            self._connections._handle(cast(Any, term), connected, message)
        except ProtocolViolation as error:
            leaderpromises.no_nonsense_is_told(self.world, connected.id, error)
            cast(End, connected.connection).close()
            self._left(term, connected)
        self.point("heard")

    def _left(self, term: Term, connected: Connected) -> None:
        self._connections._left(cast(Any, term), connected)
        self.point("left")
