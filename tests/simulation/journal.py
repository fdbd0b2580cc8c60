"""The leader's pen, taken apart: a block is made, written, synced, and acknowledged if the fence allows.

Each of these steps is a call of its own, so that the process can die, or a successor come, between any two of them. A write
that failed is repeated in a new segment, byte by byte, as the log's appenders do.

What a thread does in the product (``oplog.committer``, ``oplog.lane``) goes on here, too, when nobody waits for it any
more: a writer that has been abandoned, or has given up on a store that hangs, may still write, sync and store a snapshot,
and only its answer is nobody's.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from flinkjob.api.errors import Deposed, FlinkJobError, LogUnavailable, StorageError
from flinkjob.graph.operations import Operation, encode_operations
from flinkjob.oplog.format import encode_block, encode_snapshot
from flinkjob.oplog.medium import Segment
from flinkjob.oplog.replay import Position
from flinkjob.oplog.snapshots import trim

from .logstore import LogStore, Node
from .scheduler import Process

RETRY_PAUSE = 100
DEADLINE = 1500
"""Milliseconds for which a write is repeated."""


def ask_store(
    process: Process, store: LogStore, call: Callable[..., None], *arguments: Any, swallowed: bool = False
) -> None:
    """Make a call to the store: it takes the time that a step takes, or more where the store is slow or hangs.

    Args:
        swallowed: a call that hangs is not answered ever, where the fault is of that kind. Where nobody sets a time limit
            (as a term is opened, for one) the product waits as long as the store does, so there each call ends some time.
    """
    scheduler, trouble = process.scheduler, store.trouble
    moment = scheduler.now + scheduler.step_time()
    if trouble.slowness:
        moment += scheduler.below(trouble.slowness)
    if trouble.hangs_until > scheduler.now:
        if swallowed and trouble.swallows:
            return
        moment = max(moment, trouble.hangs_until)
    scheduler.at(moment, process, call, *arguments)


class Pen:
    """Writes one epoch. A Journal for the EffectQueue.

    Args:
        position: where the replay ended. node: the block that ends there.
        on_written: a block is on its way into the log. on_durable: it has been acknowledged.
        on_failed: nothing more is written.

    Attributes:
        most: how many operations make a block at most.
    """

    most = 4096

    def __init__(
        self,
        process: Process,
        store: LogStore,
        epoch: int,
        position: Position,
        node: Node,
        *,
        on_written: Callable[[Node], None],
        on_durable: Callable[[Node], None],
        on_failed: Callable[[StorageError], None],
    ) -> None:
        self._process = process
        self._store = store
        self._epoch = epoch
        self._position = position
        self._node = node
        self._on_written = on_written
        self._on_durable = on_durable
        self._on_failed = on_failed
        self._on_empty: Callable[[], None] | None = None
        self._buffer: list[Operation] = []
        self._committing = self._in_lane = self._closed = False
        self._attempt, self._deadline, self._watched = 0, 0, False
        self._segment, self._number = Segment(epoch, 0), 0
        self._clean, self._empty = True, True
        self._snapshots: deque[tuple[int, bytes]] = deque()
        self._snapshotting = self._rolling = False
        self.last_lsn = self.durable_lsn = position.lsn

    def append(self, operations: Sequence[Operation]) -> int:
        """Take the operations; they become durable later."""
        self._buffer.extend(operations)
        self.last_lsn += len(operations)
        self._process.point("appended")
        self._go_on()
        return self.last_lsn

    def take_snapshot(self, lsn: int, data: bytes) -> None:
        """Store the graph as of an LSN, once that is durable, and the snapshots before it are stored."""
        self._snapshots.append((lsn, data))
        self._snapshot_next()

    def check_fence(self, answer: Callable[[FlinkJobError | None], None]) -> None:
        """Find out whether there is a newer epoch; the answer is an error, or None: there is not."""

        def check() -> None:
            found: FlinkJobError | None = None
            try:
                self._store.check_fence(self._epoch)
            except OSError as error:
                found = LogUnavailable(f"the log cannot be read: {error}")
            except Deposed as error:
                found = error
            self._process.soon(answer, found)

        ask_store(self._process, self._store, check)

    def abandon(self) -> None:
        """The term is over."""
        self._closed = True

    def close(self, then: Callable[[], None]) -> None:
        """A clean stop: what has been appended is written first, if that is possible."""
        self._on_empty = then
        self._go_on()

    def _go_on(self) -> None:
        if self._closed or self._committing:
            return
        if self._buffer:
            self._committing = True
            self._process.soon(self._take)
        elif self._on_empty is not None:
            self._end()

    def _end(self) -> None:
        self._closed = True
        then, self._on_empty = self._on_empty, None
        if then is not None:
            then()

    # A block

    def _take(self) -> None:
        if self._closed:
            return
        operations = tuple(self._buffer[: self.most])
        del self._buffer[: self.most]
        before = self._position
        block, checksum = encode_block(
            encode_operations(operations),
            epoch=self._epoch,
            previous_epoch=before.epoch,
            first_lsn=before.lsn + 1,
            count=len(operations),
            previous_checksum=before.checksum,
        )
        self._position = Position(before.lsn + len(operations), self._epoch, checksum)
        self._node = Node(self._node, self._epoch, self._position.lsn, operations)
        self._process.point("block made")
        self._deadline = self._process.clock() + DEADLINE
        self._try(block)

    def _try(self, block: bytes) -> None:
        if self._closed:
            return
        self._attempt += 1
        self._in_lane = True
        self._watch()
        ask_store(self._process, self._store, self._write, self._attempt, block, swallowed=True)

    def _watch(self) -> None:
        """See to it that an append which hangs is given up; one watch serves all blocks."""
        if not self._watched:
            self._watched = True
            self._process.after(max(0, self._deadline - self._process.clock()), self._look)

    def _look(self) -> None:
        self._watched = False
        if not self._closed and self._committing:
            if self._process.clock() < self._deadline:
                self._watch()
            elif self._in_lane:
                self._process.point("given up")
                self._fail(LogUnavailable("the log cannot be written: the store does not answer"))

    # In the thread that writes

    def _write(self, attempt: int, block: bytes) -> None:
        try:
            if not self._clean:
                self._begin_segment()
            self._clean = False
            self._on_written(self._node)
            torn = self._process.trap is not None and self._process.trap.point == "torn"
            if torn or self._store.trouble.failing:
                self._store.write(self._segment, block[: self._process.scheduler.below(len(block))])
                self._process.point("torn")
                raise OSError("a short write")
            self._store.write(self._segment, block)
        except OSError as error:
            self._answer(attempt, block, self._why(error))
            return
        self._process.point("written")
        ask_store(self._process, self._store, self._sync, attempt, block, swallowed=True)

    def _sync(self, attempt: int, block: bytes) -> None:
        try:
            self._store.sync(self._segment)
        except OSError as error:
            self._answer(attempt, block, self._why(error))
            return
        self._process.point("synced")
        ask_store(self._process, self._store, self._check, attempt, block, swallowed=True)

    def _check(self, attempt: int, block: bytes) -> None:
        try:
            self._store.check_fence(self._epoch)
        except (OSError, Deposed) as error:
            self._answer(attempt, block, error)
        else:
            self._clean, self._empty = True, False
            self._process.point("checked")
            self._answer(attempt, block, None)

    def _why(self, error: OSError) -> OSError | Deposed:
        """One who cannot write may be deposed all the same, and is to know it now."""
        try:
            self._store.check_fence(self._epoch)
        except Deposed as deposed:
            return deposed
        except OSError:
            pass
        return error

    def _begin_segment(self) -> None:
        self._number += 1  # also when it fails
        segment = Segment(self._epoch, self._number)
        self._store.create(segment)
        self._segment, self._clean, self._empty = segment, True, True
        self._process.point("segment begun")

    def _answer(self, attempt: int, block: bytes, error: OSError | Deposed | None) -> None:
        self._in_lane = False
        self._process.soon(self._answered, attempt, block, self._node, error)
        if self._rolling:
            self._roll()

    # Back in the loop

    def _answered(self, attempt: int, block: bytes, node: Node, error: OSError | Deposed | None) -> None:
        if self._closed or attempt != self._attempt:
            return
        if isinstance(error, Deposed):
            self._fail(error)
        elif error is None:
            self.durable_lsn = node.lsn
            self._committing = False
            self._on_durable(node)
            self._go_on()
            self._snapshot_next()
        elif self._process.clock() + RETRY_PAUSE >= self._deadline:
            self._fail(LogUnavailable(f"the log cannot be written: {error}"))
        else:
            self._process.after(RETRY_PAUSE, self._try, block)

    def _fail(self, error: StorageError) -> None:
        if not self._closed:
            self._end()
            self._on_failed(error)

    # Snapshots, in a thread of their own: the fence is asked before one is stored, and before anything is removed

    def _snapshot_due(self) -> bool:
        return bool(self._snapshots) and self._snapshots[0][0] <= self.durable_lsn

    def _snapshot_next(self) -> None:
        if not self._closed and not self._snapshotting and self._snapshot_due():
            self._snapshotting = True
            ask_store(self._process, self._store, self._guarded, self._check_snapshot, swallowed=True)

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Deposed as error:
            self._fail(error)
        except (OSError, LogUnavailable):
            # The log itself is as good as before.
            self._snapshot_over()

    def _snapshot_over(self) -> None:
        self._snapshots.popleft()
        self._snapshotting = False
        self._snapshot_next()

    def _check_snapshot(self) -> None:
        self._store.check_fence(self._epoch)
        self._process.point("snapshot made")
        ask_store(self._process, self._store, self._guarded, self._put_snapshot, swallowed=True)

    def _put_snapshot(self) -> None:
        lsn, data = self._snapshots[0]
        self._store.put_snapshot(lsn, encode_snapshot(data, epoch=self._epoch, lsn=lsn))
        self._process.point("snapshot stored")
        if self._closed:
            return
        if self._in_lane:
            self._rolling = True
        else:
            self._roll()

    def _roll(self) -> None:
        """Between two appends, in the thread that writes."""
        self._rolling = False
        self._guarded(self._begin_next)

    def _begin_next(self) -> None:
        if not self._empty:
            self._begin_segment()
        self._process.point("rolled")
        ask_store(self._process, self._store, self._guarded, self._trim, swallowed=True)

    def _trim(self) -> None:
        self._store.check_fence(self._epoch)
        trim(self._store, self._epoch)
        self._process.point("trimmed")
        self._snapshot_over()
