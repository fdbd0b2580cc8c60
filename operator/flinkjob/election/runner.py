"""The election's shell: it runs the elector against a store, and sees to it that a term ends on time whatever the store does.

The store may hang, fail or answer late. So every call to it is a task of its own with a time limit, and a leader whose
term ends is told before anything else happens. ``is_leader`` asks the clock at that very moment: a process that was
stopped and goes on finds itself deposed before it acts, even if this shell has not had its turn yet.

While the store is out of reach, a leader that has a fence asks that instead: an outage of the store ends no term as long
as the fence confirms that nobody newer leads. Somebody newer is found at the next such look, a retry period away.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from flinkjob.api.errors import Deposed, FlinkJobError, LeaseError
from flinkjob.election.elector import Acquire, ElectionTimes, Elector, Look, Renew, StepDown
from flinkjob.election.record import LeaseRecord
from flinkjob.election.store import LeaseStore

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


def steady_clock() -> float:
    """Seconds that never jump, and go on while the machine sleeps where the system can tell."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _time_of_day() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class LeaderElection:
    """One candidate, for as many terms as it wins.

    Attributes:
        identity: its name in the record.
        predecessor: the record as it was before this candidate took the lease; None where there was none.
    """

    def __init__(
        self,
        identity: str,
        store: LeaseStore,
        *,
        on_elected: Callable[[], None],
        on_lost: Callable[[str], None],
        times: ElectionTimes | None = None,
        address: str = "",
        rest: str = "",
        predecessors: str = "",
        fence: Callable[[], Awaitable[bool]] | None = None,
        clock: Callable[[], float] = steady_clock,
        jitter: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        timestamp: Callable[[], str] = _time_of_day,
    ) -> None:
        """Prepare a candidate; ``run`` makes it stand.

        Args:
            identity: unique to this process.
            on_elected: called when a term begins.
            on_lost: called with the reason when a term ends, unless ``release`` or cancellation has ended it.
            address, rest: where the leader is reached, for the record.
            predecessors: holders whose names begin so are known to be dead; "": none.
            fence: tells a leader whether it is certain that there is no newer one; raises Deposed if there is.
            jitter: gives random numbers from 0 to 1.
            timestamp: gives the time of day as text.
        """
        self.identity = identity
        self._store = store
        self._on_elected = on_elected
        self._on_lost = on_lost
        self._times = times or ElectionTimes()
        self._places = {"address": address, "rest": rest, "predecessors": predecessors}
        self._fence = fence
        self._clock = clock
        self._jitter = jitter
        self._sleep = sleep
        self._timestamp = timestamp
        self._elector = self._new_elector()
        self.predecessor: LeaseRecord | None = None
        self._leading = False
        self._running: asyncio.Task[None] | None = None
        self._writing: asyncio.Task[LeaseRecord | None] | None = None

    @property
    def record(self) -> LeaseRecord | None:
        """The record as last seen: who leads, and where. None when nothing is known."""
        return self._elector.record

    def is_leader(self) -> bool:
        """Whether this candidate leads at this moment, by the clock."""
        return self._leading and self._elector.is_leader(self._clock())

    def in_doubt(self) -> bool:
        """Whether this leader may be the one that is cut off; see ``Elector.in_doubt``."""
        return self._elector.in_doubt(self._clock())

    async def run(self) -> None:
        """Stand, lead, lose and stand again, until ``release`` or cancellation. Errors of the store are logged, no more."""
        self._running = asyncio.ensure_future(self._terms())
        try:
            await asyncio.wait({self._running})
        finally:
            self._leading = False
            self._running.cancel()
        if not self._running.cancelled():
            self._running.result()

    async def release(self) -> bool:
        """Stop standing, and free the lease if it is held, so that a standby need not wait. ``on_lost`` is not called.

        Returns:
            Whether a lease was freed.
        """
        self._leading = False
        if self._running is not None:
            self._running.cancel()
        if self._writing is not None:  # it may yet take the lease, for nobody
            await asyncio.wait({self._writing}, timeout=self._call_limit())
        try:
            return await self._free()
        except LeaseError as error:
            logger.warning("%s could not free the lease: %s", self.identity, error)
            return False

    async def _free(self) -> bool:
        while True:
            self._elector.observed(await self._read(), now=self._clock())
            release = self._elector.release(self._timestamp())
            if release is None:
                return False
            if await self._limited(self._swap(release.expected, release.record)) is not None:
                return True

    async def _terms(self) -> None:
        while True:
            await self._step()

    async def _step(self) -> None:
        elector = self._elector
        step = elector.poll(now=self._clock(), jitter=self._jitter(), timestamp=self._timestamp())
        match step.action:
            case None:
                await self._wait(step.again_in)
            case StepDown(reason):
                self._lost(reason)
            case Look():
                await self._look()
            case Acquire(record, expected) | Renew(record, expected):
                await self._write(record, expected)
        if self._leading and not elector.is_leader(self._clock()):
            self._lost_by_clock()

    async def _wait(self, seconds: float) -> None:
        record = self._elector.record
        if self._leading or record is None:
            await self._sleep(seconds)
            return
        change = asyncio.ensure_future(self._store.changed(record.version, seconds))
        try:
            if await self._limited(change, seconds + self._call_limit()):
                self._elector.stirred()
        except LeaseError as error:
            logger.warning("%s: %s", self.identity, error)
            await self._sleep(seconds)

    async def _look(self) -> None:
        try:
            record = await self._read()
        except LeaseError as error:
            await self._store_failed(error)
        else:
            self._elector.observed(record, now=self._clock())

    async def _read(self) -> LeaseRecord | None:
        return await self._limited(asyncio.ensure_future(self._store.read()))

    async def _write(self, record: LeaseRecord, expected: str) -> None:
        requested_at, before = self._clock(), self._elector.record
        self._writing = self._swap(expected, record)
        try:
            written = await self._limited(self._writing, keep=True)
        except LeaseError as error:
            await self._store_failed(error)
            return
        now = self._clock()
        if written is None:
            self._elector.refused(now=now, jitter=self._jitter())
            return
        self._elector.written(written, requested_at=requested_at, now=now)
        if not self._leading and self._elector.is_leader(now):
            self._leading, self.predecessor = True, before
            logger.info("%s leads, transition %d of the lease", self.identity, written.transitions)
            self._on_elected()

    def _swap(self, expected: str, record: LeaseRecord) -> "asyncio.Task[LeaseRecord | None]":
        return asyncio.ensure_future(self._store.compare_and_swap(expected, record))

    async def _store_failed(self, error: LeaseError) -> None:
        logger.warning("%s: %s", self.identity, error)
        self._elector.failed(now=self._clock(), jitter=self._jitter())
        if self._leading and self._fence is not None:
            await self._ask_fence(self._fence)

    async def _ask_fence(self, fence: Callable[[], Awaitable[bool]]) -> None:
        requested_at = self._clock()
        try:
            confirmed = await self._limited(asyncio.ensure_future(fence()))
        except Deposed as error:
            self._lost(str(error))
        except FlinkJobError as error:
            logger.warning("%s cannot tell whether there is a newer leader: %s", self.identity, error)
        else:
            if confirmed:
                self._elector.confirmed(requested_at=requested_at, now=self._clock())

    def _call_limit(self) -> float:
        """Seconds a call may take: below the renew deadline, and never beyond the end of one's own term."""
        limit = max(self._times.retry_period, self._times.renew_deadline / 2)
        return min(limit, self._elector.term_left(self._clock())) if self._leading else limit

    async def _limited(self, call: "asyncio.Task[_T]", limit: float | None = None, *, keep: bool = False) -> _T:
        """The call's result. A call that neither ends in time nor lets itself be cancelled is left alone.

        Args:
            keep: let the call go on when it is this candidate that is being stopped.

        Raises:
            LeaseError: the call raised it (or whatever else), or did not end in time.
        """
        limit = self._call_limit() if limit is None else limit
        call.add_done_callback(_forget)
        try:
            await asyncio.wait({call}, timeout=limit)
        except asyncio.CancelledError:
            if not keep:
                call.cancel()
            raise
        if not call.done():
            call.cancel()
            raise LeaseError(f"there was no answer for {limit:g} s")
        return call.result()

    def _lost_by_clock(self) -> None:
        step = self._elector.poll(now=self._clock(), jitter=0.0, timestamp="")
        self._lost(step.action.reason if isinstance(step.action, StepDown) else "the term is over")

    def _lost(self, reason: str) -> None:
        self._elector = self._new_elector()
        if self._leading:
            self._leading = False
            logger.warning("%s leads no more: %s", self.identity, reason)
            self._on_lost(reason)

    def _new_elector(self) -> Elector:
        return Elector(self.identity, self._times, **self._places)


def _forget(task: "asyncio.Task[Any]") -> None:
    """Take note of what became of an abandoned call, so that nobody complains that nobody did."""
    if not task.cancelled():
        task.exception()
