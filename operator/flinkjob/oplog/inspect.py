"""Looking at a log from outside: its operations, its health, its graph as of any LSN. Nothing here claims, fences or writes.

The log may be in use meanwhile: then the end may look torn, and a file may be trimmed away while it is read, which is
reported as LogUnavailable.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from flinkjob.api.errors import CorruptedLog, InvalidInput, LogUnavailable, StorageError
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.jobgraph import JobGraph
from flinkjob.graph.operations import Operation
from flinkjob.oplog.format import BadBlock
from flinkjob.oplog.medium import Medium, Segment
from flinkjob.oplog.reader import SegmentReader, reading
from flinkjob.oplog.replay import Replay
from flinkjob.oplog.snapshots import load_snapshot, newest_snapshot
from flinkjob.oplog.storage import JobStorage


@dataclass(frozen=True, slots=True)
class SegmentReport:
    """One segment, taken by itself.

    Attributes:
        file: its name. size: in bytes.
        blocks: intact ones. operations: in those.
        first_lsn, last_lsn: of those; 0 where there are none.
        torn_bytes: at its end.
        damage: what is wrong with it, or "".
    """

    file: str
    epoch: int
    size: int
    blocks: int
    operations: int
    first_lsn: int
    last_lsn: int
    torn_bytes: int
    damage: str


@dataclass(frozen=True, slots=True)
class EpochReport:
    """One leader's term: the LSN range of its intact blocks (0 to 0: none) and how many there are."""

    epoch: int
    blocks: int
    first_lsn: int
    last_lsn: int


@dataclass(frozen=True, slots=True)
class SnapshotReport:
    """One snapshot; ``damage`` is "" where it can be read."""

    file: str
    lsn: int
    epoch: int
    size: int
    damage: str


@dataclass(frozen=True, slots=True)
class LogReport:
    """What ``verify`` has found.

    Attributes:
        location: of the log.
        oldest_lsn, last_lsn: the operations that can still be read one by one (oldest_lsn is last_lsn + 1 where none can).
        replayable: whether a new leader could go on.
        torn_bytes, superseded_blocks, repeated_blocks: ignored in reading the whole log; all of them are legal.
        notes: what a person should know, in sentences.
        damage: the first damage, with file, offset and LSN, or "". A log may be replayable in spite of it, from a snapshot.
    """

    location: str
    epochs: tuple[EpochReport, ...]
    segments: tuple[SegmentReport, ...]
    snapshots: tuple[SnapshotReport, ...]
    oldest_lsn: int
    last_lsn: int
    replayable: bool
    torn_bytes: int
    superseded_blocks: int
    repeated_blocks: int
    notes: tuple[str, ...]
    damage: str


def show(log: JobStorage | Medium) -> Iterator[tuple[int, int, Operation]]:
    """Every operation that is still there, as (LSN, epoch, operation).

    Raises:
        InvalidInput: there is no log at that place.
        StorageError: it cannot be read, or is damaged.
    """
    for header, operations in _whole(_existing(log)).blocks():
        for lsn, operation in enumerate(operations, header.first_lsn):
            yield lsn, header.epoch, operation


def fold(log: JobStorage | Medium, job_graph: JobGraph, *, until_lsn: int | None = None) -> ExecutionGraph:
    """The graph as of an LSN (None: as of the end), made of the nearest snapshot and the operations after it.

    Raises:
        InvalidInput: there is no log at that place, or it does not reach to that LSN; the message names what is available.
        IllegalOperation: the operations do not make a graph of this job.
        StorageError: the log cannot be read, or is damaged.
    """
    medium = _existing(log)
    if until_lsn is not None:
        _check_available(medium, until_lsn)
    choice = newest_snapshot(medium, at_most=until_lsn)
    # A snapshot above until_lsn says nothing about what lies below, so only the end has to be reached.
    replay = Replay(medium, snapshot=choice.snapshot, at_least=choice.at_least if until_lsn is None else 0)
    graph = ExecutionGraph(job_graph)
    if replay.snapshot is not None:
        graph = ExecutionGraph.restore(job_graph, replay.snapshot)
    lsn = replay.snapshot_lsn
    for operations in replay:
        wanted = operations if until_lsn is None else operations[: until_lsn - lsn]
        graph.apply_all(wanted)
        lsn += len(wanted)
        if lsn == until_lsn:
            return graph
    if until_lsn is not None and lsn < until_lsn:
        raise InvalidInput(f"LSN {until_lsn} is not in the log at {medium.location}: it ends at LSN {lsn}")
    return graph


