"""The network: connections that keep their messages in order, and what can happen to them.

On one connection messages arrive in the order in which they were sent, as with TCP; those of different connections overtake
each other as they like. Each end learns by itself, and late, that the other one is gone; until then what is on its way may
still arrive. Where two machines cannot reach each other, what they send waits, and arrives when they can again.
"""

from collections.abc import Callable
from typing import Any

from .scheduler import Process, Scheduler

END = object()
"""Stands behind the last message: the other end has closed."""


class End:
    """One end of a connection.

    Attributes:
        process: whose end it is.
        open: whether messages are sent and taken here.
        on_message, on_closed: what the process does with a message, and when the connection is gone.
    """

    __slots__ = ("arrival", "network", "on_closed", "on_message", "open", "other", "process", "stalled")

    other: "End"

    def __init__(self, network: "Network", process: Process) -> None:
        self.network = network
        self.process = process
        self.open = True
        self.arrival = 0
        self.stalled: list[object] = []
        self.on_message: Callable[[Any], None] = lambda message: None
        self.on_closed: Callable[[], None] = lambda: None

    def send(self, message: object) -> None:
        """Send a message to the other end, where this one is still open."""
        if self.open:
            self.network.transmit(self, message)

    def close(self) -> None:
        """Take and send nothing any more; the other end learns of it behind what was sent before."""
        if self.open:
            self.open = False
            self.network.transmit(self, END)

    def hear(self, message: object) -> None:
        """Something has arrived here."""
        if not self.open:
            return
        if message is END:
            self.lose()
        else:
            self.on_message(message)

    def lose(self) -> None:
        """The connection is gone, as this end sees it."""
        if self.open:
            self.open = False
            self.on_closed()


class Network:
    """Who can reach whom, and what is on its way."""

    def __init__(self, scheduler: Scheduler) -> None:
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
            other.arrival = max(other.arrival, scheduler.now + scheduler.step_time())
            scheduler.at(other.arrival, other.process, other.hear, message)
        else:
            end.stalled.append(message)

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

    def buried(self, process: Process, delay: int) -> None:
        """A process has died: its peers are told by its machine, after so long."""
        for end in self.connections_of(process):
            end.open = False
            other = end.other
            self._scheduler.at(self._scheduler.now + delay, other.process, other.lose)
