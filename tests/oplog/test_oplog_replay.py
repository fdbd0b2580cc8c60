"""What a new leader makes of what its predecessors left: torn ends, blocks written in vain, damage."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flinkjob.api.errors import CorruptedLog, Deposed, FlinkJobError, LogUnavailable, UnsupportedStorage
from flinkjob.graph.operations import Operation
from flinkjob.oplog.append import AppendMedium
from flinkjob.oplog.format import encode_block
from flinkjob.oplog.log import OperationLog
from flinkjob.oplog.replay import Position, Replay

from .leaders import Leader, contents, replayed


@pytest.fixture
def medium(tmp_path: Path) -> AppendMedium:
    return AppendMedium(tmp_path)


def segment(medium: AppendMedium, epoch: int, number: int = 0) -> Path:
    return Path(medium.location) / f"oplog/{epoch:010d}.{number:06d}.log"


def write_in_vain(leader: Leader, count: int = 1, *, cut: int | None = None) -> None:
    """Have the leader's bytes reach the file without its learning so: it hangs, or is killed, before it acknowledges."""
    data = leader.block(count)[0][:cut]
    with segment_of(leader).open("ab") as file:
        file.write(data)


def segment_of(leader: Leader) -> Path:
    assert isinstance(leader.medium, AppendMedium)
    newest = max(s for s in leader.medium.segments() if s.epoch == leader.log.epoch)
    return Path(leader.medium.location) / leader.medium.describe(newest)


