"""Replay: the newest usable snapshot, then every operation after it, in order, each once.

The reader trusts nothing that the chain does not confirm: LSNs without a gap, each block naming the checksum of the one
before. It streams, so that a log of any length needs the memory of one block. What it dropped or passed over is counted
and told; what it cannot explain raises CorruptedLog.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from flinkjob.api.errors import CorruptedLog, Deposed, LogUnavailable
from flinkjob.graph.operations import Operation, decode_operations
from flinkjob.oplog.format import HEADER_SIZE, BlockHeader, Snapshot
from flinkjob.oplog.lineage import Stretch, trace
from flinkjob.oplog.medium import Medium
from flinkjob.oplog.reader import Block, Place, SegmentReader, TornEnd, damaged, reading
from flinkjob.oplog.snapshots import newest_snapshot


@dataclass(frozen=True, slots=True)
class Position:
    """The end of a log: the last LSN, the epoch and the checksum of the block that holds it (0: not known)."""

    lsn: int = 0
    epoch: int = 0
    checksum: int = 0


@dataclass(slots=True)
class ReplayStatistics:
    """What a replay has come across.

    Attributes:
        operations: handed out. blocks: those they came in. bytes: of those blocks.
        torn_bytes: dropped from torn ends. superseded_blocks: written in vain by deposed leaders and ignored.
        repeated_blocks: written again after a failed write; the second copies are ignored.
        notes: what a person should know, in sentences.
    """

    operations: int = 0
    blocks: int = 0
    bytes: int = 0
    torn_bytes: int = 0
    superseded_blocks: int = 0
    repeated_blocks: int = 0
    notes: list[str] = field(default_factory=list)


class Replay:
    """Iterate over it once: lists of operations, a block's at a time.

    Attributes:
        snapshot: the graph's bytes to begin with, or None for an empty graph.
        snapshot_lsn: the LSN that they hold; the first operation handed out is the next one.
        statistics: kept current while iterating.
        end: where the log ends, once the iteration is over; None before.
    """

    def __init__(
        self,
        medium: Medium,
        *,
        snapshot: Snapshot | None = None,
        whole: bool = False,
        below_epoch: int | None = None,
        at_least: int = 0,
        check_fence: Callable[[], None] | None = None,
    ) -> None:
        """Replay what follows the snapshot.

        Args:
            whole: begin with the oldest segment instead, whatever LSN that has.
            below_epoch: leave this epoch and higher ones out.
            at_least: the LSN of the newest snapshot: a log that ends before it, or begins behind it, is damaged.
            check_fence: asked before damage is reported: the successor of a leader that has been deposed meanwhile may
                have trimmed the log under it, and then Deposed is what there is to tell.
        """
        self._medium = medium
        self._check_fence = check_fence
        self._below_epoch = below_epoch
        self._at_least = at_least
        self._whole = whole
        self.snapshot = snapshot.data if snapshot else None
        self.snapshot_lsn = snapshot.lsn if snapshot else 0
        self.statistics = ReplayStatistics()
        self.end: Position | None = None
        self._last: BlockHeader | None = None
        self._reached = Place("oplog", 0)
        self._torn: TornEnd | None = None
        self._snapshot_epoch = snapshot.epoch if snapshot else 0

    @classmethod
    def newest(
        cls, medium: Medium, *, below_epoch: int | None = None, check_fence: Callable[[], None] | None = None
    ) -> "Replay":
        """The replay that a new leader does: from the newest snapshot that can be read.

        Raises:
            LogUnavailable: the store cannot be read.
            Deposed: the newest snapshot is one of ``below_epoch`` or higher: the leader that replays has slept for so long
                that its successor has taken one.
        """
        choice = newest_snapshot(medium)
        if below_epoch is not None and choice.snapshot is not None and choice.snapshot.epoch >= below_epoch:
            if check_fence is not None:
                check_fence()
            newer = f"epoch {choice.snapshot.epoch} of {medium.location} has taken a snapshot"
            raise Deposed(f"epoch {below_epoch} is over: {newer}")
        replay = cls(
            medium,
            snapshot=choice.snapshot,
            below_epoch=below_epoch,
            at_least=choice.at_least,
            check_fence=check_fence,
        )
        replay.statistics.notes.extend(choice.notes)
        return replay

    def __iter__(self) -> Iterator[list[Operation]]:
        """The operations, a block's at a time.

        Raises:
            CorruptedLog: damage that is not a torn end; names the file, the offset and the LSN.
            LogUnavailable: the store cannot be read.
            Deposed: the leader that replays has a successor already.
        """
        for _, operations in self.blocks():
            yield operations

    def blocks(self) -> Iterator[tuple[BlockHeader, list[Operation]]]:
        """Like iterating, with the header of each block. The first block's operations may lack those of the snapshot."""
        passed_over = "".join(f"; {note}" for note in self.statistics.notes)
        try:
            with reading(self._medium, "the operation log"):
                lineage = trace(
                    self._medium, after_lsn=None if self._whole else self.snapshot_lsn, below_epoch=self._below_epoch
                )
            for stretch in lineage.stretches:
                yield from self._read(stretch)
            self._check_end()
        except (CorruptedLog, LogUnavailable) as error:
            if self._check_fence is not None:
                self._check_fence()
            raise type(error)(f"{error}{passed_over}") from error.__cause__
        for segment in lineage.in_vain:
            reader = SegmentReader(self._medium, segment)
            with suppress(CorruptedLog):
                for _ in reader.blocks():
                    self.statistics.superseded_blocks += 1
            if reader.torn is not None:
                self._drop(reader.torn)
        self.end = self._position()

    def _read(self, stretch: Stretch) -> Iterator[tuple[BlockHeader, list[Operation]]]:
        self._torn = None
        for segment in stretch.segments:
            reader = SegmentReader(self._medium, segment)
            for block in reader.blocks(
                after_lsn=self.snapshot_lsn, expected_lsn=self._last.last_lsn + 1 if self._last else 0
            ):
                if self._belongs(block, stretch.limit):
                    self._last = block.header
                    self._reached = Place(block.place.file, block.place.offset + HEADER_SIZE + block.header.length)
                    if block.header.last_lsn > self.snapshot_lsn:
                        yield block.header, self._decode(block)
            if reader.torn is not None:
                self._drop(reader.torn)
        if stretch.limit is not None and self._last is not None and self._last.last_lsn != stretch.limit - 1:
            raise self._gap(self._reached, f"a later epoch goes on at LSN {stretch.limit}")

    def _belongs(self, block: Block, limit: int | None) -> bool:
        """Whether the block is the next one of the log: it may also be a repetition, or written in vain."""
        header, last = block.header, self._last
        if header == last:
            self.statistics.repeated_blocks += 1
            return False
        if limit is not None and header.first_lsn >= limit:
            self.statistics.superseded_blocks += 1
            return False
        if last is None:
            if header.first_lsn > (self._at_least if self._whole else self.snapshot_lsn) + 1:
                raise self._gap(block.place, f"the log goes on at LSN {header.first_lsn}")
            return True
        if header.first_lsn != last.last_lsn + 1:
            raise self._gap(block.place, f"the log goes on at LSN {header.first_lsn}")
        if header.previous_epoch != last.epoch or header.previous_checksum not in (0, last.checksum):
            raise damaged(block.place, header.first_lsn, "the block continues another one than that before it")
        return True

    def _decode(self, block: Block) -> list[Operation]:
        header = block.header
        try:
            operations = decode_operations(block.payload)
        except msgspec.DecodeError as error:
            raise damaged(block.place, header.first_lsn, f"the operations cannot be decoded: {error}") from None
        if len(operations) != header.count:
            raise damaged(block.place, header.first_lsn, f"{len(operations)} operations are there, of {header.count}")
        fresh = operations[max(0, self.snapshot_lsn + 1 - header.first_lsn) :]
        self.statistics.operations += len(fresh)
        self.statistics.blocks += 1
        self.statistics.bytes += HEADER_SIZE + header.length
        return fresh

    def _drop(self, torn: TornEnd) -> None:
        self._torn = torn
        self.statistics.torn_bytes += torn.size
        self.statistics.notes.append(f"{torn.size} bytes of a torn end were dropped in {torn.place}: {torn.reason}")

    def _gap(self, place: Place, found: str) -> CorruptedLog:
        lsn = (self._last.last_lsn if self._last else self.snapshot_lsn) + 1
        if self._torn is not None:
            return damaged(self._torn.place, lsn, f"{self._torn.reason}, and {found}")
        return damaged(place, lsn, f"this operation is missing; {found}")

    def _check_end(self) -> None:
        if self._position().lsn < self._at_least:
            raise self._gap(self._reached, f"the log ends here, though a snapshot of LSN {self._at_least} was taken")

    def _position(self) -> Position:
        last = self._last
        if last is None:
            return Position(self.snapshot_lsn, self._snapshot_epoch)
        if last.last_lsn < self.snapshot_lsn:  # the torn end held operations that the snapshot has
            return Position(self.snapshot_lsn, last.epoch)
        return Position(last.last_lsn, last.epoch, last.checksum)
