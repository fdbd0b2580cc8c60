"""The thread that commits: what was decided while one block was on its way becomes the next one.

It takes what has gathered, makes a block of it, has it written and synced, and only tells the event loop that it is done.
It waits for nobody but the store: a loop that is busy with decisions never leaves a fast disk idle, and a commit costs the
loop one callback. A write that fails is repeated with growing pauses until the deadline is over.
"""

import asyncio
import contextlib
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TypeVarTuple

from flinkjob.api.errors import LogUnavailable, StorageError
from flinkjob.graph.operations import Operation, encode_operations
from flinkjob.oplog.format import encode_block
from flinkjob.oplog.medium import Appender
from flinkjob.oplog.replay import Position

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0
MAX_BLOCK_OPERATIONS = 4096
MAX_BLOCK_BYTES = 4 << 20

Ts = TypeVarTuple("Ts")


WRITE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds, in seconds, of the classes in which the durations of writes are counted."""


@dataclass(slots=True)
class WriteStatistics:
    """What has been written, for metrics.

    Attributes:
        blocks, operations, bytes: made durable. failures: attempts of a write that failed.
        seconds: that the blocks took in all, with what had to be tried again.
        buckets: blocks by the class of WRITE_BUCKETS; the last one is of those above all.
    """

    blocks: int = 0
    operations: int = 0
    bytes: int = 0
    failures: int = 0
    seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(WRITE_BUCKETS) + 1))

    def count(self, *, operations: int, size: int, seconds: float) -> None:
        """A block is durable."""
        self.blocks += 1
        self.operations += operations
        self.bytes += size
        self.seconds += seconds
        self.buckets[bisect_left(WRITE_BUCKETS, seconds)] += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitterOptions:
    """How a committer goes about it.

    Attributes:
        location: the store, for messages.
        flush_interval: seconds for which a commit waits for company
            (``jobmanager.failover.operation-log-flush-interval``).
        retry_deadline: seconds from the first attempt of a write after which it has failed for good.
        max_operations: of one block. max_bytes: of one block's payload, unless a single operation is larger.
        clock: monotonic, seconds. wait: for an event or so many seconds; says whether the event has come.
    """

    location: str
    flush_interval: float
    retry_deadline: float
    max_operations: int
    max_bytes: int
    clock: Callable[[], float]
    wait: Callable[[threading.Event, float], bool]


class Committer:
    """Commits what it is given, in order. To be made within the running loop to which it tells what has become of it.

    Args:
        appender: the epoch's pen, which is this committer's from now on. epoch: that epoch.
        position: where the log ends so far.
        on_commit: told of each block that is durable: the LSN of its last operation, and when it was taken in hand.
        on_end: told once, at the end of all: the error, or None when it was closed or abandoned.

    Attributes:
        degraded: the last error while writes are being repeated; None when all is well.
        statistics: what has been written.
        busy_since: when the block that is being written was taken in hand; None in between.
    """

    def __init__(
        self,
        appender: Appender,
        epoch: int,
        position: Position,
        options: CommitterOptions,
        *,
        on_commit: Callable[[int, float], None],
        on_end: Callable[[StorageError | None], None],
    ) -> None:
        self._appender = appender
        self._epoch = epoch
        self._position = position
        self._options = options
        self._on_commit = on_commit
        self._on_end = on_end
        self.degraded: str | None = None
        self.statistics = WriteStatistics()
        self.busy_since: float | None = None
        self._loop = asyncio.get_running_loop()
        self._given: SimpleQueue[Sequence[Operation] | None] = SimpleQueue()
        self._pen = threading.Lock()
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        # A daemon: a store that hangs never keeps the process from ending.
        self._thread = threading.Thread(target=self._work, name="operation-log", daemon=True)
        self._thread.start()

    def put(self, operations: Sequence[Operation]) -> None:
        """Have the operations committed; they must not be changed any more."""
        self._given.put(operations)

    def roll(self) -> None:
        """Begin a new segment between two blocks; for another thread than the loop's, since it waits.

        Raises:
            OSError: it could not be made.
        """
        with self._pen:
            self._appender.roll()

    def close(self) -> None:
        """End once all that was put is committed, or cannot be. Does not wait for it."""
        self._closing.set()
        self._given.put(None)

    def abandon(self) -> None:
        """End as soon as the store lets go: what is not durable yet is dropped. Does not wait for it."""
        self._abandoned.set()
        self.close()

    # What the thread does

    def _work(self) -> None:
        error: StorageError | None = None
        try:
            self._commit_all()
        except StorageError as raised:
            error = raised
        except Exception as raised:
            lsn = self._position.lsn + 1
            error = LogUnavailable(f"the operation log's writer ended at LSN {lsn}: {raised!r}")
        with contextlib.suppress(OSError), self._pen:
            self._appender.close()
        self._tell(self._on_end, error)

    def _commit_all(self) -> None:
        while gathered := self._gather():
            for payload, count in self._payloads(gathered):
                if not self._commit(payload, count):
                    return

    def _gather(self) -> list[Operation]:
        """All that has been given, at least something; nothing once there will be no more."""
        gathered: list[Operation] = []
        while not gathered:
            operations = self._given.get()
            if operations is None:
                return []
            gathered += operations
        if self._options.flush_interval:
            self._options.wait(self._closing, self._options.flush_interval)
        for _ in range(self._given.qsize()):
            operations = self._given.get()
            if operations is None:
                self._given.put(None)  # what came before it is to be written first
                break
            gathered += operations
        return gathered

    def _payloads(self, operations: Sequence[Operation]) -> Iterator[tuple[bytes, int]]:
        for start in range(0, len(operations), self._options.max_operations):
            yield from self._fitting(operations[start : start + self._options.max_operations])

    def _fitting(self, operations: Sequence[Operation]) -> Iterator[tuple[bytes, int]]:
        payload = encode_operations(operations)
        if len(payload) <= self._options.max_bytes or len(operations) == 1:
            yield payload, len(operations)
        else:
            half = len(operations) // 2
            yield from self._fitting(operations[:half])
            yield from self._fitting(operations[half:])

    def _commit(self, payload: bytes, count: int) -> bool:
        """Says whether the block is durable; it is not where the committer was abandoned."""
        before = self._position
        block, checksum = encode_block(
            payload,
            epoch=self._epoch,
            previous_epoch=before.epoch,
            first_lsn=before.lsn + 1,
            count=count,
            previous_checksum=before.checksum,
        )
        self.busy_since = began = self._options.clock()
        if not self._write(block, began):
            return False
        self.busy_since = None
        self._position = Position(before.lsn + count, self._epoch, checksum)
        self.statistics.count(operations=count, size=len(block), seconds=self._options.clock() - began)
        self._tell(self._on_commit, self._position.lsn, began)
        return True

    def _write(self, block: bytes, began: float) -> bool:
        pause = FIRST_PAUSE
        while not self._abandoned.is_set():
            try:
                with self._pen:
                    self._appender.append(block)
            except OSError as error:
                self.statistics.failures += 1
                self.degraded = reason = f"{error.strerror or error}"
            else:
                self.degraded = None
                return True
            if self._options.clock() + pause >= began + self._options.retry_deadline:
                raise self.unavailable(reason)
            self._options.wait(self._abandoned, pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        return False

    def unavailable(self, reason: str) -> LogUnavailable:
        """The error for a block that could not be written for as long as is allowed."""
        return LogUnavailable(
            f"the operation log at {self._options.location} could not be written from LSN {self._position.lsn + 1} on "
            f"for {self._options.retry_deadline:g} s: {reason}"
        )

    def _tell(self, listener: Callable[[*Ts], None], *news: *Ts) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(listener, *news)
