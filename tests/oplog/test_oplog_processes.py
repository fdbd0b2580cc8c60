"""Leaders as real processes that are killed or stopped without warning."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flinkjob.graph.operations import EpochStarted
from flinkjob.oplog.inspect import show
from flinkjob.oplog.log import OperationLog
from flinkjob.oplog.storage import open_medium

pytestmark = pytest.mark.timeout(300)  # leaders write without a pause, and on a busy machine to a busy store

StartLeader = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture(params=["append", "s3", pytest.param("hdfs", marks=pytest.mark.hdfs)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a job's directory on each kind of store that processes can share."""
    if request.param == "append":
        return str(tmp_path)
    if request.param == "s3":
        request.getfixturevalue("s3_environment")
    return f"{request.getfixturevalue(f'{request.param}_url')}/job"


@pytest.fixture
def start_leader(url: str) -> Iterator[StartLeader]:
    leaders: list[subprocess.Popen[str]] = []

    def start(name: str) -> "subprocess.Popen[str]":
        program = Path(__file__).with_name("acknowledging.py")
        leader = subprocess.Popen([sys.executable, str(program), url, name], stdout=subprocess.PIPE, text=True)
        leaders.append(leader)
        return leader

    yield start
    for leader in leaders:
        leader.kill()
        leader.wait()
        assert leader.stdout is not None
        leader.stdout.close()


def read_lines(leader: "subprocess.Popen[str]", count: int) -> list[str]:
    assert leader.stdout is not None
    return [leader.stdout.readline().strip() for _ in range(count)]


def last_acknowledged(lines: list[str]) -> int:
    return int([line for line in lines if line.isdigit()][-1])


def test_all_that_a_killed_leader_acknowledged_is_replayed_by_the_next(url: str, start_leader: StartLeader) -> None:
    for term in range(4):
        leader = start_leader(f"jm-{term}")
        lines = read_lines(leader, 30)
        leader.kill()
        rest, _ = leader.communicate()
        # A line that was cut off by the kill tells nothing; a whole one does.
        acknowledged = last_acknowledged(lines + rest.split("\n")[:-1])
        replay = OperationLog.open(open_medium(url), "successor").replay()
        lsn = replay.snapshot_lsn
        for operations in replay:
            for operation in operations:
                lsn += 1
                assert isinstance(operation, EpochStarted)
                assert operation.epoch == lsn
        assert lsn >= acknowledged
    assert len(open_medium(url).snapshots()) == 2


def test_a_leader_that_was_stopped_acknowledges_nothing_after_its_successor_has_begun(
    url: str, start_leader: StartLeader
) -> None:
    zombie = start_leader("zombie")
    read_lines(zombie, 5)
    zombie.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, zombie.pid, os.WSTOPPED)
    successor = start_leader("successor")
    [first, *_] = read_lines(successor, 5)
    zombie.send_signal(signal.SIGCONT)
    assert zombie.stdout is not None
    said = zombie.stdout.read().split()
    assert said[-1] == "Deposed"
    # What it had acknowledged before it was stopped may still have been in its pipe; all of that came before the successor.
    assert all(int(lsn) < int(first) for lsn in said[:-1])
    read_lines(successor, 5)
    successor.kill()
    successor.wait()
    # On HDFS the whole of a file can be read once its leader has been fenced.
    OperationLog.open(open_medium(url), "reader")
    leaders = [operation.leader for _, _, operation in show(open_medium(url)) if isinstance(operation, EpochStarted)]
    assert sorted(leaders, key=["zombie", "successor"].index) == leaders
    assert leaders[-1] == "successor"
