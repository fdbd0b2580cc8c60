"""Several candidates, clocks of different rates, and a store that delays, loses and fails: never two leaders at a moment."""

import heapq
import random
from collections.abc import Callable
from functools import partial
from itertools import count

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from flinkjob.election.elector import Acquire, ElectionTimes, Elector, Look, Renew, State, StepDown
from flinkjob.election.record import LeaseRecord

TIMES = ElectionTimes()
FASTEST, SLOWEST = 1.2, 0.82
"""Of the clocks: their ratio is just below that of lease duration and renew deadline, 1.5."""


class Candidate:
    def __init__(self, name: str, chance: random.Random) -> None:
        self.name = name
        self.rate = chance.choice([SLOWEST, 1.0, FASTEST])
        self.offset = chance.uniform(0, 1e6)
        self.elector = Elector(name, TIMES)

    def clock(self, time: float) -> float:
        return self.offset + self.rate * time

    def leads(self, time: float) -> bool:
        return self.elector.is_leader(self.clock(time))


class World:
    """The candidates, their store and the events to come; ``time`` is the true one, which nobody knows."""

    def __init__(self, candidates: int, seed: int) -> None:
        self.chance = random.Random(seed)
        self.time = 0.0
        self.calm = False
        self.record: LeaseRecord | None = None
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.order = count()
        self.leaders_seen: set[str] = set()
        self.candidates = [Candidate(f"c{n}", self.chance) for n in range(candidates)]
        for candidate in self.candidates:
            self.after(self.chance.uniform(0, 3), partial(self.poll, candidate))

    def after(self, delay: float, event: Callable[[], None]) -> None:
        heapq.heappush(self.events, (self.time + delay, next(self.order), event))

    def run(self, until: float) -> None:
        while self.events and self.events[0][0] <= until:
            self.time, _, event = heapq.heappop(self.events)
            event()
            leaders = [candidate.name for candidate in self.candidates if candidate.leads(self.time)]
            assert len(leaders) <= 1, f"{leaders} at {self.time}"
            self.leaders_seen.update(leaders)

    def delay(self) -> float:
        """How long something takes: mostly a moment, at times very long."""
        if self.calm or self.chance.random() < 0.8:
            return self.chance.uniform(0, 0.1)
        return self.chance.uniform(0, 20)

    def poll(self, me: Candidate) -> None:
        elector = me.elector
        now = me.clock(self.time)
        # The time of day is nonsense that jumps about.
        step = elector.poll(now=now, jitter=self.chance.random(), timestamp=str(self.chance.uniform(-1e9, 1e9)))
        match step.action:
            case None:
                self.after(step.again_in / me.rate + self.delay() / 10, lambda: self.poll(me))
            case StepDown():
                me.elector = Elector(me.name, TIMES)
                self.after(self.delay() / 10, lambda: self.poll(me))
            case Look():
                self.after(self.delay(), lambda: self.look(me, elector))
            case Acquire(record, expected) | Renew(record, expected):
                self.after(self.delay(), lambda: self.write(me, elector, record, expected, now))

    def look(self, me: Candidate, elector: Elector) -> None:
        record = self.record
        if self.fails():
            self.answer(me, lambda now: elector.failed(now=now, jitter=self.chance.random()))
        else:
            self.answer(me, lambda now: elector.observed(record, now=now))

    def write(self, me: Candidate, elector: Elector, record: LeaseRecord, expected: str, requested_at: float) -> None:
        if self.fails():
            self.answer(me, lambda now: elector.failed(now=now, jitter=self.chance.random()))
        elif (self.record.version if self.record else "") != expected:
            self.answer(me, lambda now: elector.refused(now=now, jitter=self.chance.random()))
        else:
            version = str(int(expected or "0") + 1)
            written = self.record = msgspec.structs.replace(record, version=version)
            if self.fails():
                self.answer(me, lambda now: elector.failed(now=now, jitter=self.chance.random()))
            else:
                self.answer(me, lambda now: elector.written(written, requested_at=requested_at, now=now))

    def fails(self) -> bool:
        return not self.calm and self.chance.random() < 0.2

    def answer(self, me: Candidate, tell: Callable[[float], None]) -> None:
        def arrive() -> None:
            tell(me.clock(self.time))
            self.poll(me)

        self.after(self.delay(), arrive)


@settings(max_examples=150)
@given(candidates=st.integers(2, 4), seed=st.integers(0, 2**32))
def test_there_are_never_two_leaders_and_in_the_end_there_is_one(candidates: int, seed: int) -> None:
    world = World(candidates, seed)
    world.run(until=300.0)
    world.calm = True
    world.run(until=400.0)
    assert [candidate for candidate in world.candidates if candidate.leads(world.time)]


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32))
def test_a_leader_that_dies_is_followed_within_the_lease_and_a_few_looks(seed: int) -> None:
    world = World(3, seed)
    world.calm = True
    world.run(until=30.0)
    [dead] = [candidate for candidate in world.candidates if candidate.leads(world.time)]
    dead.elector.state = State.OVER
    world.run(until=30.0 + (TIMES.lease_duration + 3 * TIMES.retry_period) / SLOWEST)
    assert [candidate for candidate in world.candidates if candidate.leads(world.time)]


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32))
def test_a_calm_leader_keeps_the_lease(seed: int) -> None:
    world = World(3, seed)
    world.calm = True
    world.run(until=200.0)
    assert len(world.leaders_seen) == 1
