"""Which snapshot a replay begins with, and what may be removed once there are newer ones.

Two snapshots are kept, so that one that cannot be read costs time and not the job; the segments after the older of the
two are kept with them.
"""

from dataclasses import dataclass

from flinkjob.oplog.format import BadBlock, Snapshot, decode_snapshot
from flinkjob.oplog.lineage import first_block
from flinkjob.oplog.medium import Medium
from flinkjob.oplog.reader import reading

KEPT_SNAPSHOTS = 2


@dataclass(frozen=True, slots=True)
class SnapshotChoice:
    """The newest snapshot that can be read, if any; the LSN that the newest of all has; what is wrong with those between."""

    snapshot: Snapshot | None
    at_least: int
    notes: tuple[str, ...]


def newest_snapshot(medium: Medium, *, at_most: int | None = None) -> SnapshotChoice:
    """Look for the newest readable snapshot, of an LSN not above ``at_most`` where that is given.

    Raises:
        LogUnavailable: the store cannot be read.
    """
    notes: list[str] = []
    with reading(medium, "the snapshots"):
        lsns = [lsn for lsn in medium.snapshots() if at_most is None or lsn <= at_most]
        for lsn in reversed(lsns):
            try:
                return SnapshotChoice(load_snapshot(medium, lsn), lsns[-1], tuple(notes))
            except BadBlock as error:
                notes.append(f"{medium.describe_snapshot(lsn)} was passed over: {error}")
    return SnapshotChoice(None, lsns[-1] if lsns else 0, tuple(notes))


def load_snapshot(medium: Medium, lsn: int) -> Snapshot:
    """The snapshot of an LSN.

    Raises:
        BadBlock: it is damaged, of another LSN than its name says, or gone.
        OSError: the store cannot be read.
    """
    try:
        snapshot = decode_snapshot(medium.read_snapshot(lsn))
    except FileNotFoundError:
        raise BadBlock("it has been removed meanwhile") from None
    if snapshot.lsn != lsn:
        raise BadBlock(f"it holds LSN {snapshot.lsn}")
    return snapshot


def trim(medium: Medium, epoch: int) -> None:
    """Remove what two readable snapshots make superfluous. Only the leader of the epoch, its fence just checked, may do so.

    The leader's own blocks are on the log's path for certain. So as soon as one of its segments begins at the older snapshot
    or before, everything in front of that segment is superfluous, lower epochs included.

    Raises:
        OSError: the store fails; what was removed until then was superfluous.
    """
    older = _older_of_the_newest(medium)
    if older is None:
        return
    segments = [segment for segment in medium.segments() if segment.epoch <= epoch]
    own = [segment for segment in segments if segment.epoch == epoch]
    for segment in reversed(own):
        first = first_block(medium, [segment], after_lsn=older)
        if first is not None and first.header.first_lsn <= older + 1:
            for covered in segments[: segments.index(segment)]:
                medium.remove_segment(covered)
            break
    for lsn in medium.snapshots():
        if lsn < older:
            medium.remove_snapshot(lsn)


def _older_of_the_newest(medium: Medium) -> int | None:
    """The LSN of the second newest readable snapshot."""
    readable = 0
    for lsn in reversed(medium.snapshots()):
        try:
            load_snapshot(medium, lsn)
        except BadBlock:
            continue
        readable += 1
        if readable == KEPT_SNAPSHOTS:
            return lsn
    return None
