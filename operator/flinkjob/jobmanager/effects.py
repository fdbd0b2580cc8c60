"""Effects wait for the log: the queue between what was decided and what is done.

An effect is released when every operation decided before it is durable. So no TaskManager hears of anything that a successor
would not know.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from flinkjob.graph.operations import Operation
from flinkjob.jobmaster.events import Decision, Effect


class Journal(Protocol):
    """Where a term's operations go."""

    def append(self, operations: Sequence[Operation]) -> int:
        """Take the operations; returns the LSN of the last one."""

    @property
    def durable_lsn(self) -> int:
        """Up to where the log is durable."""


class NoJournal:
    """The log store ``none``: nothing is kept, so nothing has to be waited for."""

    def __init__(self) -> None:
        self.durable_lsn = 0

    def append(self, operations: Sequence[Operation]) -> int:
        """Count them."""
        self.durable_lsn += len(operations)
        return self.durable_lsn


class EffectQueue:
    """Effects in the order of their decisions, each with the LSN that it waits for."""

    def __init__(self, journal: Journal, release: Callable[[Effect], None], *, lsn: int) -> None:
        self._journal = journal
        self._release = release
        self._last_lsn = lsn
        self._waiting: deque[tuple[int, list[Effect]]] = deque()

    def put(self, decision: Decision) -> None:
        """Log a decision's operations and queue its effects."""
        if decision.operations:
            self._last_lsn = self._journal.append(decision.operations)
        if decision.effects:
            self._waiting.append((self._last_lsn, decision.effects))
        self.release(self._journal.durable_lsn)

    def release(self, durable_lsn: int) -> None:
        """The log is durable up to here."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= durable_lsn:
            for effect in waiting.popleft()[1]:
                self._release(effect)

    def clear(self) -> None:
        """Forget what was not released: the term is over."""
        self._waiting.clear()
