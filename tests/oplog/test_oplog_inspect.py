"""Looking at a log from outside."""

from collections.abc import Callable
from pathlib import Path

import pytest

from flinkjob.api.errors import CorruptedLog, Deposed, InvalidInput
from flinkjob.api.job import TaskSpec, VertexSpec
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.jobgraph import JobGraph
from flinkjob.oplog.append import AppendMedium
from flinkjob.oplog.format import encode_snapshot
from flinkjob.oplog.inspect import fold, show, verify
from flinkjob.oplog.storage import JobStorage

from .leaders import Leader, operation


@pytest.fixture
def medium(tmp_path: Path) -> AppendMedium:
    return AppendMedium(tmp_path)


@pytest.fixture
def job_graph() -> JobGraph:
    vertex = VertexSpec(name="v", parallelism=1, task=TaskSpec(python="m:f"))
    return JobGraph.build(job_id="0" * 32, name="job", vertices=[vertex])


def graph_at(job_graph: JobGraph, lsn: int) -> ExecutionGraph:
    graph = ExecutionGraph(job_graph)
    for number in range(1, lsn + 1):
        graph.apply(operation(number))
    return graph


def snapshot(leader: Leader, job_graph: JobGraph) -> None:
    """Store a real graph as the leader's snapshot, and trim."""
    data = graph_at(job_graph, leader.position.lsn).snapshot()
    leader.snapshot()
    leader.medium.put_snapshot(
        leader.position.lsn, encode_snapshot(data, epoch=leader.log.epoch, lsn=leader.position.lsn)
    )


