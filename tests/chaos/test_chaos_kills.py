"""kill -9 of several at once, whoever keeps the cluster excepted (tests/local kills that one, too)."""

import os
import signal

from local.clusters import (
    RESULT,
    begun_once,
    check_nobody_is_left,
    check_undisturbed,
    eventually,
    everybody,
    kill,
    pids_of,
)

from .conftest import Start


def test_all_jobmanagers_die_at_once(start: Start) -> None:
    run = start("--jobmanagers", "3")
    before = run.in_second()
    # The leader last: else a standby might lead for a moment before it dies.
    for entry in sorted(run.cluster()["jobmanagers"], key=lambda entry: bool(entry["leader"])):
        kill(entry)
    run.running("second", 4, epoch=2)
    pids = everybody(run)
    outcome = run.finish()
    check_undisturbed(run, before, outcome)
    (failover,) = outcome.report["failovers"]
    assert failover["verdicts"]["continued"] == 4
    check_nobody_is_left(pids)


def test_leader_standby_and_a_taskmanager_die_at_once(start: Start) -> None:
    run = start()
    before = run.in_second()
    taskmanager = run.cluster()["taskmanagers"][0]
    lost = {subtask for (subtask, _), (mark,) in before.items() if mark.taskmanager == taskmanager["pid"]}
    for entry in (taskmanager, run.standby(), run.leader()):
        kill(entry)
    run.running("second", 4, epoch=2)
    pids = everybody(run)
    outcome = run.finish()
    assert outcome.code == 0, outcome.stderr
    assert outcome.report["outputs"] == RESULT
    assert set(run.job.starts("second")) == {*before, *((subtask, 1) for subtask in lost)}
    assert begun_once(run.job.starts("second"), attempts=(0, 1))
    assert begun_once(run.job.starts("first"))
    (failover,) = outcome.report["failovers"]
    assert (failover["verdicts"]["continued"], failover["verdicts"]["restarted"]) == (2, 2)
    assert {told["task"] for told in failover["restarted"]} == {f"second[{subtask}]" for subtask in lost}
    check_nobody_is_left(pids)


def test_everybody_dies_at_once_and_finished_tasks_stay_finished(start: Start) -> None:
    run = start()
    before = run.in_second()
    for entry in (*run.cluster()["taskmanagers"], run.standby(), run.leader()):
        kill(entry)
    check_nobody_is_left(set(pids_of(before)))
    run.running("second", 4, epoch=2)
    eventually(lambda: len(run.job.starts("second")) == 8, "all running tasks run again")
    pids = everybody(run)
    outcome = run.finish()
    assert outcome.code == 0, outcome.stderr
    assert outcome.report["outputs"] == RESULT
    assert begun_once(run.job.starts("first"))
    assert set(run.job.starts("second")) == {(subtask, attempt) for subtask in range(4) for attempt in range(2)}
    assert begun_once(run.job.starts("second"), attempts=(0, 1))
    assert outcome.report["tasks"] == {"total": 7, "finished": 7, "restarted": 4}
    check_nobody_is_left(pids)


def test_a_taskmanager_that_was_only_stopped_keeps_its_tasks(start: Start) -> None:
    run = start()
    before = run.in_second()
    stopped = run.cluster()["taskmanagers"]
    leader = run.leader()
    for entry in stopped:
        kill(entry, signal.SIGSTOP)
    try:
        os.kill(leader["pid"], signal.SIGKILL)
        run.leader(not_pid=leader["pid"])
    finally:
        for entry in stopped:
            kill(entry, signal.SIGCONT)
    run.running("second", 4, epoch=2)
    check_undisturbed(run, before, run.finish())
