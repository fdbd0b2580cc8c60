"""The leader's pen, taken apart: a block is made, written, synced, and acknowledged if the fence allows.

Each of these steps is a call of its own, so that the process can die, or a successor come, between any two of them. A write
that failed is repeated in a new segment, byte by byte, as the log's appenders do.
"""

from collections.abc import Callable, Sequence

from flinkjob.api.errors import Deposed, LogUnavailable, StorageError
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
        self._buffer: list[Operation] = []
        self._busy = self._closed = False
        self._segment, self._number = Segment(epoch, 0), 0
        self._clean, self._empty = True, True
        self._snapshot: tuple[int, bytes] | None = None
        self.last_lsn = self.durable_lsn = position.lsn

    def append(self, operations: Sequence[Operation]) -> int:
        """Take the operations; they become durable later."""
        self._buffer.extend(operations)
        self.last_lsn += len(operations)
        self._process.point("appended")
        self._go_on()
        return self.last_lsn

    def take_snapshot(self, lsn: int, data: bytes) -> None:
        """Store the graph as of an LSN, once that is durable and nothing else is being written."""
        self._snapshot = (lsn, data)

    def close(self) -> None:
        """The term is over."""
        self._closed = True

    def _go_on(self) -> None:
        if not self._busy and (self._buffer or self._snapshot_due()):
            self._busy = True
            self._process.soon(self._take)

    # A block

    def _take(self) -> None:
        if self._closed:
            return
        if self._snapshot_due():
            self._guarded(self._store_snapshot)
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
        self._process.soon(self._write, block, self._process.clock() + DEADLINE)

    def _write(self, block: bytes, deadline: int) -> None:
        if self._closed:
            return
        try:
            if not self._clean:
                self._begin_segment()
            self._clean = False
            self._on_written(self._node)
            torn = self._process.trap is not None and self._process.trap.point == "torn"
            if torn or self._store.failing:
                self._store.write(self._segment, block[: self._process.scheduler.below(len(block))])
                self._process.point("torn")
                raise OSError("a short write")
            self._store.write(self._segment, block)
        except OSError as error:
            self._again(error, block, deadline)
            return
        self._process.point("written")
        self._process.soon(self._sync, block, deadline)

    def _sync(self, block: bytes, deadline: int) -> None:
        if self._closed:
            return
        try:
            self._store.sync(self._segment)
        except OSError as error:
            self._again(error, block, deadline)
            return
        self._process.point("synced")
        self._process.soon(self._check, block, deadline)

    def _check(self, block: bytes, deadline: int) -> None:
        if self._closed:
            return
        try:
            self._store.check_fence(self._epoch)
        except OSError as error:
            self._again(error, block, deadline)
        except Deposed as error:
            self._fail(error)
        else:
            self._clean, self._empty = True, False
            self._process.point("checked")
            self._process.soon(self._acknowledge, self._node)

    def _acknowledge(self, node: Node) -> None:
        if self._closed:
            return
        self.durable_lsn = node.lsn
        self._busy = False
        self._on_durable(node)
        self._go_on()

    def _again(self, error: OSError, block: bytes, deadline: int) -> None:
        try:
            self._store.check_fence(self._epoch)
        except Deposed as deposed:
            self._fail(deposed)
            return
        except OSError:
            pass
        if self._process.clock() + RETRY_PAUSE >= deadline:
            self._fail(LogUnavailable(f"the log cannot be written: {error}"))
        else:
            self._process.after(RETRY_PAUSE, self._write, block, deadline)

    def _begin_segment(self) -> None:
        self._number += 1  # also when it fails
        segment = Segment(self._epoch, self._number)
        self._store.create(segment)
        self._segment, self._clean, self._empty = segment, True, True

    def _fail(self, error: StorageError) -> None:
        if not self._closed:
            self._closed = True
            self._on_failed(error)

    # A snapshot: the fence is asked before it is stored, and again before anything is removed

    def _snapshot_due(self) -> bool:
        return self._snapshot is not None and self._snapshot[0] <= self.durable_lsn

    def _guarded(self, step: Callable[[], None]) -> None:
        if self._closed:
            return
        try:
            step()
        except Deposed as error:
            self._fail(error)
        except (OSError, LogUnavailable):
            # The log itself is as good as before.
            self._snapshot, self._busy = None, False
            self._go_on()

    def _store_snapshot(self) -> None:
        assert self._snapshot is not None
        self._store.check_fence(self._epoch)
        self._process.soon(self._guarded, self._put_snapshot)

    def _put_snapshot(self) -> None:
        assert self._snapshot is not None
        lsn, data = self._snapshot
        self._store.put_snapshot(lsn, encode_snapshot(data, epoch=self._epoch, lsn=lsn))
        if not self._empty:
            self._begin_segment()
        self._process.point("snapshot")
        self._process.soon(self._guarded, self._trim)

    def _trim(self) -> None:
        self._store.check_fence(self._epoch)
        trim(self._store, self._epoch)
        self._snapshot, self._busy = None, False
        self._go_on()
