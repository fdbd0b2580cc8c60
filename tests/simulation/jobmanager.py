"""A JobManager's process: a candidate, at most one term, and the TaskManagers' connections."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flinkjob.api.errors import FlinkJobError
from flinkjob.jobmaster import events as ev
from flinkjob.worker import protocol as msg

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
TEND_INTERVAL = 250
"""All in milliseconds, and short: a simulated minute costs as much as a minute's messages."""

GOING_AWAY = object()
"""A TaskManager's last word on a connection: it was stopped, or has nothing to do any more."""


@dataclass(slots=True, eq=False)
class Connected:
    """A registered TaskManager's connection."""

    id: str
    end: End
    last_heartbeat: int
    going_away: bool = False


@dataclass(slots=True, eq=False)
class Held:
    """A TaskManager that waits for a leader."""

    end: End
    register: msg.Register
    until: int = field(default=0)


class JobManager(Process):
    """One JobManager. Its name is its address."""

    def __init__(self, world: "Cluster", name: str, *, rate: float, offset: int) -> None:
        super().__init__(world.scheduler, name, rate=rate, offset=offset)
        self.world = world
        self.term: Term | None = None
        self._led: Term | None = None
        self._by_id: dict[str, Connected] = {}
        self._held: list[Held] = []
        self._known_leader = ""
        self.candidate = Candidate(
            self,
            world.lease,
            world.network,
            address=name,
            on_elected=self._elected,
            on_lost=self._end_term,
            on_seen=self._look_around,
        )

    def die(self, *, told_after: int = 0) -> None:
        """The process ends; its connections' peers learn of it after so long."""
        self.alive = False
        self.world.jobmanager_died(self, told_after)

    # Terms

    def _elected(self) -> None:
        self.world.note(self, "is elected")
        self.point("elected")
        self.term = term = Term(
            self,
            self.world,
            is_leader=self.candidate.is_leader,
            send=self._send,
            opened=lambda: self._lead(term),
            over=self._term_over,
        )

    def _lead(self, term: Term) -> None:
        """From now on connections belong to this term."""
        self.world.note(self, f"leads epoch {term.epoch}")
        self._led = term
        self._news()
        self.soon(self._tend, term)

    def _end_term(self) -> None:
        self.world.note(self, "leads no more")
        self._led = None
        for connected in list(self._by_id.values()):
            connected.end.close()
        self._by_id.clear()
        if self.term is not None:
            self.term.close()
            self.term = None
        self._news()

    def _term_over(self, error: FlinkJobError) -> None:
        self.world.note(self, f"gives up: {error}")
        self._end_term()
        self.candidate.give_up()

    def _tend(self, term: Term) -> None:
        """See who has been silent for too long, and who is known to have ended."""
        if term is not self._led or term.master is None:
            return
        oldest = self.clock() - HEARTBEAT_TIMEOUT
        for connected in [c for c in self._by_id.values() if c.last_heartbeat < oldest]:
            del self._by_id[connected.id]
            connected.end.close()
            term.dispatch(ev.TaskManagerGone(connected.id, "no heartbeat"))
        ended = self.world.ended
        for worker in [w for w in term.master.workers if w.id in ended and not w.connected]:
            term.dispatch(ev.TaskManagerGone(worker.id, ended[worker.id]))
        self.after(TEND_INTERVAL, self._tend, term)

    # Connections

    def accept(self, end: End) -> None:
        """A TaskManager has called."""
        end.on_message = lambda message: self._first(end, message)

    def _first(self, end: End, register: msg.Register) -> None:
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
        if term is None or term.master is None:
            end.send(msg.Refused(self.candidate.leader, "this JobManager does not lead"))
            return
        before = self._by_id.pop(register.id, None)
        if before is not None:
            before.end.close()
        connected = Connected(register.id, end, self.clock())
        self._by_id[register.id] = connected
        end.send(
            msg.Registered(
                term.master.graph.epoch,
                b"",
                "",
                HEARTBEAT_INTERVAL,
                HEARTBEAT_TIMEOUT,
                RECONNECTION_TIMEOUT,
                CANCELLATION_TIMEOUT,
            )
        )
        end.on_message = lambda message: self._hear(term, connected, message)
        end.on_closed = lambda: self._left(term, connected)
        term.heard[register.id] = term.now()
        term.dispatch(ev.TaskManagerConnected(register.id, register.address, register.slots, register.reports))

    def _hear(self, term: Term, connected: Connected, message: object) -> None:
        connected.last_heartbeat = self.clock()
        term.heard[connected.id] = term.now()
        if isinstance(message, msg.Reports):
            term.dispatch(ev.TasksReported(connected.id, message.reports))
        elif isinstance(message, msg.SplitRequest):
            term.dispatch(ev.SplitRequested(connected.id, message.attempt, message.index))
        elif isinstance(message, msg.Heartbeat):
            connected.end.send(msg.Alive(term.master.graph.epoch if term.master else 0))
        else:
            assert message is GOING_AWAY
            connected.going_away = True

    def _left(self, term: Term, connected: Connected) -> None:
        if self._by_id.get(connected.id) is not connected:
            return
        del self._by_id[connected.id]
        term.dispatch(ev.TaskManagerDisconnected(connected.id))
        if connected.going_away:
            term.dispatch(ev.TaskManagerGone(connected.id, "it was stopped"))

    def _send(self, taskmanager: str, message: msg.FromJobManager) -> None:
        connected = self._by_id.get(taskmanager)
        if connected is not None:
            connected.end.send(message)
