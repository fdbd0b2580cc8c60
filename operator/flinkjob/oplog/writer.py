"""Group commit: what the leader decides while one commit is on its way becomes the next block.

``append`` only buffers. One task takes what has gathered, makes a block of it and has a thread write and sync it; then
``on_durable`` tells up to which LSN effects may be released. A write that fails is repeated with growing pauses until the
deadline is over, and effects are held meanwhile; a leader that has been deposed is told at once.
"""

import asyncio
import contextlib
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from flinkjob.api.errors import Deposed, LogUnavailable, StorageError
from flinkjob.graph.operations import Operation, encode_operations
from flinkjob.oplog.format import encode_block, encode_snapshot
from flinkjob.oplog.lane import Lane
from flinkjob.oplog.medium import Medium
from flinkjob.oplog.replay import Position
from flinkjob.oplog.snapshots import trim

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0
MAX_BLOCK_OPERATIONS = 4096
MAX_BLOCK_BYTES = 4 << 20


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


class LogWriter:
    """The leader's pen. Made within a running loop; all its methods belong to that loop.

    Attributes:
        statistics: what has been written.
        last_lsn: that of the last operation appended.
        durable_lsn: that of the last operation that no failover can lose.
        degraded: the last error while writes are being repeated, for the resource's status; None when all is well.
        failure: why the writer has ended, after ``on_failed``; None before.
    """

    def __init__(
        self,
        medium: Medium,
        epoch: int,
        position: Position,
        *,
        on_durable: Callable[[int], None],
        on_failed: Callable[[StorageError], None],
        flush_interval: float = 0.0,
        retry_deadline: float = 60.0,
        max_operations: int = MAX_BLOCK_OPERATIONS,
        max_bytes: int = MAX_BLOCK_BYTES,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Go on writing at a position.

        Args:
            on_durable: called with the new ``durable_lsn`` after each commit.
            on_failed: called once, with Deposed or LogUnavailable; nothing is written after it.
            flush_interval: seconds for which a commit waits for company
                (``jobmanager.failover.operation-log-flush-interval``).
            retry_deadline: seconds from the first attempt of a write after which it has failed for good.
            max_operations: of one block. max_bytes: of one block's payload, unless a single operation is larger.
        """
        self._medium = medium
        self._epoch = epoch
        self._position = position
        self._on_durable = on_durable
        self._on_failed = on_failed
        self._flush_interval = flush_interval
        self._retry_deadline = retry_deadline
        self._max_operations = max_operations
        self._max_bytes = max_bytes
        self._clock = clock
        self._sleep = sleep
        self.last_lsn = self.durable_lsn = position.lsn
        self.statistics = WriteStatistics()
        self.degraded: str | None = None
        self.failure: StorageError | None = None
        self._buffer: list[Operation] = []
        self._behind_since = 0.0
        self._closing = False
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()
        self._snapshot_lock = asyncio.Lock()
        self._appender = medium.appender(epoch)
        self._commits = Lane("operation-log")
        self._snapshots = Lane("snapshots")
        self._fences: Lane | None = None
        self._task = asyncio.create_task(self._run())

    @property
    def lag(self) -> int:
        """How many operations are not durable yet."""
        return self.last_lsn - self.durable_lsn

    @property
    def lag_seconds(self) -> float:
        """For how long the oldest operation that is not durable has waited; 0 where there is none."""
        return self._clock() - self._behind_since if self.lag else 0.0

    def append(self, operations: Sequence[Operation]) -> int:
        """Give the operations the next LSNs and return that of the last one; they become durable later.

        Raises:
            StorageError: the writer has failed or been closed.
        """
        if self.failure is not None:
            raise self.failure
        if self._closing:
            raise LogUnavailable("the operation log has been closed")
        if not self.lag:
            self._behind_since = self._clock()
        self._buffer.extend(operations)
        self.last_lsn += len(operations)
        self._wake.set()
        return self.last_lsn

    async def wait_durable(self, lsn: int) -> None:
        """Wait until the operation is durable.

        Raises:
            StorageError: the writer failed before that.
        """
        while self.durable_lsn < lsn:
            if self.failure is not None:
                raise self.failure
            await self._progress.wait()

    async def check_fence(self) -> None:
        """Make sure that nobody has claimed a newer epoch, as of a moment after this call.

        Raises:
            Deposed: somebody has.
            LogUnavailable: that cannot be found out now.
        """
        # A lane of its own: what hangs in the others must not keep a leader from knowing.
        self._fences = self._fences or Lane("fence")
        try:
            await self._fences.submit(partial(self._medium.check_fence, self._epoch))
        except OSError as error:
            location = self._medium.location
            raise LogUnavailable(f"the operation log at {location} cannot be read: {error}") from error

    async def write_snapshot(self, lsn: int, data: bytes) -> None:
        """Store the graph as of an LSN once that is durable, begin a new segment, and remove what has become superfluous.

        Raises:
            ValueError: nothing has been appended at that LSN.
            Deposed: a newer epoch exists; ``on_failed`` has been told.
            StorageError: the snapshot could not be stored, or old segments not be removed; the log is as good as before.
        """
        if lsn > self.last_lsn:
            raise ValueError(f"a snapshot of LSN {lsn} cannot be: the last operation has LSN {self.last_lsn}")
        await self.wait_durable(lsn)
        async with self._snapshot_lock:
            if self.failure is not None:
                raise self.failure
            try:
                await self._snapshots.submit(partial(self._store_snapshot, lsn, data))
                await self._commits.submit(self._appender.roll)
                await self._snapshots.submit(self._trim)
            except Deposed as error:
                self._fail(error)
                raise
            except OSError as error:
                raise LogUnavailable(f"the snapshot at LSN {lsn} in {self._medium.location} failed: {error}") from error

    async def close(self) -> None:
        """Write what has been appended and end. A failing store is tried until the deadline, as ever."""
        self._closing = True
        self._wake.set()
        await self._task
        closed = self._commits.submit(self._appender.close)
        self._close_lanes()
        if self.failure is not None:
            closed.cancel()  # the thread may hang in a write: nobody waits for it
        else:
            with contextlib.suppress(OSError):
                await closed

    def abandon(self) -> None:
        """End at once: what is not durable yet is dropped. For a leader whose term is over; nobody is told."""
        if self.failure is None:
            self.failure = LogUnavailable("the leader's term is over")
        self._buffer.clear()
        self._wake.set()
        self._tell_progress()
        self._commits.submit(self._appender.close).add_done_callback(_forget)
        self._close_lanes()

    def _close_lanes(self) -> None:
        for lane in (self._commits, self._snapshots, self._fences):
            if lane is not None:
                lane.close()

    # The committing task

    async def _run(self) -> None:
        try:
            while await self._something_to_write():
                for payload, count in self._payloads():
                    await self._commit(payload, count)
        except StorageError as error:
            self._fail(error)
        except Exception as error:
            self._fail(LogUnavailable(f"the operation log's writer ended at LSN {self.durable_lsn + 1}: {error!r}"))

    async def _something_to_write(self) -> bool:
        while not self._buffer:
            if self._closing or self.failure is not None:
                return False
            self._wake.clear()
            await self._wake.wait()
        if self._flush_interval and not self._closing:
            await self._sleep(self._flush_interval)
        return self.failure is None

    def _payloads(self) -> Iterator[tuple[bytes, int]]:
        taken, self._buffer = self._buffer, []
        for start in range(0, len(taken), self._max_operations):
            yield from self._fitting(taken[start : start + self._max_operations])

    def _fitting(self, operations: Sequence[Operation]) -> Iterator[tuple[bytes, int]]:
        payload = encode_operations(operations)
        if len(payload) <= self._max_bytes or len(operations) == 1:
            yield payload, len(operations)
        else:
            half = len(operations) // 2
            yield from self._fitting(operations[:half])
            yield from self._fitting(operations[half:])

    async def _commit(self, payload: bytes, count: int) -> None:
        before = self._position
        block, checksum = encode_block(
            payload,
            epoch=self._epoch,
            previous_epoch=before.epoch,
            first_lsn=before.lsn + 1,
            count=count,
            previous_checksum=before.checksum,
        )
        began = self._clock()
        await self._write(block, before.lsn + 1)
        self.statistics.count(operations=count, size=len(block), seconds=self._clock() - began)
        self._position = Position(before.lsn + count, self._epoch, checksum)
        if self.failure is None:
            self.durable_lsn = self._position.lsn
            # What is left was appended while this block was on its way.
            self._behind_since = began
            self._tell_progress()
            self._on_durable(self.durable_lsn)

    async def _write(self, block: bytes, lsn: int) -> None:
        deadline = self._clock() + self._retry_deadline
        pause = FIRST_PAUSE
        while True:
            if self.failure is not None:
                raise self.failure
            attempt = self._commits.submit(partial(self._appender.append, block))
            await asyncio.wait({attempt}, timeout=max(0.0, deadline - self._clock()))
            if not attempt.done():
                attempt.cancel()
                raise self._unavailable(lsn, self.degraded or "the store does not answer")
            try:
                attempt.result()
            except OSError as error:
                self.statistics.failures += 1
                self.degraded = f"{error.strerror or error}"
            else:
                self.degraded = None
                return
            if self._clock() + pause >= deadline:
                raise self._unavailable(lsn, self.degraded)
            await self._sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _unavailable(self, lsn: int, reason: str) -> LogUnavailable:
        return LogUnavailable(
            f"the operation log at {self._medium.location} could not be written from LSN {lsn} on "
            f"for {self._retry_deadline:g} s: {reason}"
        )

    def _fail(self, error: StorageError) -> None:
        if self.failure is None:
            self.failure = error
            self._wake.set()
            self._tell_progress()
            self._on_failed(error)

    def _tell_progress(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()

    # What the threads do

    def _store_snapshot(self, lsn: int, data: bytes) -> None:
        # The fence is read after the LSN became durable, so a snapshot never holds what a successor has not seen.
        self._medium.check_fence(self._epoch)
        self._medium.put_snapshot(lsn, encode_snapshot(data, epoch=self._epoch, lsn=lsn))

    def _trim(self) -> None:
        self._medium.check_fence(self._epoch)
        trim(self._medium, self._epoch)


def _forget(future: "asyncio.Future[None]") -> None:
    """Nobody waits for it; a failure is of no interest any more."""
    if not future.cancelled():
        future.exception()
