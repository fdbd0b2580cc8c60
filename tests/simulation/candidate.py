"""The lease and those who stand for it: the real Elector, a store that answers late, not at all, or fails.

Each turn is one of ``LeaderElection._step``: a look, a write or a pause. A leader whose store fails asks what fences it, as
``LeaderElection._ask_fence`` does, and leads on while that knows of no newer one.
"""

from collections.abc import Callable

import msgspec

from flinkjob.api.errors import Deposed, FlinkJobError
from flinkjob.election.elector import Acquire, ElectionTimes, Elector, Look, Release, Renew, StepDown
from flinkjob.election.record import LeaseRecord

from . import leaderpromises
from .network import Network
from .scheduler import Process

TIMES = ElectionTimes(lease_duration=3.0, renew_deadline=2.0, retry_period=0.5)
PAUSE_BETWEEN_TERMS = 1000
"""Milliseconds before one whose term broke down stands again."""

Answer = Callable[[LeaseRecord | None], None]
Fence = Callable[[Callable[[bool | FlinkJobError], None]], None]
"""Asks whether it is certain that there is no newer leader; an error is Deposed, or that it cannot be found out."""


class LeaseStore:
    """A record with compare-and-swap.

    Attributes:
        failing: it answers with an error.
        watchers: who wants to be told of changes.
    """

    name = "lease"

    def __init__(self) -> None:
        self.record: LeaseRecord | None = None
        self.failing = False
        self.watchers: dict[str, Callable[[], None]] = {}

    def swap(self, expected: str, new: LeaseRecord) -> LeaseRecord | None:
        """Write the record if the version is the expected one."""
        version = self.record.version if self.record else ""
        if version != expected:
            return None
        self.record = msgspec.structs.replace(new, version=str(int(version or "0") + 1))
        for watcher in self.watchers.values():
            watcher()
        return self.record

    def empty(self, holder: str) -> None:
        """Free the lease of one that is known to be dead."""
        if self.record is not None and self.record.holder == holder:
            self.swap(self.record.version, self.record.released())


