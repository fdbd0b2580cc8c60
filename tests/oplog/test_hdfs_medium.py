"""What is particular to the medium on HDFS, on a real NameNode and DataNode."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hdfs_native import Client

from flinkjob.api.errors import CorruptedLog, Deposed
from flinkjob.oplog.hdfs import HdfsAppender, HdfsMedium
from flinkjob.oplog.hdfsfiles import HdfsDirectory
from flinkjob.oplog.log import OperationLog
from flinkjob.oplog.medium import Segment
from flinkjob.oplog.replay import Replay
from stores.hadoop import Hdfs

from .leaders import Leader, contents

pytestmark = pytest.mark.hdfs


def names(url: str, directory: str) -> set[str]:
    return set(HdfsDirectory(url).names(directory, recursive=True))


def retry(commit: Callable[[], None]) -> int:
    """Commit as the log's writer does: the same block again and again until it is durable. How often that failed."""
    failures = 0
    deadline = time.monotonic() + 60
    while True:
        try:
            commit()
        except OSError:
            assert time.monotonic() < deadline
            failures += 1
            time.sleep(0.1)
        else:
            return failures


def test_the_files_are_named_by_epoch_and_segment(hdfs_url: str) -> None:
    first = Leader(HdfsMedium(hdfs_url), "jm-1")
    first.commit()
    first.snapshot()
    files = {"0000000001.000000.log", "0000000001.000001.log", "0000000001.fence"}
    assert names(hdfs_url, "oplog") == files
    assert names(hdfs_url, "snapshots") == {"00000000000000000001.snapshot"}
    Leader(HdfsMedium(hdfs_url), "jm/2")
    assert names(hdfs_url, "oplog") - files == {
        "0000000001.fence/2 jm%2F2",
        "0000000002.000000.log",
        "0000000002.fence",
    }


def test_hdfs_itself_shuts_a_zombie_out_whose_lease_was_recovered(hdfs_url: str) -> None:
    """Not our looking at the fence, which the zombie might have done long before."""
    zombie = Leader(HdfsMedium(hdfs_url), "zombie")
    zombie.commit(2)
    assert isinstance(zombie.appender, HdfsAppender)
    file = zombie.appender._file
    assert file is not None
    new = Leader(HdfsMedium(hdfs_url), "new")
    assert new.history == zombie.history
    block, _, _ = zombie.block(1)
    file.write(block)
    with pytest.raises(RuntimeError, match="All nodes failed"):
        file.hsync()
    new.commit()
    for _ in range(3):
        with pytest.raises(Deposed, match="epoch 1 is over: a newer leader claimed epoch 2 new"):
            zombie.commit()
    assert Leader(HdfsMedium(hdfs_url)).history == new.history


def test_a_zombie_that_opens_its_file_late_sees_that_it_has_been_fenced(hdfs_url: str) -> None:
    for first_commit in (False, True):
        zombie = Leader(HdfsMedium(hdfs_url), "zombie")
        if first_commit:
            zombie.commit()
            zombie.appender._clean = False  # type: ignore[attr-defined]  # as after a failed write: it opens a new segment
        new = Leader(HdfsMedium(hdfs_url), "new")
        with pytest.raises(Deposed):
            zombie.commit()
        assert new.history[: len(zombie.history)] == zombie.history


