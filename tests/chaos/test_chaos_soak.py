"""A short soak, and whether its checks would see what they look for. ``make soak MINUTES=…`` is the long one."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flinkjob.graph import operations as ops
from flinkjob.graph.states import ExecutionState
from flinkjob.oplog.append import AppendMedium
from oplog.leaders import Leader

from .soak import soak
from .soakchecks import SAMPLES, Deeds, FollowedLog, OpenFiles, finished_again, litter, undue_failures

BEGUN: list[ops.Operation] = [
    ops.EpochStarted(1, "jm-0", 1),
    ops.TaskManagerRegistered("tm-0", "tm-0:1", 2, 2),
    ops.TaskManagerRegistered("tm-1", "tm-1:1", 2, 2),
    ops.TaskDeploying(0, 0, 0, 1, 3),
    ops.TaskStateChanged(0, 0, 0, ExecutionState.RUNNING, 4),
]
LOST: ops.Operation = ops.TaskFailed(0, 0, 0, 10, "TaskManager tm-1 is lost: killed by SIGKILL")
RESET: ops.Operation = ops.TasksReset(0, (0,), 11)


@pytest.mark.timeout(600)
def test_random_faults_lose_nothing_and_leave_nothing(tmp_path: Path) -> None:
    report = soak(seconds=10, seed=20, every=2.5, directory=tmp_path)
    assert not report.problems, str(report)
    assert report.finished_again == report.begun_twice == report.undue_failures == report.leaks == 0
    assert report.operations > 0
    assert report.faults.total() > 0
    assert list(tmp_path.iterdir()) == []


def test_a_finished_task_that_runs_again_is_seen() -> None:
    finished = [*BEGUN, ops.TaskFinished(0, 0, 0, 5)]
    assert finished_again(finished) == []
    assert finished_again([*finished, RESET]) == [(0, 0)]
    assert finished_again([*finished, ops.TaskDeploying(0, 0, 1, 0, 12)]) == [(0, 0)]


@pytest.mark.parametrize(
    ("deeds", "due"),
    [
        (Deeds(killed={"tm-1": 10}), True),
        (Deeds(killed={"tm-1": 11}), False),  # killed later: that excuses nothing
        (Deeds(killed={"tm-0": 5}), False),  # another one was killed
        (Deeds(), False),
        (Deeds(told_to_fail={(0, 0, 0)}), False),  # it was, but that is not why it failed
    ],
)
def test_a_running_task_that_fails_without_need_is_seen(deeds: Deeds, due: bool) -> None:
    assert (undue_failures([*BEGUN, LOST, RESET], deeds) == []) == due


def test_another_cause_than_the_kill_is_seen() -> None:
    told = [*BEGUN, ops.TaskFailed(0, 0, 0, 20, "not consistent: it is not there"), RESET]
    assert undue_failures(told, Deeds(killed={"tm-1": 10})) != []


def test_a_task_that_was_told_to_fail_may_and_only_that_attempt() -> None:
    def told(attempt: int) -> list[ops.Operation]:
        failed = ops.TaskFailed(0, 0, attempt, 30, "RuntimeError: told to fail")
        return [*BEGUN, LOST, RESET, ops.TaskDeploying(0, 0, 1, 0, 12), failed] if attempt else [*BEGUN, failed]

    deeds = Deeds(killed={"tm-1": 10}, told_to_fail={(0, 0, 1)})
    assert undue_failures(told(1), deeds) == []
    assert undue_failures(told(0), deeds) != []


def test_a_reset_of_what_has_not_failed_is_seen() -> None:
    assert undue_failures([*BEGUN, RESET], Deeds(killed={"tm-1": 1})) == ["(0, 0) was reset and had not failed"]


def test_a_log_is_followed_from_its_first_operation_though_it_is_trimmed(tmp_path: Path) -> None:
    log = FollowedLog(tmp_path / "job" / "oplog")
    leader = Leader(AppendMedium(tmp_path / "job"))
    for _ in range(4):
        leader.commit(2)
        log.follow()
        leader.snapshot()
    leader.commit()
    assert len(list((tmp_path / "job" / "oplog").glob("*.log"))) < 5
    assert log.operations(tmp_path / "followed") == leader.history
    log.close()


def test_a_log_whose_beginning_was_missed_is_told(tmp_path: Path) -> None:
    leader = Leader(AppendMedium(tmp_path / "job"))
    for _ in range(4):
        leader.commit(2)
        leader.snapshot()
    log = FollowedLog(tmp_path / "job" / "oplog")
    with pytest.raises(Exception, match="LSN"):
        log.operations(tmp_path / "followed")
    log.close()


@pytest.fixture
def opener() -> Iterator["subprocess.Popen[str]"]:
    """A process that opens ten more files for each line that it is sent, and then says so."""
    program = (
        "import sys, os\nfor line in sys.stdin:\n [os.open('/', 0) for _ in range(10)]\n print('done', flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def test_a_process_that_opens_more_and_more_files_is_seen(opener: "subprocess.Popen[str]") -> None:
    files = OpenFiles()
    for look in range(3 * SAMPLES):
        files.look([opener.pid])
        if look == SAMPLES:
            assert files.leaks() == []
            assert opener.stdin is not None
            assert opener.stdout is not None
            print("more", file=opener.stdin, flush=True)
            assert opener.stdout.readline() == "done\n"
    (leak,) = files.leaks()
    assert f"process {opener.pid} had" in leak


def test_what_is_left_behind_is_seen_but_for_what_the_killed_could_not_remove(tmp_path: Path) -> None:
    for taskmanager in ("tm-0", "tm-1"):
        (tmp_path / "work" / taskmanager / "slot-0").mkdir(parents=True)
    unfinished = tmp_path / "storage" / ".result.x.tmp"
    unfinished.parent.mkdir()
    unfinished.touch()
    left, unexcused = tmp_path / "work" / "tm-1" / "slot-0", [tmp_path / "work" / "tm-0" / "slot-0"]
    assert sorted(litter(tmp_path, Deeds())) == sorted([*unexcused, left, unfinished])
    assert litter(tmp_path, Deeds(killed={"tm-1": 1}, kills=1)) == unexcused
