"""The network: connections that keep their messages in order, and what can happen to them.

On one connection messages arrive in the order in which they were sent, as with TCP; those of different connections overtake
each other as they like. Each end learns by itself, and late, that the other one is gone; until then what is on its way may
still arrive. Where two machines cannot reach each other, what they send waits, and arrives when they can again.

Three faults concern messages:

- *Lost*: a connection swallows all that is on its way and all that is sent from then on, in one direction or in both, and
  nobody is told: only heartbeats find out. No message is lost alone, on a connection that goes on: TCP does not do that,
  and the protocol does not bear it (a deployment that is lost alone would be waited for until the next registration).
- *Doubled*: a message arrives twice. TCP does not do that either, but the protocol says that each command and each report
  can be repeated. The second copy comes right behind the first: one that came behind an acknowledgement would have an
  attempt begin anew that its TaskManager was allowed to forget.
- *Swapped*: a message arrives later than some that were sent after it. This too is more than TCP allows. The handshake
  (Register and its answer) and the end of a connection keep their places, which is what a connection is.
"""

from collections.abc import Callable
from typing import Any

from flinkjob.rpc.connection import OK
from flinkjob.worker import protocol as msg

from .scheduler import Process, Scheduler

END = object()
"""Stands behind the last message: the other end has closed."""

VANISHED = 1006
"""The code that a WebSocket gives to a connection which ended without a word."""
HANDSHAKE = (msg.Register, msg.Registered, msg.Refused)
LONGEST_DELAY = 120
"""Milliseconds by which a message that is overtaken is late."""


class End:
    """One end of a connection.

    Attributes:
        process: whose end it is.
        open: whether messages are sent and taken here.
        deaf: nothing arrives here any more, and nobody knows.
        on_message, on_closed: what the process does with a message, and when the connection is gone.
        close_code: with which code the other end has closed, once that is known. goodbye: with which this one has.
    """

    __slots__ = (
        "arrival", "close_code", "deaf", "goodbye", "last", "network", "on_closed", "on_message", "open", "other", "process",
        "stalled",
    )  # fmt: skip

    other: "End"

    def __init__(self, network: "Network", process: Process) -> None:
        self.network = network
        self.process = process
        self.open = True
        self.deaf = False
        self.close_code: int | None = None
        self.goodbye = VANISHED
        self.arrival = self.last = 0
        self.stalled: list[object] = []
        self.on_message: Callable[[Any], None] = lambda message: None
        self.on_closed: Callable[[], None] = lambda: None

    def send(self, message: object) -> None:
        """Send a message to the other end, where this one is still open."""
        if self.open:
            self.network.transmit(self, message)

    def close(self, code: int = OK) -> None:
        """Take and send nothing any more; the other end learns of it, and why, behind what was sent before."""
        if self.open:
            self.open = False
            self.goodbye = code
            self.network.transmit(self, END)

    def abort(self) -> None:
        """See ``rpc.connection``."""
        self.close(VANISHED)

    def hear(self, message: object) -> None:
        """Something has arrived here."""
        if not self.open or self.deaf:
            return
        if message is END:
            self.close_code = self.other.goodbye
            self.lose()
        else:
            self.on_message(message)

    def lose(self) -> None:
        """The connection is gone, as this end sees it."""
        if self.open:
            self.open = False
            self.on_closed()


class Network:
    """Who can reach whom, and what is on its way.

    Attributes:
        doubling, swapping: the part of the messages that arrive twice, or too late, 0 to 1.
        disturbed: there have been such messages.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.doubling = self.swapping = 0.0
        self.disturbed = False
        self._scheduler = scheduler
        self._apart: dict[tuple[str, str], int] = {}
        self._ends: list[End] = []

    def connect(self, client: Process, server: Process) -> tuple[End, End]:
        """A new connection: the client's end, and the server's."""
        ours, theirs = End(self, client), End(self, server)
        ours.other, theirs.other = theirs, ours
        self._ends = [end for end in self._ends if end.open]
        self._ends += (ours, theirs)
        return ours, theirs

    def transmit(self, end: End, message: object) -> None:
        """Carry a message to the other end."""
        if self.reaches(end.process.name, end.other.process.name):
            scheduler, other = self._scheduler, end.other
            moment = max(other.arrival, scheduler.now + scheduler.step_time())
            if self.swapping or self.doubling or other.last > moment:
                moment = self._disturb(other, message, moment)
            else:
                other.arrival = moment
            scheduler.at(moment, other.process, other.hear, message)
        else:
            end.stalled.append(message)

    def _disturb(self, other: End, message: object, moment: int) -> int:
        """When the message arrives, which may do so twice, or too late."""
        random = self._scheduler.random.random
        if message is END:
            return max(moment, other.last)
        if random() < self.swapping and not isinstance(message, HANDSHAKE):
            self.disturbed = True
            moment += self._scheduler.below(LONGEST_DELAY)
        else:
            other.arrival = moment
        other.last = max(other.last, moment)
        if random() < self.doubling:
            self.disturbed = True
            self._scheduler.at(moment, other.process, other.hear, message)
        return moment

    # What goes wrong

    def reaches(self, one: str, other: str) -> bool:
        """Whether messages pass between the two at this moment."""
        if not self._apart:
            return True
        return not self._apart.get((one, other) if one < other else (other, one))

    def part(self, one: str, other: str) -> None:
        """From now on nothing passes between the two."""
        pair = (one, other) if one < other else (other, one)
        self._apart[pair] = self._apart.get(pair, 0) + 1

    def join(self, one: str, other: str) -> None:
        """They reach each other again, once for each time they were parted; what was sent meanwhile arrives."""
        pair = (one, other) if one < other else (other, one)
        self._apart[pair] -= 1
        if self.reaches(one, other):
            for end in self._ends:
                if end.stalled and {end.process.name, end.other.process.name} == {one, other}:
                    waiting, end.stalled = end.stalled, []
                    for message in waiting:
                        self.transmit(end, message)

    def connections_of(self, process: Process) -> list[End]:
        """The open ends of a process."""
        return [end for end in self._ends if end.open and end.process is process]

    def break_off(self, end: End, ours: int, theirs: int) -> None:
        """A connection breaks: each end notices after a time of its own, and takes until then what is on its way."""
        scheduler = self._scheduler
        scheduler.at(scheduler.now + ours, end.process, end.lose)
        scheduler.at(scheduler.now + theirs, end.other.process, end.other.lose)

    def swallow(self, end: End, theirs: bool, ours: bool) -> None:
        """From now on nothing arrives at the one end of a connection, or at the other, and neither is told."""
        end.deaf = end.deaf or ours
        end.other.deaf = end.other.deaf or theirs

    def buried(self, process: Process, delay: int) -> None:
        """A process has died: its peers are told by its machine, after so long."""
        for end in self.connections_of(process):
            end.open = False
            other = end.other
            self._scheduler.at(self._scheduler.now + delay, other.process, other.lose)
