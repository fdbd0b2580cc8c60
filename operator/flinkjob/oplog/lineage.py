"""Which epochs made the log, and up to which LSN each: the path from the newest block back to where a replay begins.

The first block of an epoch says which epoch it continues, and at which LSN. So the newest epoch that has a block leads to
the one it continued, and that one's blocks count below the LSN where it was continued; and so on. Whatever else lies
around was written in vain, by leaders that had been deposed and did not know it yet: their blocks were never acknowledged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from flinkjob.api.errors import CorruptedLog
from flinkjob.oplog.medium import Medium, Segment
from flinkjob.oplog.reader import Block, SegmentReader, damaged


@dataclass(frozen=True, slots=True)
class Stretch:
    """What one epoch contributed: the blocks in these segments below ``limit``, where the next epoch goes on (None: all)."""

    epoch: int
    segments: tuple[Segment, ...]
    limit: int | None


@dataclass(frozen=True, slots=True)
class Lineage:
    """The stretches of a log in order, and the segments of epochs in between that contributed nothing."""

    stretches: tuple[Stretch, ...] = ()
    in_vain: tuple[Segment, ...] = ()


def first_block(medium: Medium, segments: Sequence[Segment], *, after_lsn: int = 0) -> Block | None:
    """The first intact block in the segments, which may begin with torn ones.

    Raises:
        CorruptedLog: a block before it is damaged.
    """
    for segment in segments:
        block = next(SegmentReader(medium, segment).blocks(after_lsn=after_lsn), None)
        if block is not None:
            return block
    return None


def trace(medium: Medium, *, after_lsn: int | None, below_epoch: int | None = None) -> Lineage:
    """The path back from the newest block to the operation after ``after_lsn``, or (None) as far as segments go.

    Args:
        below_epoch: leave this epoch and higher ones out.

    Raises:
        CorruptedLog: segments on the path are missing or their beginnings damaged.
    """
    segments = [s for s in medium.segments() if below_epoch is None or s.epoch < below_epoch]
    epochs = {epoch: tuple(group) for epoch, group in groupby(segments, key=lambda segment: segment.epoch)}
    path: list[Stretch] = []
    in_vain: list[Segment] = []
    head: Block | None = None
    for epoch in sorted(epochs, reverse=True):
        if head is not None and epoch < head.header.previous_epoch:
            break
        limit = None if head is None else head.header.first_lsn
        candidate, needed = None, epochs[epoch]
        if head is None or epoch == head.header.previous_epoch:
            if after_lsn is not None:
                needed = _without_covered(medium, needed, after_lsn)
            candidate = first_block(medium, needed, after_lsn=after_lsn or 0)
        if candidate is None or (limit is not None and candidate.header.first_lsn >= limit):
            in_vain.extend(epochs[epoch])
            continue
        head = candidate
        path.append(Stretch(epoch, needed, limit))
        if head.header.first_lsn <= (after_lsn or 0) + 1 or head.header.previous_epoch == epoch:
            break
    if head is not None and after_lsn is not None and head.header.first_lsn > after_lsn + 1:
        raise _beginning_missing(head, after_lsn + 1)
    return Lineage(tuple(reversed(path)), tuple(reversed(in_vain)))


def _beginning_missing(head: Block, target: int) -> CorruptedLog:
    first = head.header.first_lsn
    missing = f"LSN {target} to {first - 1} are missing, of epoch {head.header.previous_epoch}"
    return damaged(head.place, first, f"the log goes on here, but {missing}")


def _without_covered(medium: Medium, segments: tuple[Segment, ...], after_lsn: int) -> tuple[Segment, ...]:
    """Leave out the segments of an epoch before the last one that begins at ``after_lsn`` or earlier: they are not needed."""
    for index in range(len(segments) - 1, 0, -1):
        first = first_block(medium, segments[index : index + 1], after_lsn=after_lsn)
        if first is not None and first.header.first_lsn <= after_lsn + 1:
            return segments[index:]
    return segments