def test_a_successor_waits_until_hdfs_has_closed_the_file(hdfs_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old = Leader(HdfsMedium(hdfs_url), "old")
    old.commit(2)
    medium = HdfsMedium(hdfs_url)
    epoch = medium.claim()
    with monkeypatch.context() as patch:
        patch.setattr("flinkjob.oplog.hdfs.RECOVERY_DEADLINE", 0.5)
        patch.setattr(HdfsDirectory, "recover_lease", lambda self, name: False)
        with pytest.raises(OSError, match=r"HDFS has not closed oplog/0000000001\.000000\.log in 0\.5 s"):
            medium.fence(epoch, "new")
    medium.fence(epoch, "new")
    assert contents(Replay.newest(medium, below_epoch=epoch)) == old.history


def test_a_fenced_leaders_file_that_cannot_be_read_whole_is_no_short_log(hdfs_url: str) -> None:
    """Should somebody write to it all the same, an error is better than a history without its end."""
    old = Leader(HdfsMedium(hdfs_url), "old")
    old.commit(2)
    medium = HdfsMedium(hdfs_url)
    medium._fenced_below = 2
    with pytest.raises(OSError, match="is being written to"):
        medium.open_segment(Segment(1, 0))


def test_a_file_that_is_being_written_to_can_be_looked_at_as_far_as_it_goes(hdfs_url: str) -> None:
    old = Leader(HdfsMedium(hdfs_url), "old")
    old.commit(2)
    with HdfsMedium(hdfs_url).open_segment(Segment(1, 0)) as file:
        assert file.read() == b""


def test_no_file_is_left_half_written(hdfs_url: str) -> None:
    directory = HdfsDirectory(hdfs_url)
    directory.create("jobgraph", b"first")
    with pytest.raises(FileExistsError):
        directory.create("jobgraph", b"second")
    directory.put("jobgraph", b"third")
    assert directory.read("jobgraph") == b"third"
    assert names(hdfs_url.rpartition("/")[0], hdfs_url.rpartition("/")[2]) == {"jobgraph"}


def test_half_written_snapshots_of_the_dead_are_cleaned_up_with_the_next_one(hdfs_url: str) -> None:
    leader = Leader(HdfsMedium(hdfs_url))
    leader.commit()
    HdfsDirectory(hdfs_url).create_open("snapshots/.00000000000000000001.snapshot.x1.tmp").close()
    leader.snapshot()
    assert names(hdfs_url, "snapshots") == {"00000000000000000001.snapshot"}


def test_what_was_set_aside_can_still_be_looked_at(hdfs_url: str) -> None:
    old = Leader(HdfsMedium(hdfs_url), "old")
    old.commit(2)
    old.snapshot()
    old.commit(1)
    log = OperationLog.open(HdfsMedium(hdfs_url), "new")
    place = log.set_aside()
    assert contents(log.replay()) == []
    assert contents(Replay.newest(HdfsMedium(place))) == old.history


def test_damage_in_the_middle_is_told(hdfs_url: str) -> None:
    leader = Leader(HdfsMedium(hdfs_url))
    leader.commit(2)
    leader.commit(2)
    directory = HdfsDirectory(hdfs_url)
    medium = HdfsMedium(hdfs_url)
    medium.fence(medium.claim(), "new")
    data = bytearray(directory.read("oplog/0000000001.000000.log"))
    data[60] ^= 1
    directory.put("oplog/0000000001.000000.log", bytes(data))
    with pytest.raises(CorruptedLog, match=r"0000000001\.000000\.log, offset 0"):
        contents(Replay.newest(medium))


def test_errors_are_one_line(hdfs_url: str) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        HdfsDirectory(hdfs_url).read("none")
    assert "\n" not in str(missing.value)


def test_a_datanode_that_was_killed_and_comes_back_loses_nothing(hdfs: Hdfs, hdfs_url: str) -> None:
    leader = Leader(HdfsMedium(hdfs_url), "old")
    leader.commit(3)
    hdfs.kill_datanode()
    with pytest.raises(OSError, match=r"."):
        leader.commit(2)
    back = threading.Thread(target=hdfs.start_datanode)
    back.start()
    retry(lambda: leader.commit(2))
    back.join()
    leader.commit(1)
    leader.snapshot()
    leader.commit(1)
    deadline = time.monotonic() + 60
    while True:  # a file whose only copy has just come back is readable a little later
        try:
            new = Leader(HdfsMedium(hdfs_url), "new")
            break
        except OSError:
            assert time.monotonic() < deadline
    assert new.history == leader.history


def test_the_root_of_the_file_system_needs_no_host(hdfs: Hdfs, hdfs_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = HdfsDirectory(hdfs_url)
    directory.create("name", b"data")
    path = hdfs_url.removeprefix(hdfs.url)
    assert HdfsDirectory(f"hdfs://{path}").read("name") == b"data"
    assert Client().get_file_info(f"{path}/name").length == 4


def test_the_medium_is_hdfss_for_its_scheme(hdfs_url: str, tmp_path: Path) -> None:
    from flinkjob.oplog.storage import JobStorage

    assert isinstance(JobStorage(f"{hdfs_url}/").medium(), HdfsMedium)