def state(medium: AppendMedium) -> dict[str, bytes]:
    directory = Path(medium.location)
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def change(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


def test_looking_changes_nothing(medium: AppendMedium, job_graph: JobGraph) -> None:
    leader = Leader(medium)
    leader.commit(2)
    snapshot(leader, job_graph)
    leader.commit(2)
    before = state(medium)
    list(show(medium))
    verify(medium)
    fold(medium, job_graph)
    assert state(medium) == before
    leader.commit()


def test_show_gives_every_operation_with_its_lsn_and_epoch(medium: AppendMedium) -> None:
    Leader(medium).commit(2)
    Leader(medium).commit(1)
    assert list(show(medium)) == [(1, 1, operation(1)), (2, 1, operation(2)), (3, 2, operation(3))]
    assert list(show(JobStorage(medium.location))) == list(show(medium))


def test_show_begins_with_the_oldest_operation_that_is_left(medium: AppendMedium, job_graph: JobGraph) -> None:
    leader = Leader(medium)
    for _ in range(3):
        leader.commit(2)
        snapshot(leader, job_graph)
    leader.commit()
    assert [lsn for lsn, _, _ in show(medium)] == [5, 6, 7]


@pytest.mark.parametrize("look", [lambda medium: list(show(medium)), verify])
def test_where_there_is_no_log_that_is_said(medium: AppendMedium, look: Callable[[AppendMedium], object]) -> None:
    with pytest.raises(InvalidInput, match=r"there is no operation log at /.*; wanted is a job's directory"):
        look(medium)


@pytest.mark.parametrize("until", range(8))
def test_the_graph_can_be_folded_as_of_any_lsn(medium: AppendMedium, job_graph: JobGraph, until: int) -> None:
    for _ in range(2):
        leader = Leader(medium)
        leader.commit(1)
        leader.commit(2)
    leader.commit(1)
    assert fold(medium, job_graph, until_lsn=until).snapshot() == graph_at(job_graph, until).snapshot()
    assert fold(medium, job_graph).snapshot() == graph_at(job_graph, 7).snapshot()


def test_folding_begins_with_the_nearest_snapshot(medium: AppendMedium, job_graph: JobGraph) -> None:
    leader = Leader(medium)
    for _ in range(3):
        leader.commit(2)
        snapshot(leader, job_graph)
    leader.commit(2)
    for until in range(4, 9):
        assert fold(medium, job_graph, until_lsn=until).snapshot() == graph_at(job_graph, until).snapshot()
    assert fold(medium, job_graph).snapshot() == graph_at(job_graph, 8).snapshot()


def test_an_lsn_that_is_not_available_is_refused_with_what_is(medium: AppendMedium, job_graph: JobGraph) -> None:
    leader = Leader(medium)
    for _ in range(3):
        leader.commit(2)
        snapshot(leader, job_graph)
    with pytest.raises(InvalidInput, match=r"LSN 3 is not available .* the oldest snapshot is that of LSN 4"):
        fold(medium, job_graph, until_lsn=3)
    with pytest.raises(InvalidInput, match=r"LSN 7 is not in the log .* ends at LSN 6"):
        fold(medium, job_graph, until_lsn=7)
    with pytest.raises(InvalidInput, match="LSN -1 cannot be"):
        fold(medium, job_graph, until_lsn=-1)


def test_a_sound_log_is_reported_as_such(medium: AppendMedium, job_graph: JobGraph) -> None:
    first = Leader(medium, "a")
    first.commit(2)
    first.appender.roll()
    first.commit(2)
    second = Leader(medium, "b")
    second.commit(1)
    snapshot(second, job_graph)
    report = verify(medium)
    assert report.location == medium.location
    assert report.replayable
    assert report.damage == ""
    assert (report.oldest_lsn, report.last_lsn) == (1, 5)
    assert [(e.epoch, e.blocks, e.first_lsn, e.last_lsn) for e in report.epochs] == [(1, 2, 1, 4), (2, 1, 5, 5)]
    assert [(s.epoch, s.blocks, s.operations, s.torn_bytes) for s in report.segments] == [
        (1, 1, 2, 0),
        (1, 1, 2, 0),
        (2, 1, 1, 0),
        (2, 0, 0, 0),
    ]
    assert all(s.size == (Path(medium.location) / s.file).stat().st_size for s in report.segments)
    assert [(s.lsn, s.epoch, s.damage) for s in report.snapshots] == [(5, 2, "")]


def test_torn_ends_and_blocks_in_vain_are_reported_and_are_no_damage(medium: AppendMedium) -> None:
    zombie = Leader(medium, "a")
    zombie.commit()
    leader = Leader(medium, "b")
    leader.commit()
    with pytest.raises(Deposed):
        zombie.commit()
    with (Path(medium.location) / medium.describe(medium.segments()[-1])).open("ab") as file:
        file.write(b"torn")
    report = verify(medium)
    assert (report.superseded_blocks, report.torn_bytes, report.damage) == (1, 4, "")
    assert report.replayable
    assert report.segments[-1].torn_bytes == 4


def test_damage_is_reported_with_its_place_and_not_raised(medium: AppendMedium) -> None:
    leader = Leader(medium)
    leader.commit(2)
    leader.commit(2)
    change(Path(medium.location) / "oplog/0000000001.000000.log", 60)
    report = verify(medium)
    assert not report.replayable
    assert report.damage.startswith("the operation log is damaged in oplog/0000000001.000000.log, offset 0, LSN 1:")
    assert report.segments[0].damage
    with pytest.raises(CorruptedLog):
        list(show(medium))


def test_damage_that_a_snapshot_covers_leaves_the_log_replayable(medium: AppendMedium, job_graph: JobGraph) -> None:
    leader = Leader(medium)
    leader.commit(2)
    leader.commit(2)
    snapshot(leader, job_graph)
    leader.commit()
    change(Path(medium.location) / "oplog/0000000001.000000.log", 60)
    report = verify(medium)
    assert report.replayable
    assert "offset 0, LSN 1" in report.damage
    assert report.last_lsn == 5
    assert fold(medium, job_graph).snapshot() == graph_at(job_graph, 5).snapshot()


def test_a_damaged_snapshot_is_damage_though_the_log_makes_up_for_it(medium: AppendMedium, job_graph: JobGraph) -> None:
    leader = Leader(medium)
    leader.commit(2)
    snapshot(leader, job_graph)
    leader.commit()
    change(Path(medium.location) / medium.describe_snapshot(2), 50)
    report = verify(medium)
    assert report.replayable
    assert report.damage == "snapshots/00000000000000000002.snapshot: the checksum does not match"
    assert fold(medium, job_graph, until_lsn=2).snapshot() == graph_at(job_graph, 2).snapshot()
