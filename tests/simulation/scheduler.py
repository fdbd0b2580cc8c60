"""Virtual time: what happens next, to whom, and the history of what has happened.

Nothing waits here. Everything that happens is a call that somebody has put into the agenda for a certain moment; the
earliest one comes next, and time jumps to it. A call belongs to a process: a dead one has no future, a stopped one
(SIGSTOP) has it later. The same seed gives the same history, call by call.
"""

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from random import Random
from typing import Any

MAX_STEPS = 30_000
"""More than any run needs; who takes more goes round in circles."""

Entry = tuple[int, int, "Process | None", bool, Callable[..., None], tuple[Any, ...]]


class Crashed(Exception):
    """A process dies in the middle of what it does."""

    def __init__(self, process: "Process") -> None:
        super().__init__(process.name)
        self.process = process


@dataclass(slots=True)
class Trap:
    """Where a process is to die, or to stop for ``pause`` milliseconds, after so many passes that go well."""

    point: str
    passes: int = 0
    pause: int = 0


class Process:
    """Something that can die, be stopped, and whose clock may be wrong.

    Attributes:
        rate: how fast its clock runs. offset: what its clock showed when the world began, milliseconds.
        paused_until: until when it is stopped. drowsy_until: its timers are late when it wakes up, what it has heard is not.
        trap: where it is to die or to stop; it is sprung once.
    """

    def __init__(self, scheduler: "Scheduler", name: str, *, rate: float = 1.0, offset: int = 0) -> None:
        self.scheduler = scheduler
        self.name = name
        self.rate = rate
        self.offset = offset
        self.alive = True
        self.paused_until = 0
        self.drowsy_until = 0
        self.trap: Trap | None = None

    def clock(self) -> int:
        """Its steady clock, milliseconds."""
        return self.offset + int(self.scheduler.now * self.rate)

    def signature(self, epoch: int) -> str:
        """What it calls itself in the log as the leader of an epoch."""
        return f"{self.name}/{epoch}"

    def set_right(self) -> None:
        """From now on its clock runs as it should."""
        self.offset, self.rate = self.clock() - self.scheduler.now, 1.0

    def after(self, milliseconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Put a call into the agenda, so many milliseconds of its own clock from now."""
        moment = self.scheduler.now + int(milliseconds / self.rate) + 1
        self.scheduler.at(moment, self, call, *arguments, timer=True)

    def soon(self, call: Callable[..., None], *arguments: Any) -> None:
        """A step of work: it takes the time that such a step takes in this world."""
        self.scheduler.at(self.scheduler.now + self.scheduler.step_time(), self, call, *arguments)

    def pause(self, milliseconds: int) -> None:
        """The process is stopped (SIGSTOP), and goes on so much later."""
        self.paused_until = self.scheduler.now + milliseconds
        self.drowsy_until = self.paused_until + self.scheduler.below(30)

    def point(self, name: str) -> None:
        """The process has come to a point of its program at which it may die or stop."""
        trap = self.trap
        if trap is None or trap.point != name:
            return
        if trap.passes:
            trap.passes -= 1
            return
        self.trap = None
        self.scheduler.sprung.add(name)
        self.scheduler.note(self.name, f"{'stops' if trap.pause else 'dies'} here: {name}")
        if not trap.pause:
            raise Crashed(self)
        self.pause(trap.pause)

    def die(self) -> None:
        """The process ends, now and without a word."""
        self.alive = False


class Scheduler:
    """The agenda.

    Attributes:
        now: milliseconds since the world began.
        slowness: the longest that a usual step takes, milliseconds.
        history: (moment, process, what) of all that is worth telling. sprung: the points at which somebody died or stopped.
    """

    def __init__(self, random: Random, *, slowness: int = 6) -> None:
        self.random = random
        self.now = 0
        self.steps = 0
        self.slowness = slowness
        self.history: list[tuple[int, str, object]] = []
        self.sprung: set[str] = set()
        self._agenda: list[Entry] = []
        self._number = 0

    def at(
        self, moment: int, process: Process | None, call: Callable[..., None], *arguments: Any, timer: bool = False
    ) -> None:
        """Put a call into the agenda."""
        assert moment >= self.now, "that moment has passed"
        self._number += 1
        heappush(self._agenda, (moment, self._number, process, timer, call, arguments))

    def step_time(self) -> int:
        """How long a step takes: mostly little, now and then long."""
        chance = self.random.random()
        if chance < 0.02:
            return int(chance * 50 * 40 * self.slowness)
        return int(chance * self.slowness)

    def below(self, bound: int) -> int:
        """A random whole number from 0 to below the bound."""
        return int(self.random.random() * bound)

    def note(self, who: str, what: object) -> None:
        """Write something into the history."""
        self.history.append((self.now, who, what))

    def step(self) -> bool:
        """Let the next call happen; False: there is none."""
        if not self._agenda:
            return False
        moment, number, process, timer, call, arguments = heappop(self._agenda)
        if process is not None:
            if not process.alive:
                return True
            wakes = process.drowsy_until if timer else process.paused_until
            if wakes > moment:
                heappush(self._agenda, (wakes, number, process, timer, call, arguments))
                return True
        self.now = moment
        self.steps += 1
        try:
            call(*arguments)
        except Crashed as crash:
            crash.process.die()
        return True
