"""The lease and those who stand for it: the real Elector, a store that answers late, not at all, or fails."""

from collections.abc import Callable

import msgspec

from flinkjob.election.elector import Acquire, ElectionTimes, Elector, Look, Release, Renew, StepDown
from flinkjob.election.record import LeaseRecord

from .network import Network
from .scheduler import Process

TIMES = ElectionTimes(lease_duration=3.0, renew_deadline=2.0, retry_period=0.5)
PAUSE_BETWEEN_TERMS = 1000
"""Milliseconds before one whose term broke down stands again."""

Answer = Callable[[LeaseRecord | None], None]


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
    ) -> None:
        self._process = process
        self._store = store
        self._network = network
        self._address = address
        self._on_elected = on_elected
        self._on_lost = on_lost
        self._on_seen = on_seen
        self._turn = 0
        self._standing = True
        self.leading = False
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

    def give_up(self) -> None:
        """The term has broken down: free the lease, and stand again after a pause."""
        if not self._standing:
            return
        self._standing = self.leading = False
        self._turn += 1
        self._process.soon(self._release)

    # The elector's turns. Only the latest one counts; an answer that comes after its time-out is nobody's.

    def _now(self) -> float:
        return self._process.clock() / 1000

    def _jitter(self) -> float:
        return self._process.scheduler.random.random()

    def _next(self, seconds: float) -> None:
        self._turn += 1
        self._process.after(seconds * 1000, self._step, self._turn)

    def _step(self, turn: int) -> None:
        if turn != self._turn or not self._standing:
            return
        step = self._elector.poll(now=self._now(), jitter=self._jitter(), timestamp="")
        action = step.action
        if action is None:
            self._next(step.again_in)
        elif isinstance(action, StepDown):
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
            if not self.leading and self._elector.is_leader(now):
                self.leading = True
                self._on_elected()

        self._ask(lambda: self._store.swap(action.expected, action.record), written)

    def _looked(self, record: LeaseRecord | None) -> None:
        self._elector.observed(record, now=self._now())

    def _ask(self, call: Callable[[], LeaseRecord | None], then: Answer) -> None:
        """Have the store do something; its answer or the time-out ends the turn."""
        self._turn += 1
        turn, process = self._turn, self._process
        limit = max(TIMES.retry_period, TIMES.renew_deadline / 2)
        if self.leading:
            limit = min(limit, self._elector.term_left(self._now()))
        process.after(limit * 1000, self._failed, turn)
        if not self._network.reaches(process.name, self._store.name):
            return

        def serve() -> None:
            failing = self._store.failing
            record = None if failing else call()
            if self._network.reaches(process.name, self._store.name):
                process.soon(self._failed if failing else answered, turn, *(() if failing else (record,)))

        def answered(turn: int, record: LeaseRecord | None) -> None:
            if turn == self._turn:
                then(record)
                self._after()

        process.scheduler.at(process.scheduler.now + process.scheduler.step_time(), None, serve)

    def _failed(self, turn: int) -> None:
        if turn == self._turn:
            self._elector.failed(now=self._now(), jitter=self._jitter())
            self._after()

    def _after(self) -> None:
        self._on_seen()
        if not self._standing:
            self._process.soon(self._release)
        elif self.leading and not self._elector.is_leader(self._now()):
            self._lost()
        else:
            self._next(0)

    def _lost(self) -> None:
        self._elector = self._new_elector()
        if self.leading:
            self.leading = False
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

    def _release(self) -> None:
        """Free the lease if it is one's own, as far as the store can be reached, and begin anew after a pause."""
        store = self._store
        if not store.failing and self._network.reaches(self._process.name, store.name):
            self._elector.observed(store.record, now=self._now())
            release: Release | None = self._elector.release()
            if release is not None:
                store.swap(release.expected, release.record)
        self._process.after(PAUSE_BETWEEN_TERMS, self._stand_again)

    def _stand_again(self) -> None:
        self._elector = self._new_elector()
        self._standing = True
        self._next(0)