def verify(log: JobStorage | Medium) -> LogReport:
    """Read everything, checksums and operations, and report; damage is reported, not raised.

    Raises:
        InvalidInput: there is no log at that place.
        LogUnavailable: it cannot be read.
    """
    medium = _existing(log)
    with reading(medium, "the operation log"):
        segments = tuple(_segment_report(medium, segment) for segment in medium.segments())
        snapshots = tuple(_snapshot_report(medium, lsn) for lsn in medium.snapshots())
    whole = _whole(medium)
    oldest, last, damage = 0, 0, ""
    try:
        for header, _ in whole.blocks():
            oldest, last = oldest or header.first_lsn, header.last_lsn
    except CorruptedLog as error:
        damage = str(error)
    end, replay_damage = _try_replay(medium)
    damage = damage or replay_damage or next((f"{s.file}: {s.damage}" for s in snapshots if s.damage), "")
    last = max(last, end)
    return LogReport(
        location=medium.location,
        epochs=tuple(_epoch_reports(segments)),
        segments=segments,
        snapshots=snapshots,
        oldest_lsn=oldest or last + 1,
        last_lsn=last,
        replayable=not replay_damage,
        torn_bytes=whole.statistics.torn_bytes,
        superseded_blocks=whole.statistics.superseded_blocks,
        repeated_blocks=whole.statistics.repeated_blocks,
        notes=tuple(whole.statistics.notes),
        damage=damage,
    )


def _existing(log: JobStorage | Medium) -> Medium:
    medium = log.medium() if isinstance(log, JobStorage) else log
    with reading(medium, "the operation log"):
        if medium.segments() or medium.snapshots():
            return medium
    raise InvalidInput(
        f"there is no operation log at {medium.location}; wanted is a job's directory, which holds oplog/ and snapshots/"
    )


def _whole(medium: Medium) -> Replay:
    """All that is left of the log. Its beginning may have been trimmed away if a snapshot has what it held."""
    with reading(medium, "the snapshots"):
        newest = max(medium.snapshots(), default=0)
    return Replay(medium, whole=True, at_least=newest)


def _check_available(medium: Medium, lsn: int) -> None:
    if lsn < 0:
        raise InvalidInput(f"LSN {lsn} cannot be: the first operation has LSN 1, and 0 is the graph before it")
    with reading(medium, "the snapshots"):
        snapshots = [other for other in medium.snapshots() if not _snapshot_report(medium, other).damage]
    if snapshots and lsn < snapshots[0] and _oldest_lsn(medium) > 1:
        raise InvalidInput(
            f"LSN {lsn} is not available in the log at {medium.location}: it has been trimmed, and the oldest snapshot is "
            f"that of LSN {snapshots[0]}"
        )


def _oldest_lsn(medium: Medium) -> int:
    return next((header.first_lsn for header, _ in _whole(medium).blocks()), 0)


def _try_replay(medium: Medium) -> tuple[int, str]:
    """The LSN that a new leader would go on from, and "" or what would keep it from doing so."""
    try:
        replay = Replay.newest(medium)
        for _ in replay:
            pass
    except LogUnavailable:
        raise
    except StorageError as error:
        return 0, str(error)
    return replay.end.lsn if replay.end else 0, ""


def _epoch_reports(segments: tuple[SegmentReport, ...]) -> Iterator[EpochReport]:
    for epoch, group in groupby(segments, key=lambda segment: segment.epoch):
        of_epoch = list(group)
        lsns = [lsn for s in of_epoch if s.blocks for lsn in (s.first_lsn, s.last_lsn)] or [0]
        yield EpochReport(epoch, sum(s.blocks for s in of_epoch), min(lsns), max(lsns))


def _segment_report(medium: Medium, segment: Segment) -> SegmentReport:
    reader = SegmentReader(medium, segment)
    blocks = operations = first = last = 0
    damage = ""
    try:
        for block in reader.blocks():
            blocks += 1
            operations += block.header.count
            first, last = first or block.header.first_lsn, block.header.last_lsn
    except CorruptedLog as error:
        damage = str(error)
    torn = reader.torn.size if reader.torn else 0
    return SegmentReport(
        medium.describe(segment), segment.epoch, reader.size, blocks, operations, first, last, torn, damage
    )


def _snapshot_report(medium: Medium, lsn: int) -> SnapshotReport:
    name = medium.describe_snapshot(lsn)
    try:
        snapshot = load_snapshot(medium, lsn)
    except BadBlock as error:
        return SnapshotReport(name, lsn, 0, 0, str(error))
    return SnapshotReport(name, lsn, snapshot.epoch, len(snapshot.data), "")
