"""A queue of things to look at again: level-triggered, so that it does not matter how often or why somebody asked.

- A key that is asked for several times before its turn is looked at once.
- A key is looked at by one worker at a time; what is asked meanwhile is done afterwards.
- A look that fails is repeated, later each time; the first that succeeds makes all well again.
- A key is not looked at twice within `spacing`, so that a burst of events costs two looks, not twenty; the first one
  comes at once.
"""

import asyncio
import heapq
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from flinkjob.api.errors import FlinkJobError

logger = logging.getLogger(__name__)

K = TypeVar("K")

FIRST_RETRY = 0.5
"""Seconds from a look that failed to the next."""
LAST_RETRY = 60.0
"""Seconds that this grows to, doubling."""


@dataclass(frozen=True, slots=True)
class Look:
    """What came of a look.

    Attributes:
        again_in: seconds to the next one even if nothing happens; None where only an event is worth one.
    """

    again_in: float | None = None


class WorkQueue(Generic[K]):
    """A queue whose worker function gets one key at a time. All methods are for the thread of one event loop.

    Attributes:
        succeeded, failed: looks so far.
        seconds: time that they took in all.
    """

    def __init__(
        self,
        look: Callable[[K], Awaitable[Look]],
        *,
        workers: int = 8,
        spacing: float = 0.2,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._look = look
        self._workers = workers
        self._spacing = spacing
        self._jitter = jitter
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._added = 0
        self._looked_at: dict[K, float] = {}
        self._busy: dict[K, asyncio.Task[None]] = {}
        self._failures: Counter[K] = Counter()
        self._stirred = asyncio.Event()
        self.succeeded = self.failed = 0
        self.seconds = 0.0

    @property
    def depth(self) -> int:
        """Keys whose turn has come and that no worker has got to yet."""
        now = self._now()
        return sum(due <= now for key, due in self._due.items() if key not in self._busy)

    @property
    def busy(self) -> int:
        """Looks that are being taken."""
        return len(self._busy)

    @property
    def failing(self) -> int:
        """Keys whose last look failed."""
        return len(self._failures)

    def add(self, key: K, *, delay: float = 0.0) -> None:
        """Ask for a look, at once or after so many seconds; an earlier one that is due already stays."""
        due = max(self._now() + delay, self._looked_at.get(key, float("-inf")) + self._spacing)
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            self._added += 1
            heapq.heappush(self._heap, (due, self._added, key))
            self._stirred.set()

    def forget(self, key: K) -> None:
        """The thing is gone: no further look, and nothing is remembered of it."""
        for remembered in (self._due, self._looked_at, self._failures):
            remembered.pop(key, None)

    async def run(self) -> None:
        """Work until cancelled. Looks that are being taken are cancelled, too."""
        try:
            while True:
                self._stirred.clear()
                wait = self._start_due()
                try:
                    async with asyncio.timeout(wait):
                        await self._stirred.wait()
                except TimeoutError:
                    continue
        finally:
            for task in self._busy.values():
                task.cancel()
            await asyncio.gather(*self._busy.values(), return_exceptions=True)
            self._busy.clear()

    def clear(self) -> None:
        """Forget everything that was asked for."""
        self._due.clear()
        self._heap.clear()
        self._looked_at.clear()
        self._failures.clear()

    def _start_due(self) -> float | None:
        """Start what is due, as far as there are workers; returns the seconds until something else will be."""
        passed_over: list[tuple[float, int, K]] = []
        try:
            while self._heap and len(self._busy) < self._workers:
                due, _, key = self._heap[0]
                if self._due.get(key) != due:
                    heapq.heappop(self._heap)  # an earlier one has been done instead
                elif due > self._now():
                    return due - self._now()
                elif key in self._busy:
                    passed_over.append(heapq.heappop(self._heap))
                else:
                    heapq.heappop(self._heap)
                    self._start(key)
            return None
        finally:
            for entry in passed_over:
                heapq.heappush(self._heap, entry)

    def _start(self, key: K) -> None:
        del self._due[key]
        self._looked_at[key] = self._now()
        task = asyncio.create_task(self._take(key), name=f"look at {key}")
        self._busy[key] = task
        task.add_done_callback(lambda _: self._ended(key, task))

    def _ended(self, key: K, task: "asyncio.Task[None]") -> None:
        if self._busy.get(key) is task:
            del self._busy[key]
        self._stirred.set()

    async def _take(self, key: K) -> None:
        began = self._now()
        try:
            look = await self._look(key)
        except Exception as error:
            self.failed += 1
            self._failures[key] += 1
            delay = min(FIRST_RETRY * 2 ** min(self._failures[key] - 1, 20), LAST_RETRY) * (1 + 0.2 * self._jitter())
            # An error of ours is told with its traceback; what the world refuses in one sentence.
            known = isinstance(error, FlinkJobError)
            logger.warning("%s: %s; again in %.1f s", key, error, delay, exc_info=None if known else error)
            self.add(key, delay=delay)
        else:
            self.succeeded += 1
            self._failures.pop(key, None)
            if look.again_in is not None:
                self.add(key, delay=look.again_in)
        finally:
            self.seconds += self._now() - began

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
