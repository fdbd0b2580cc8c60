"""Tasks that misbehave in a real cluster: only they run again, the others never notice, and nobody is left behind."""

import os
from collections.abc import Iterator

import pytest

from local.clusters import (
    RESULT,
    GatedJob,
    Outcome,
    Run,
    alive,
    begun_once,
    check_nobody_is_left,
    check_undisturbed,
    eventually,
    everybody,
    get,
    operations,
    pids_of,
    storage_of,
)

from .conftest import Start
from .faults import MemoryLimit
from .unruly import pids_in, unruly

MEBIBYTE = 1 << 20


def after_the_deed(run: Run) -> Outcome:
    """Have the first subtask of the second vertex do its deed, wait until it runs again, and end the job."""
    before = run.in_second()
    assert set(before) == {(subtask, 0) for subtask in range(4)}
    run.job.open("deed")
    eventually(lambda: (0, 1) in run.job.starts("second"), "the task runs again")
    pids = everybody(run)
    outcome = run.finish()
    check_nobody_is_left(pids)
    assert outcome.code == 0, outcome.stderr
    assert outcome.report["outputs"] == RESULT
    assert begun_once(run.job.starts("first"))
    return outcome


def check_only_one_ran_again(run: Run, outcome: Outcome) -> str:
    """Nothing but the first subtask of the second vertex has a second attempt; the cause of that."""
    assert set(run.job.starts("second")) == {(0, 1), *((subtask, 0) for subtask in range(4))}
    assert begun_once(run.job.starts("second"), attempts=(0, 1))
    assert outcome.report["tasks"] == {"total": 7, "finished": 7, "restarted": 1}
    assert outcome.report["failovers"] == []
    (failed,) = (operation for operation in operations(run) if operation["operation"] == "TaskFailed")
    return str(failed["cause"])


def test_a_task_that_fails_is_the_only_one_that_runs_again(start: Start, job: GatedJob) -> None:
    unruly(job, "fails")
    run = start()
    outcome = after_the_deed(run)
    assert "the disk is purple" in check_only_one_ran_again(run, outcome)


def test_a_failure_is_not_forgotten_with_its_leader(start: Start, job: GatedJob) -> None:
    unruly(job, "fails")
    run = start(restart__strategy_fixed__delay_attempts="1")
    run.in_second()
    leader = run.leader()
    run.job.open("deed")
    eventually(lambda: (0, 1) in run.job.starts("second"), "the task runs again")
    os.kill(leader["pid"], 9)
    run.running("second", 4, epoch=2)
    (failed,) = (attempts for (subtask, attempt), attempts in run.job.starts("second").items() if attempt == 1)
    # The budget was one restart: the next failure is the job's.
    os.kill(failed[0].pid, 9)
    outcome = run.end()
    assert outcome.code == 1
    assert outcome.report["job"]["state"] == "FAILED"
    assert "SIGKILL" in outcome.report["job"]["cause"]


@pytest.fixture
def memory_limit() -> Iterator[MemoryLimit]:
    """A control group with little memory; skipped where none can be made."""
    try:
        limit = MemoryLimit.create(f"flinkjob-chaos-{os.getpid()}", 64 * MEBIBYTE)
    except OSError as error:
        pytest.skip(f"no control group with a limit of memory can be made here, which needs root: {error}")
    yield limit
    limit.remove()


def test_a_task_that_the_kernel_kills_for_memory_is_the_only_one_that_runs_again(
    start: Start, job: GatedJob, memory_limit: MemoryLimit
) -> None:
    unruly(job, "takes_all_memory", cgroup=str(memory_limit.members), bytes=4 * memory_limit.bytes)
    run = start()
    outcome = after_the_deed(run)
    cause = check_only_one_ran_again(run, outcome)
    assert "was killed by SIGKILL (perhaps it ran out of memory)" in cause
    assert memory_limit.kills() == 1


def test_a_task_that_is_killed_is_the_only_one_that_runs_again(start: Start, job: GatedJob) -> None:
    """By the signal that the kernel sends for want of memory, too."""
    unruly(job, "is_killed")
    run = start()
    outcome = after_the_deed(run)
    cause = check_only_one_ran_again(run, outcome)
    assert "was killed by SIGKILL (perhaps it ran out of memory)" in cause


def test_grandchildren_do_not_outlive_the_job(start: Start, job: GatedJob) -> None:
    unruly(job, "leaves_grandchildren")
    run = start()
    before = run.in_second()
    left = eventually(lambda: pids_in(job.path / "grandchildren", 12), "all tasks have left three processes each")
    assert all(alive(pid) for pid in left)
    outcome = run.finish()
    check_undisturbed(run, before, outcome)
    check_nobody_is_left(left)


def test_grandchildren_do_not_outlive_a_killed_taskmanager(start: Start, job: GatedJob) -> None:
    unruly(job, "leaves_grandchildren")
    run = start()
    before = run.in_second()
    left = eventually(lambda: pids_in(job.path / "grandchildren", 12), "all tasks have left three processes each")
    for entry in run.cluster()["taskmanagers"]:
        os.kill(entry["pid"], 9)
    check_nobody_is_left({*left, *pids_of(before)})
    eventually(lambda: len(run.job.starts("second")) == 8, "all tasks run again")
    outcome = run.finish()
    assert outcome.report["outputs"] == RESULT
    assert begun_once(run.job.starts("first"))


def test_tasks_that_hang_on_cancel_are_killed_and_run_again(start: Start, job: GatedJob) -> None:
    unruly(job, "hangs_on_cancel")
    run = start(task_cancellation_timeout="300 ms")
    before = run.in_second()
    # What the tasks are about to read is lost: its producer runs again, and so must all that may have read it.
    (partition,) = (storage_of(run) / "partitions").rglob("0-0-0")
    partition.unlink()
    run.job.open("deed")
    eventually(lambda: {(subtask, 1) for subtask in range(4)} <= {*run.job.starts("second")}, "all tasks run again")
    # A second attempt never runs beside the first.
    assert not any(alive(pid) for (subtask, _), (mark,) in before.items() if subtask for pid in (mark.pid,))
    pids = everybody(run)
    outcome = run.finish()
    check_nobody_is_left(pids)
    assert outcome.code == 0, outcome.stderr
    assert outcome.report["outputs"] == RESULT
    assert set(run.job.starts("first")) == {(0, 0), (0, 1), (1, 0)}
    assert set(run.job.starts("second")) == {(subtask, attempt) for subtask in range(4) for attempt in range(2)}
    assert begun_once(run.job.starts("second"), attempts=(0, 1))


def test_a_job_whose_tasks_hang_on_cancel_is_cancelled_all_the_same(start: Start, job: GatedJob) -> None:
    unruly(job, "hangs_on_cancel")
    run = start(task_cancellation_timeout="300 ms")
    before = run.in_second()
    pids = everybody(run)
    assert get(f"{run.leader()['rest']}/v1/jobs/{run.cluster()['job_id']}", method="PATCH") == {}
    outcome = run.end()
    check_nobody_is_left(pids)
    assert (outcome.code, outcome.report["job"]["state"]) == (1, "CANCELED")
    assert run.job.starts("second") == before