def change(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


# What is legal


def test_a_new_log_is_empty(medium: AppendMedium) -> None:
    log = OperationLog.open(medium, "jm")
    replay = log.replay()
    assert (list(replay), replay.snapshot, replay.snapshot_lsn, replay.end) == ([], None, 0, Position())


def test_the_replay_tells_what_it_read(medium: AppendMedium) -> None:
    leader = Leader(medium)
    leader.commit(3)
    leader.commit(4)
    replay = Replay.newest(medium)
    assert replay.end is None
    assert [len(operations) for operations in replay] == [3, 4]
    assert replay.end == leader.position
    statistics = replay.statistics
    assert (statistics.operations, statistics.blocks, statistics.bytes) == (7, 2, segment(medium, 1).stat().st_size)
    assert (statistics.torn_bytes, statistics.superseded_blocks, statistics.notes) == (0, 0, [])


def test_leaders_that_died_before_their_first_block_leave_no_gap(medium: AppendMedium) -> None:
    Leader(medium, "a").commit(2)
    Leader(medium, "b")
    Leader(medium, "c")
    leader = Leader(medium, "d")
    leader.commit()
    assert leader.log.epoch == 4
    assert replayed(medium) == leader.history


def test_a_torn_end_is_dropped_counted_and_told(medium: AppendMedium) -> None:
    leader = Leader(medium)
    leader.commit(2)
    write_in_vain(leader, 2, cut=60)
    replay = Replay.newest(medium)
    assert contents(replay) == leader.history
    assert replay.statistics.torn_bytes == 60
    [note] = replay.statistics.notes
    assert "60 bytes of a torn end were dropped in oplog/0000000001.000000.log, offset" in note


def test_a_successor_goes_on_behind_a_torn_end(medium: AppendMedium) -> None:
    first = Leader(medium, "a")
    first.commit(2)
    write_in_vain(first, 2, cut=40)
    second = Leader(medium, "b")
    second.commit(2)
    assert second.history[:2] == first.history
    third = Leader(medium, "c")
    assert third.history == second.history
    assert third.replay.statistics.torn_bytes == 40


def test_an_unacknowledged_block_that_the_successor_saw_stays(medium: AppendMedium) -> None:
    first = Leader(medium, "a")
    first.commit()
    write_in_vain(first, 2)
    second = Leader(medium, "b")
    second.commit()
    assert len(replayed(medium)) == 4


def test_a_block_that_a_zombie_wrote_too_late_is_ignored(medium: AppendMedium) -> None:
    zombie = Leader(medium, "zombie")
    zombie.commit()
    leader = Leader(medium, "b")
    leader.commit(3)
    with pytest.raises(Deposed):
        zombie.commit(2)
    third = Leader(medium, "c")
    assert third.history == leader.history
    assert third.replay.statistics.superseded_blocks == 1


def test_a_zombies_block_does_not_hide_one_that_the_next_but_one_leader_continued(medium: AppendMedium) -> None:
    """The second leader did not see the first one's last block, the third did; what the second writes then is in vain."""
    first = Leader(medium, "a")
    first.commit()
    second = Leader(medium, "b")
    write_in_vain(first)
    third = Leader(medium, "c")
    assert len(third.history) == 2
    with pytest.raises(Deposed):
        second.commit()
    third.commit()
    fourth = Leader(medium, "d")
    assert fourth.history == third.history
    assert fourth.replay.statistics.superseded_blocks == 1


def test_a_zombies_block_counts_as_long_as_nobody_continued_another(medium: AppendMedium) -> None:
    first = Leader(medium, "a")
    first.commit()
    second = Leader(medium, "b")
    Leader(medium, "c")
    write_in_vain(second)
    fourth = Leader(medium, "d")
    fourth.commit()
    assert [op.leader for op in replayed(medium) if hasattr(op, "leader")] == ["a", "b", "d"]


def test_a_leader_that_finds_a_newer_epoch_when_it_opens_the_log_is_deposed(
    medium: AppendMedium, monkeypatch: pytest.MonkeyPatch
) -> None:
    fence = AppendMedium.fence

    def overtaken(self: AppendMedium, epoch: int, leader: str) -> None:
        AppendMedium(Path(medium.location)).claim()
        fence(self, epoch, leader)

    monkeypatch.setattr(AppendMedium, "fence", overtaken)
    with pytest.raises(Deposed, match="epoch 1 is over: a newer leader claimed epoch 2"):
        OperationLog.open(medium, "slow")


def test_a_leader_that_reads_what_its_successor_has_trimmed_is_told_that_it_is_deposed(medium: AppendMedium) -> None:
    Leader(medium, "a").commit(2)
    slow = OperationLog.open(medium, "slow")
    replay = slow.replay()
    new = Leader(medium, "new")
    for _ in range(2):
        new.commit()
        new.snapshot()
    assert segment(medium, 1).exists() is False
    for lsn in medium.snapshots():
        medium.remove_snapshot(lsn)
    write_block(segment(medium, 1, 1), epoch=1, first_lsn=3)
    with pytest.raises(Deposed):
        list(replay)


def write_block(path: Path, *, epoch: int, first_lsn: int, previous_epoch: int = 1, checksum: int = 0) -> None:
    data, _ = encode_block(
        b"\x90", epoch=epoch, previous_epoch=previous_epoch, first_lsn=first_lsn, count=1, previous_checksum=checksum
    )
    path.write_bytes(data)


# Snapshots


def test_replay_begins_with_the_newest_snapshot(medium: AppendMedium) -> None:
    leader = Leader(medium)
    leader.commit(3)
    leader.snapshot()
    leader.commit(2)
    leader.snapshot()
    leader.commit(4)
    replay = Replay.newest(medium)
    assert replay.snapshot_lsn == 5
    assert contents(replay) == leader.history
    assert replay.statistics.operations == 4


def test_a_snapshot_in_the_middle_of_a_block_cuts_it(medium: AppendMedium) -> None:
    leader = Leader(medium)
    leader.commit(3)
    leader.snapshot()
    lsn_4 = Leader(medium, "b")
    lsn_4.commit(5)
    whole, lsn_4.history = lsn_4.history, lsn_4.history[:5]
    lsn_4.position, kept = Position(5), lsn_4.position
    lsn_4.snapshot()
    lsn_4.position, lsn_4.history = kept, whole
    lsn_4.commit()
    replay = Replay.newest(medium)
    assert replay.snapshot_lsn == 5
    assert contents(replay) == lsn_4.history


def test_a_damaged_snapshot_is_passed_over_and_told(medium: AppendMedium) -> None:
    leader = Leader(medium)
    for _ in range(3):
        leader.commit(2)
        leader.snapshot()
        leader.commit(1)
    change(Path(medium.location) / medium.describe_snapshot(8), 50)
    replay = Replay.newest(medium)
    assert replay.snapshot_lsn == 5
    assert contents(replay) == leader.history
    assert replay.statistics.notes == [
        "snapshots/00000000000000000008.snapshot was passed over: the checksum does not match"
    ]


def test_without_a_readable_snapshot_a_trimmed_log_is_damaged(medium: AppendMedium) -> None:
    leader = Leader(medium)
    for _ in range(3):
        leader.commit(2)
        leader.snapshot()
    leader.commit()
    for lsn in medium.snapshots():
        change(Path(medium.location) / medium.describe_snapshot(lsn), 50)
    with pytest.raises(CorruptedLog, match=r"LSN 5: .*LSN 1 to 4 are missing.*snapshots/.*6\.snapshot was passed over"):
        replayed(medium)


def test_a_log_that_ends_before_its_newest_snapshot_goes_on_from_that(medium: AppendMedium) -> None:
    """The end of the last segment is damaged, as a torn end would be, but a snapshot has what it held."""
    leader = Leader(medium)
    leader.commit(2)
    leader.snapshot()
    leader.commit(2)
    leader.snapshot()
    change(segment(medium, 1, 1), 60)
    successor = Leader(medium, "b")
    assert successor.history == leader.history
    successor.commit()
    assert replayed(medium) == successor.history


def test_a_log_that_ends_before_a_snapshot_that_cannot_be_read_is_damaged(medium: AppendMedium) -> None:
    leader = Leader(medium)
    leader.commit(2)
    leader.snapshot()
    leader.commit(2)
    leader.snapshot()
    change(segment(medium, 1, 1), 60)
    change(Path(medium.location) / medium.describe_snapshot(4), 50)
    with pytest.raises(CorruptedLog, match=r"LSN 3: .*a snapshot of LSN 4 was taken"):
        replayed(medium)


def test_payloads_that_a_snapshot_covers_are_not_read(medium: AppendMedium) -> None:
    leader = Leader(medium)
    leader.commit(2)
    leader.commit(2)
    leader.snapshot()
    leader.commit()
    change(segment(medium, 1), 60)
    assert replayed(medium) == leader.history


def test_a_snapshot_under_a_false_name_is_passed_over(medium: AppendMedium) -> None:
    leader = Leader(medium)
    leader.commit(2)
    leader.snapshot()
    leader.commit(1)
    path = Path(medium.location) / medium.describe_snapshot(2)
    path.rename(path.with_name(f"{3:020d}.snapshot"))
    replay = Replay.newest(medium)
    assert contents(replay) == leader.history
    assert "it holds LSN 2" in replay.statistics.notes[0]


# Trimming


def test_the_older_of_two_snapshots_and_all_behind_it_are_kept(medium: AppendMedium) -> None:
    leader = Leader(medium)
    for _ in range(4):
        leader.commit(2)
        leader.commit(1)
        leader.snapshot()
    leader.commit()
    assert medium.snapshots() == [9, 12]
    medium.remove_snapshot(12)
    replay = Replay.newest(medium)
    assert replay.snapshot_lsn == 9
    assert contents(replay) == leader.history


def test_an_unreadable_snapshot_is_not_relied_upon_in_trimming(medium: AppendMedium) -> None:
    leader = Leader(medium)
    leader.commit(2)
    leader.snapshot()
    leader.commit(2)
    leader.snapshot()
    change(Path(medium.location) / medium.describe_snapshot(4), 50)
    leader.commit(2)
    leader.snapshot()
    leader.commit()
    assert medium.snapshots() == [2, 4, 6]
    medium.remove_snapshot(6)
    medium.remove_snapshot(4)
    assert replayed(medium) == leader.history


def test_a_block_written_in_vain_does_not_count_in_trimming(medium: AppendMedium) -> None:
    first = Leader(medium, "a")
    first.commit()
    first.snapshot()
    zombie = Leader(medium, "zombie")
    write_in_vain(first)
    leader = Leader(medium, "c")
    assert len(leader.history) == 2
    with pytest.raises(Deposed):
        zombie.commit()
    leader.commit()
    leader.snapshot()
    medium.remove_snapshot(3)
    assert medium.snapshots() == [1]
    assert replayed(medium) == leader.history


def test_segments_that_a_snapshot_covers_are_not_read(medium: AppendMedium) -> None:
    leader = Leader(medium)
    leader.commit(2)
    leader.commit(2)
    leader.snapshot()
    leader.commit()
    change(segment(medium, 1), 5)
    assert replayed(medium) == leader.history


# Damage


def test_damage_is_told_from_a_torn_end_wherever_the_next_block_begins(
    medium: AppendMedium, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = Leader(medium)
    leader.commit(2)
    leader.commit(1)
    change(segment(medium, 1), 60)
    for size in range(1, 80):
        monkeypatch.setattr("flinkjob.oplog.reader._SCAN_BYTES", size)
        with pytest.raises(CorruptedLog, match="intact blocks follow"):
            replayed(medium)


def test_damage_before_intact_blocks_names_file_offset_and_lsn(medium: AppendMedium) -> None:
    leader = Leader(medium)
    leader.commit(3)
    offset = segment(medium, 1).stat().st_size
    leader.commit(2)
    leader.commit(2)
    change(segment(medium, 1), offset + 60)
    with pytest.raises(
        CorruptedLog,
        match=rf"damaged in oplog/0000000001\.000000\.log, offset {offset}, LSN 4: the payload's checksum .* intact blocks",
    ):
        replayed(medium)


def test_a_torn_end_that_the_next_epoch_does_not_continue_exactly_is_damage(medium: AppendMedium) -> None:
    first = Leader(medium, "a")
    first.commit(2)
    offset = segment(medium, 1).stat().st_size
    first.commit(2)
    Leader(medium, "b").commit()
    with segment(medium, 1).open("ab") as file:
        file.truncate(offset + 60)
    with pytest.raises(
        CorruptedLog, match=rf"offset {offset}, LSN 3: 8 bytes of the payload.*a later epoch goes on at LSN 5"
    ):
        replayed(medium)


def test_a_missing_segment_is_damage(medium: AppendMedium) -> None:
    leader = Leader(medium)
    for _ in range(3):
        leader.commit(2)
        leader.appender.roll()
    leader.commit()
    for number, lsn in ((1, 3), (0, 1)):
        data = segment(medium, 1, number).read_bytes()
        segment(medium, 1, number).unlink()
        with pytest.raises(CorruptedLog, match=rf"LSN {lsn}"):
            replayed(medium)
        segment(medium, 1, number).write_bytes(data)
    assert replayed(medium) == leader.history


def test_a_missing_epoch_is_damage(medium: AppendMedium) -> None:
    for name in ("a", "b", "c"):
        Leader(medium, name).commit(2)
    segment(medium, 2).unlink()
    with pytest.raises(CorruptedLog, match=r"LSN 5: .*LSN 1 to 4 are missing, of epoch 2"):
        replayed(medium)


def test_a_block_of_another_chain_is_damage(medium: AppendMedium, tmp_path: Path) -> None:
    for directory, name in ((tmp_path, "a"), (tmp_path / "other", "x")):
        leader = Leader(AppendMedium(directory), name)
        leader.commit(2)
        leader.appender.roll()
        leader.commit(2)
    segment(medium, 1, 1).write_bytes(segment(AppendMedium(tmp_path / "other"), 1, 1).read_bytes())
    with pytest.raises(CorruptedLog, match="LSN 3: the block continues another one"):
        replayed(medium)


def test_a_segment_under_a_false_name_is_damage(medium: AppendMedium) -> None:
    Leader(medium).commit()
    segment(medium, 1).rename(segment(medium, 2))
    with pytest.raises(CorruptedLog, match="a block of epoch 1 stands in a segment of another one"):
        replayed(medium)


def test_an_intact_block_of_what_are_no_operations_is_damage(medium: AppendMedium) -> None:
    Leader(medium)
    for payload, count in ((b"\x91\x91\x63", 1), (b"\x90", 1), (b"\xc1", 1), (b"\x91\x91\xa1\xff", 1)):
        data, _ = encode_block(payload, epoch=1, previous_epoch=0, first_lsn=1, count=count, previous_checksum=0)
        segment(medium, 1).write_bytes(data)
        with pytest.raises(CorruptedLog, match="LSN 1: "):
            replayed(medium)


def test_an_intact_header_that_makes_no_sense_is_damage(medium: AppendMedium) -> None:
    Leader(medium)
    write_block(segment(medium, 1), epoch=1, first_lsn=1, previous_epoch=2)
    with pytest.raises(CorruptedLog, match="makes no sense"):
        replayed(medium)


def test_a_log_of_a_later_format_is_not_called_damaged(medium: AppendMedium, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("flinkjob.oplog.format.FORMAT_VERSION", 2)
        Leader(medium).commit()
    with pytest.raises(UnsupportedStorage, match="version 2"):
        replayed(medium)


def test_a_segment_that_cannot_be_read_is_not_called_damaged(medium: AppendMedium) -> None:
    Leader(medium).commit()
    segment(medium, 1).unlink()
    segment(medium, 1).mkdir()
    with pytest.raises(LogUnavailable, match=r"oplog/0000000001\.000000\.log of the job at .* cannot be read"):
        replayed(medium)


def a_log_with_everything(medium: AppendMedium) -> list[Operation]:
    """Four epochs, segments, a torn end in the middle, a block written in vain by a leader that did nothing else."""
    first = Leader(medium, "a")
    first.commit(2)
    first.appender.roll()
    first.commit(1)
    first.commit(1)
    write_in_vain(first, 1, cut=30)
    zombie = Leader(medium, "zombie")
    second = Leader(medium, "b")
    second.commit(1)
    second.commit(2)
    third = Leader(medium, "c")
    third.commit(1)
    with pytest.raises(Deposed):
        zombie.commit(1)
    third.commit(2)
    return third.history


def a_log_with_snapshots(medium: AppendMedium) -> list[Operation]:
    """Two epochs and snapshots, the older ones trimmed."""
    first = Leader(medium, "a")
    for _ in range(3):
        first.commit(1)
        first.snapshot()
        first.commit(1)
    second = Leader(medium, "b")
    second.commit(1)
    second.commit(1)
    return second.history


def mutations(data: bytes) -> Iterator[tuple[str, bytes]]:
    for offset in range(len(data)):
        yield f"cut at {offset}", data[:offset]
        for mask in (0x01, 0xFF):
            yield f"{mask:#x} at {offset}", data[:offset] + bytes([data[offset] ^ mask]) + data[offset + 1 :]


@pytest.mark.parametrize("build", [a_log_with_everything, a_log_with_snapshots])
def test_no_byte_changed_or_cut_anywhere_ever_gives_other_operations_silently(
    medium: AppendMedium, build: Callable[[AppendMedium], list[Operation]]
) -> None:
    expected = build(medium)
    clean = Replay.newest(medium)
    assert contents(clean) == expected
    directory = Path(medium.location)
    last_block = max(medium.segments())
    outcomes = {"same": 0, "shorter": 0, "damaged": 0}
    for path in sorted([*directory.glob("oplog/*.log"), *directory.glob("snapshots/*")]):
        data = path.read_bytes()
        for what, changed in mutations(data):
            path.write_bytes(changed)
            replay = Replay.newest(medium)
            try:
                found = contents(replay)
            except FlinkJobError:
                outcomes["damaged"] += 1
                continue
            if found == expected:
                outcomes["same"] += 1
                continue
            # Only the end of the log may be lost, and that is told unless it was cut off between two blocks.
            outcomes["shorter"] += 1
            assert found == expected[: len(found)], f"{path.name}, {what}"
            assert path.name == medium.describe(last_block).split("/")[1], f"{path.name}, {what}"
            told = replay.statistics.torn_bytes > clean.statistics.torn_bytes
            assert told or what.startswith("cut"), f"{path.name}, {what}"
        path.write_bytes(data)
    assert all(outcomes.values())
