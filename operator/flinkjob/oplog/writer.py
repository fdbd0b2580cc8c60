"""The leader's pen: operations get their LSNs at once, become durable in groups, and are told of when they are.

``append`` only hands over. The committer's thread writes what has gathered; then ``on_durable`` tells up to which LSN effects
may be released. Effects are held while a failing store is tried again; a leader that has been deposed is told at once.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from threading import Event

from flinkjob.api.errors import Deposed, LogUnavailable, StorageError
from flinkjob.graph.operations import Operation
from flinkjob.oplog.committer import MAX_BLOCK_BYTES, MAX_BLOCK_OPERATIONS, Committer, CommitterOptions, WriteStatistics
from flinkjob.oplog.format import encode_snapshot
from flinkjob.oplog.lane import Lane
from flinkjob.oplog.medium import Medium
from flinkjob.oplog.replay import Position
from flinkjob.oplog.snapshots import trim


class LogWriter:
    """The leader's pen. Made within a running loop; all its methods belong to that loop.

    Attributes:
        last_lsn: that of the last operation appended.
        durable_lsn: that of the last operation that no failover can lose.
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
        wait: Callable[[Event, float], bool] = Event.wait,
    ) -> None:
        """Go on writing at a position.

        Args:
            on_durable: called with the new ``durable_lsn`` after each commit.
            on_failed: called once, with Deposed or LogUnavailable; nothing is written after it.
            flush_interval, retry_deadline, max_operations, max_bytes, clock, wait: see CommitterOptions.
        """
        self._medium = medium
        self._epoch = epoch
        self._on_durable = on_durable
        self._on_failed = on_failed
        self._retry_deadline = retry_deadline
        self._clock = clock
        self.last_lsn = self.durable_lsn = position.lsn
        self.failure: StorageError | None = None
        self._behind_since = 0.0
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._progress = asyncio.Event()
        self._ended = asyncio.Event()
        self._watchdog: asyncio.TimerHandle | None = None
        self._snapshot_lock = asyncio.Lock()
        self._committer = Committer(
            medium.appender(epoch),
            epoch,
            position,
            CommitterOptions(
                location=medium.location,
                flush_interval=flush_interval,
                retry_deadline=retry_deadline,
                max_operations=max_operations,
                max_bytes=max_bytes,
                clock=clock,
                wait=wait,
            ),
            on_commit=self._committed,
            on_end=self._end,
        )
        self._snapshots = Lane("snapshots")
        self._fences: Lane | None = None

    @property
    def lag(self) -> int:
        """How many operations are not durable yet."""
        return self.last_lsn - self.durable_lsn

    @property
    def lag_seconds(self) -> float:
        """For how long the oldest operation that is not durable has waited; 0 where there is none."""
        return self._clock() - self._behind_since if self.lag else 0.0

    @property
    def statistics(self) -> WriteStatistics:
        """What has been written."""
        return self._committer.statistics

    @property
    def degraded(self) -> str | None:
        """The last error while writes are being repeated, for the resource's status; None when all is well."""
        return self._committer.degraded

    def append(self, operations: Sequence[Operation]) -> int:
        """Give the operations the next LSNs and return that of the last one; they become durable later.

        What holds them must not be changed any more.

        Raises:
            StorageError: the writer has failed or been closed.
        """
        if self.failure is not None:
            raise self.failure
        if self._closing:
            raise LogUnavailable("the operation log has been closed")
        if not self.lag:
            self._behind_since = self._clock()
        self._committer.put(operations)
        self.last_lsn += len(operations)
        if self._watchdog is None:
            self._watchdog = self._loop.call_later(self._retry_deadline, self._look_whether_it_hangs)
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
            except Deposed as error:
                self._fail(error)
                raise
            except OSError as error:
                raise LogUnavailable(f"the snapshot at LSN {lsn} in {self._medium.location} failed: {error}") from error

    async def close(self) -> None:
        """Write what has been appended and end. A failing store is tried until the deadline, as ever."""
        self._closing = True
        self._committer.close()
        await self._ended.wait()
        self._close_lanes()

    def abandon(self) -> None:
        """End at once: what is not durable yet is dropped. For a leader whose term is over; nobody is told."""
        if self.failure is None:
            self.failure = LogUnavailable("the leader's term is over")
        self._committer.abandon()
        self._ended.set()
        self._tell_progress()
        self._close_lanes()

    def _close_lanes(self) -> None:
        for lane in (self._snapshots, self._fences):
            if lane is not None:
                lane.close()

    # What the committer tells

    def _committed(self, lsn: int, began: float) -> None:
        if self.failure is None:
            self.durable_lsn = lsn
            # What is left was appended while this block was on its way.
            self._behind_since = began
            self._tell_progress()
            self._on_durable(lsn)

    def _look_whether_it_hangs(self) -> None:
        """A write that does not come back has nobody who could tell of it; a timer looks, once for each deadline."""
        self._watchdog = None
        if not self.lag or self.failure is not None:
            return
        since = self._committer.busy_since
        left = self._retry_deadline if since is None else since + self._retry_deadline - self._clock()
        if left <= 0:
            self._fail(self._committer.unavailable(self.degraded or "the store does not answer"))
        else:
            self._watchdog = self._loop.call_later(left, self._look_whether_it_hangs)

    def _end(self, error: StorageError | None) -> None:
        if error is not None:
            self._fail(error)
        self._ended.set()

    def _fail(self, error: StorageError) -> None:
        if self.failure is None:
            self.failure = error
            self._committer.abandon()
            self._tell_progress()
            self._ended.set()  # its thread may hang in a write: nobody waits for it
            self._on_failed(error)

    def _tell_progress(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()

    # What the snapshots' thread does

    def _store_snapshot(self, lsn: int, data: bytes) -> None:
        # The fence is read after the LSN became durable, so a snapshot never holds what a successor has not seen.
        self._medium.check_fence(self._epoch)
        self._medium.put_snapshot(lsn, encode_snapshot(data, epoch=self._epoch, lsn=lsn))
        self._committer.roll()
        self._medium.check_fence(self._epoch)
        trim(self._medium, self._epoch)