class Candidate:
    """The election's shell in one JobManager: carries the elector's wishes to the store and its answers back.

    Args:
        on_elected: a term begins. on_lost: it ends. on_seen: the record may have changed.
        fence: see Fence.

    Attributes:
        leading: a term is on, as far as the shell knows. confirmed_at: when the fence was asked that last confirmed it.
    """

    def __init__(
        self,
        process: Process,
        store: LeaseStore,
        network: Network,
        *,
        address: str,
        on_elected: Callable[[], None],
        on_lost: Callable[[], None],
        on_seen: Callable[[], None],
        fence: Fence,
    ) -> None:
        self._process = process
        self._store = store
        self._network = network
        self._address = address
        self._on_elected = on_elected
        self._on_lost = on_lost
        self._on_seen = on_seen
        self._fence = fence
        self._turn = 0
        self._standing = True
        self._writing_until = 0.0
        self._on_released: Callable[[], None] | None = None
        self.leading = False
        self.confirmed_at = -1e9
        self._elector = self._new_elector()
        store.watchers[process.name] = self._changed
        process.soon(self._step, 0)

    def _new_elector(self) -> Elector:
        return Elector(self._process.name, TIMES, address=self._address)

    @property
    def leader(self) -> str:
        """Where the leader is, as far as is known."""
        record = self._elector.record
        return record.address if record is not None else ""

    def is_leader(self) -> bool:
        """Whether the term is still running, by the clock of this very moment."""
        return self.leading and self._elector.is_leader(self._now())

    def leads_by_the_lease(self) -> bool:
        """Whether the term is still running, and not because the fence has said so."""
        return self.is_leader() and self._now() >= self.confirmed_at + TIMES.renew_deadline

    def in_doubt(self) -> bool:
        """See Elector."""
        return self._elector.in_doubt(self._now())

    def give_up(self) -> None:
        """The term has broken down: free the lease, and stand again after a pause."""
        if self._standing:
            self.release(self._pause)

    def release(self, then: Callable[[], None]) -> None:
        """Stop standing, and free the lease if it is held, as far as the store can be reached."""
        self._standing = self.leading = False
        self._turn += 1
        self._on_released = then
        self._process.soon(self._await_write)

    # The elector's turns. Only the latest one counts; an answer that comes after its time-out is nobody's.

    def _now(self) -> float:
        return self._process.clock() / 1000

    def _jitter(self) -> float:
        return self._process.scheduler.random.random()

    def _timestamp(self) -> str:
        return ""

    def _next(self, seconds: float) -> None:
        self._turn += 1
        self._process.after(seconds * 1000, self._step, self._turn)

    def _step(self, turn: int) -> None:
        if turn != self._turn or not self._standing:
            return
        step = self._elector.poll(now=self._now(), jitter=self._jitter(), timestamp=self._timestamp())
        action = step.action
        if action is None:
            self._next(step.again_in)
        elif isinstance(action, StepDown):
            if self.leading and "could not be renewed" in action.reason:
                leaderpromises.a_confirmed_term_goes_on(self._process, self.confirmed_at, self._now(), TIMES)
            self._lost()
        elif isinstance(action, Look):
            self._ask(lambda: self._store.record, self._looked)
        else:
            self._write(action)

    def _write(self, action: Acquire | Renew) -> None:
        requested_at = self._now()

        def written(record: LeaseRecord | None) -> None:
            now = self._now()
            if record is None:
                self._elector.refused(now=now, jitter=self._jitter())
                return
            self._elector.written(record, requested_at=requested_at, now=now)
            if self._elector.is_leader(now):
                leaderpromises.one_leads_at_a_time(self._process)
                if not self.leading:
                    self.leading = True
                    self._on_elected()

        self._ask(lambda: self._store.swap(action.expected, action.record), written, writes=True)

    def _looked(self, record: LeaseRecord | None) -> None:
        self._elector.observed(record, now=self._now())

    def _call_limit(self) -> float:
        limit = max(TIMES.retry_period, TIMES.renew_deadline / 2)
        return min(limit, self._elector.term_left(self._now())) if self.leading else limit

    def _ask(self, call: Callable[[], LeaseRecord | None], then: Answer, *, writes: bool = False) -> None:
        """Have the store do something; its answer or the time-out ends the turn."""
        self._turn += 1
        turn, process, limit = self._turn, self._process, self._call_limit()
        scheduler, network = process.scheduler, self._network
        too_late = scheduler.now + int(limit * 1000 / process.rate) + 1
        if writes:
            self._writing_until = self._now() + limit

        def time_out() -> None:
            # Only where the answer does not come in time: most do.
            scheduler.at(too_late, process, self._failed, turn, timer=True)

        def serve() -> None:
            failing = self._store.failing
            record = None if failing else call()
            moment = scheduler.now + scheduler.step_time()
            reached = network.reaches(process.name, self._store.name)
            if scheduler.now < too_late and (not reached or moment >= too_late):
                time_out()
            if reached:
                scheduler.at(
                    moment, process, self._failed if failing else answered, turn, *(() if failing else (record,))
                )

        def answered(turn: int, record: LeaseRecord | None) -> None:
            if writes:
                self._writing_until = 0.0
            process.point("lease answered")
            if turn == self._turn:
                then(record)
                self._after()

        served_at = scheduler.now + scheduler.step_time()
        asked = network.reaches(process.name, self._store.name)
        if not asked or served_at >= too_late:
            time_out()
        if asked:
            scheduler.at(served_at, None, serve)
        process.point("lease asked")

    def _failed(self, turn: int) -> None:
        if turn != self._turn:
            return
        self._elector.failed(now=self._now(), jitter=self._jitter())
        if self.leading:
            self._ask_fence()
        else:
            self._after()

    def _ask_fence(self) -> None:
        self._turn += 1
        turn, asked_at = self._turn, self._now()
        self._process.after(self._call_limit() * 1000, self._fence_answered, turn, asked_at, False)
        self._fence(lambda answer: self._fence_answered(turn, asked_at, answer))

    def _fence_answered(self, turn: int, asked_at: float, answer: bool | FlinkJobError) -> None:
        if turn != self._turn:
            return
        self._turn += 1
        if isinstance(answer, Deposed):
            self._lost()
        else:
            if answer is True and self._elector.is_leader(self._now()):
                self._elector.confirmed(requested_at=asked_at, now=self._now())
                self.confirmed_at = asked_at
                self._process.scheduler.note(self._process.name, "leads on, the fence is unmarked")
            self._after()

    def _after(self) -> None:
        self._on_seen()
        if not self._standing:
            return
        if self.leading and not self._elector.is_leader(self._now()):
            leaderpromises.a_confirmed_term_goes_on(self._process, self.confirmed_at, self._now(), TIMES)
            self._lost()
        else:
            self._turn += 1
            self._step(self._turn)

    def _lost(self) -> None:
        self._elector = self._new_elector()
        if self.leading:
            self.leading = False
            self.confirmed_at = -1e9
            self._on_lost()
        self._next(0)

    def _changed(self) -> None:
        """The store tells those that stand by, sooner or later."""
        if not self.leading and self._standing and self._process.alive:
            self._process.soon(self._stirred)

    def _stirred(self) -> None:
        if not self.leading and self._standing:
            self._elector.stirred()
            self._next(0)

    def _await_write(self) -> None:
        """A write that is on its way may yet take the lease, for nobody."""
        if self._now() < self._writing_until:
            self._process.after(20, self._await_write)
        else:
            self._release()

    def _release(self) -> None:
        self._process.point("releasing")
        if not self._store.failing and self._network.reaches(self._process.name, self._store.name):
            self._elector.observed(self._store.record, now=self._now())
            release = self._elector.release()
            if release is not None:
                self._process.soon(self._free, release)
                return
        self._released()

    def _free(self, release: Release) -> None:
        reached = not self._store.failing and self._network.reaches(self._process.name, self._store.name)
        if reached and self._store.swap(release.expected, release.record) is None:
            self._release()
        else:
            self._released()

    def _released(self) -> None:
        then, self._on_released = self._on_released, None
        if then is not None:
            then()

    def _pause(self) -> None:
        self._process.after(PAUSE_BETWEEN_TERMS, self._stand_again)

    def _stand_again(self) -> None:
        if self._on_released is not None:
            return  # it is being stopped meanwhile
        self._elector = self._new_elector()
        self._standing = True
        self._next(0)
