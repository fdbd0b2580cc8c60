"""What is particular to the medium on file systems: its files, and writes that the system refuses."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flinkjob.api.errors import CorruptedLog, Deposed
from flinkjob.oplog.append import AppendMedium
from flinkjob.oplog.medium import Segment
from flinkjob.oplog.replay import Replay

from .leaders import Leader, replayed


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Have the kernel refuse to let any file grow beyond a size: the write that would is cut short, the next one fails."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def files(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in (directory / "oplog").iterdir()}


def test_the_files_are_named_by_epoch_and_segment(tmp_path: Path) -> None:
    first = Leader(AppendMedium(tmp_path), "jm-1")
    first.commit()
    first.snapshot()
    assert files(tmp_path).keys() == {"0000000001.000000.log", "0000000001.000001.log", "0000000001.fence"}
    assert files(tmp_path)["0000000001.fence"] == 0
    assert [path.name for path in (tmp_path / "snapshots").iterdir()] == ["00000000000000000001.snapshot"]
    Leader(AppendMedium(tmp_path), "jm-2")
    assert (tmp_path / "oplog/0000000001.fence").read_text() == "2 jm-2\n"


def test_a_successor_changes_both_directories_so_that_an_nfs_client_lists_them_anew(tmp_path: Path) -> None:
    medium = AppendMedium(tmp_path)
    epoch = medium.claim()
    directories = (tmp_path / "oplog", tmp_path / "snapshots")
    for directory in directories:
        os.utime(directory, (0, 0))
    medium.fence(epoch, "jm-1")
    assert all(directory.stat().st_mtime > 0 for directory in directories)


def test_a_leader_whose_fence_file_is_gone_is_deposed(tmp_path: Path) -> None:
    leader = Leader(AppendMedium(tmp_path))
    (tmp_path / "oplog/0000000001.fence").unlink()
    with pytest.raises(Deposed, match="fence file is gone"):
        leader.commit()


def test_files_of_other_names_are_left_alone(tmp_path: Path) -> None:
    leader = Leader(AppendMedium(tmp_path))
    leader.commit()
    for name in ("oplog/notes.txt", "oplog/0000000009.000000.log.bak", "snapshots/README"):
        (tmp_path / name).write_text("mine")
    assert AppendMedium(tmp_path).segments() == [Segment(1, 0)]
    assert AppendMedium(tmp_path).snapshots() == []
    assert AppendMedium(tmp_path).claim() == 2


def test_after_a_short_write_the_block_is_repeated_in_a_new_segment(tmp_path: Path) -> None:
    leader = Leader(AppendMedium(tmp_path))
    leader.commit(3)
    with largest_file(files(tmp_path)["0000000001.000000.log"] + 20), pytest.raises(OSError, match="too large"):
        leader.commit(3)
    leader.commit(3)
    leader.commit(1)
    assert AppendMedium(tmp_path).segments() == [Segment(1, 0), Segment(1, 1)]
    replay = Replay.newest(AppendMedium(tmp_path))
    assert [op for ops in replay for op in ops] == leader.history
    assert replay.statistics.torn_bytes == 20


def test_a_disk_that_takes_nothing_leaves_no_trace(tmp_path: Path) -> None:
    leader = Leader(AppendMedium(tmp_path))
    leader.commit(3)
    with largest_file(files(tmp_path)["0000000001.000000.log"]):
        for _ in range(3):
            with pytest.raises(OSError, match="too large"):
                leader.commit(3)
    leader.commit(3)
    assert AppendMedium(tmp_path).segments() == [Segment(1, 0)]
    assert replayed(AppendMedium(tmp_path)) == leader.history


def test_a_block_whose_sync_failed_is_repeated_and_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leader = Leader(AppendMedium(tmp_path))
    leader.commit(3)

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output error"):
                leader.commit(2)
    leader.commit(2)
    leader.commit(1)
    replay = Replay.newest(AppendMedium(tmp_path))
    assert [op for ops in replay for op in ops] == leader.history
    assert replay.statistics.repeated_blocks == 2
    assert replay.statistics.torn_bytes == 0


def test_a_failed_write_never_takes_back_what_a_successor_may_have_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The block is in the file, its sync fails, a successor reads and continues it, and then the old leader tries again."""
    old = Leader(AppendMedium(tmp_path), "old")
    old.commit()

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError, match="Input/output error"):
            old.commit()
    new = Leader(AppendMedium(tmp_path), "new")
    assert len(new.history) == 2
    new.commit()
    with pytest.raises(Deposed):
        old.commit()
    assert replayed(AppendMedium(tmp_path)) == new.history


def test_half_written_snapshots_of_the_dead_are_cleaned_up_with_the_next_one(tmp_path: Path) -> None:
    leader = Leader(AppendMedium(tmp_path))
    leader.commit()
    (tmp_path / "snapshots/.00000000000000000001.snapshot.x1.tmp").write_bytes(b"half")
    leader.snapshot()
    assert [path.name for path in (tmp_path / "snapshots").iterdir()] == ["00000000000000000001.snapshot"]


def test_an_interrupted_setting_aside_leaves_a_log_that_still_reads_as_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        leader = Leader(AppendMedium(tmp_path), name)
        leader.commit(2)
        leader.snapshot()
        leader.commit(2)
    leader.commit(2)
    path = tmp_path / "oplog/0000000003.000001.log"
    path.write_bytes(path.read_bytes().replace(b"c", b"x", 1))
    medium = AppendMedium(tmp_path)
    epoch = medium.claim()
    rename = Path.rename
    done: list[Path] = []

    def rename_once(self: Path, target: Path) -> Path:
        if done:
            raise InterruptedError("killed")
        done.append(self)
        return rename(self, target)

    moves = len(medium.snapshots()) + len([segment for segment in medium.segments() if segment.epoch < epoch])
    for _ in range(moves - 1):
        with pytest.raises(CorruptedLog):
            replayed(medium)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", rename_once)
            with pytest.raises(InterruptedError):
                medium.set_aside(epoch)
        done.clear()
    with pytest.raises(CorruptedLog):
        replayed(medium)
    medium.set_aside(epoch)
    assert replayed(medium) == []
    assert len(list(tmp_path.glob("damaged-*/*/*"))) == moves
