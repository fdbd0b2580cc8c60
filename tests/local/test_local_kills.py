"""kill -9 of each part of a real cluster, at the moment when tasks run: who goes on, who runs again, and what is told."""

import signal

from .clusters import RESULT, alive, begun_once, check_undisturbed, eventually, kill, operations, pids_of, says
from .conftest import Start


def test_the_leaders_death_changes_nothing_but_the_epoch(start: Start) -> None:
    """Blink ``BatchWithFinishedTaskITCase``, too: the first vertex has finished, and nothing of it is run again."""
    run = start()
    before = run.in_second()
    dead = run.leader()
    kill(dead)
    leader = run.leader(but=dead["id"])
    assert all(alive(pid) for pid in pids_of(before))
    outcome = run.finish()
    check_undisturbed(run, before, outcome)
    (failover,) = outcome.report["failovers"]
    assert failover["verdicts"] == {"continued": 4, "advanced": 0, "redeployed": 0, "restarted": 0, "orphaned": 0}
    assert failover["restarted"] == []
    assert (failover["epoch"], failover["leader"]) == (2, leader["id"])
    assert failover["cause"] == "its process was killed by SIGKILL"
    assert failover["replayed_operations"] > 0
    for told in ("detected_ms", "replay_ms", "reconcile_ms", "gap_ms"):
        assert failover[told] >= 0
    assert {operation["epoch"] for operation in operations(run)} == {1, 2}


def test_batch(start: Start) -> None:
    """Blink ``BatchITCase``: the leader dies while the sources run, and all of them go on."""
    run = start()
    run.running("first", 2)
    before = run.job.starts("first")
    kill(run.leader())
    run.running("first", 2, epoch=2)
    assert run.job.starts("first") == before
    outcome = run.finish()
    check_undisturbed(run, run.job.starts("second"), outcome)
    assert run.job.starts("first") == before
    (failover,) = outcome.report["failovers"]
    assert failover["verdicts"] == {"continued": 2, "advanced": 0, "redeployed": 0, "restarted": 0, "orphaned": 0}


def test_batch_with_task_failover(start: Start) -> None:
    """Blink ``BatchWithTaskFailoverITCase``: the leader dies, and a TaskManager once the next one has begun. It costs one
    restart, and that is all that the budget has.
    """
    run = start(restart__strategy_fixed__delay_attempts="1")
    before = run.in_second()
    dead = run.cluster()["taskmanagers"][0]
    kill(run.leader())
    run.running("second", 4, epoch=2)
    kill(dead)
    eventually(lambda: len(run.job.starts("second")) == 6, "the lost tasks run again")
    outcome = run.finish()
    assert outcome.code == 0, outcome.stderr
    assert outcome.report["outputs"] == RESULT
    lost = {subtask for (subtask, _), (mark,) in before.items() if mark.taskmanager == dead["pid"]}
    after = run.job.starts("second")
    assert set(after) == {*before, *((subtask, 1) for subtask in lost)}
    assert before.items() <= after.items()
    assert begun_once(after, attempts=(0, 1))
    assert begun_once(run.job.starts("first"))
    (failover,) = outcome.report["failovers"]
    assert failover["verdicts"]["continued"] == 4
    assert len([op for op in operations(run) if op["operation"] == "RestartScheduled"]) == 1


def test_a_task_that_finishes_without_a_leader_is_not_run_again(start: Start) -> None:
    run = start("--jobmanagers", "1")
    before = run.in_second()
    # The only JobManager is stopped while the tasks end, then it dies: their reports are for its successor.
    leader = run.leader()
    kill(leader, signal.SIGSTOP)
    run.job.open("second")
    (storage,) = (run.state / "storage" / "default").iterdir()
    eventually(lambda: len(list((storage / "partitions").rglob("*-0"))) >= 6 or None, "all partitions are there")
    kill(leader)
    outcome = run.finish()
    check_undisturbed(run, before, outcome)
    (failover,) = outcome.report["failovers"]
    assert failover["verdicts"]["continued"] + failover["verdicts"]["advanced"] == 4


def test_the_standbys_death_is_nothing_to_the_job(start: Start) -> None:
    run = start()
    before = run.in_second()
    standby = run.standby()
    kill(standby)
    eventually(
        lambda: [
            entry
            for entry in (run.cluster() or {"jobmanagers": []})["jobmanagers"]
            if entry["id"] == standby["id"] and entry["pid"] != standby["pid"] and entry["rest"] == standby["rest"]
        ],
        "the standby is replaced under its name and address",
    )
    outcome = run.finish()
    check_undisturbed(run, before, outcome)
    assert outcome.report["failovers"] == []
    assert f"JobManager {standby['id']} is gone: its process was killed by SIGKILL" in outcome.stderr


def test_only_the_tasks_of_a_dead_taskmanager_run_again(start: Start) -> None:
    run = start()
    before = run.in_second()
    dead = run.cluster()["taskmanagers"][0]
    lost = {subtask for (subtask, _), (mark,) in before.items() if mark.taskmanager == dead["pid"]}
    assert len(lost) == 2
    kill(dead)
    run.running("second", 4)
    eventually(lambda: len(run.job.starts("second")) == 6, "the lost tasks run again")
    cluster = run.cluster()
    names = {entry["id"] for entry in cluster["taskmanagers"]}
    assert dead["id"] not in names
    assert cluster["ended"] == {dead["id"]: "its process was killed by SIGKILL"}
    outcome = run.finish()
    assert outcome.code == 0
    assert outcome.report["outputs"] == RESULT
    after = run.job.starts("second")
    assert set(after) == {(subtask, 0) for subtask in range(4)} | {(subtask, 1) for subtask in lost}
    assert begun_once(after, attempts=(0, 1))
    assert begun_once(run.job.starts("first"))
    assert outcome.report["failovers"] == []
    assert outcome.report["tasks"]["restarted"] == 2
    assert not any(alive(pid) for pid in pids_of(after))


def test_leader_and_taskmanager_die_at_once(start: Start) -> None:
    run = start()
    before = run.in_second()
    leader, taskmanager = run.leader(), run.cluster()["taskmanagers"][1]
    lost = {subtask for (subtask, _), (mark,) in before.items() if mark.taskmanager == taskmanager["pid"]}
    kill(leader)
    kill(taskmanager)
    run.leader(not_pid=leader["pid"])
    run.running("second", 4, epoch=2)
    outcome = run.finish()
    assert outcome.code == 0
    assert outcome.report["outputs"] == RESULT
    assert set(run.job.starts("second")) == {*before, *((subtask, 1) for subtask in lost)}
    (failover,) = outcome.report["failovers"]
    assert failover["verdicts"]["continued"] == 2
    assert failover["verdicts"]["restarted"] == 2
    assert {told["task"] for told in failover["restarted"]} == {f"second[{subtask}]" for subtask in lost}
    assert all(taskmanager["id"] in told["reason"] for told in failover["restarted"])


def test_two_leaders_die_in_a_row(start: Start) -> None:
    run = start()
    before = run.in_second()
    for epoch in (2, 3):
        kill(run.leader())
        run.running("second", 4, epoch=epoch)
    outcome = run.finish()
    check_undisturbed(run, before, outcome)
    assert [failover["epoch"] for failover in outcome.report["failovers"]] == [2, 3]
    assert [failover["verdicts"]["continued"] for failover in outcome.report["failovers"]] == [4, 4]


def test_the_leader_dies_while_it_reconciles(start: Start) -> None:
    run = start()
    before = run.in_second()
    first, silent = run.leader(), run.cluster()["taskmanagers"][0]
    # A TaskManager that says nothing keeps the second leader reconciling.
    kill(silent, signal.SIGSTOP)
    try:
        kill(first)
        eventually(
            lambda: (view := run.progress()) and view["epoch"] == 2 and view["state"] == "RECONCILING",
            "the second leader reconciles",
        )
        kill(run.leader(not_pid=first["pid"]))
        eventually(lambda: (view := run.progress()) and view["epoch"] == 3, "the third one leads")
    finally:
        kill(silent, signal.SIGCONT)
    run.running("second", 4, epoch=3)
    outcome = run.finish()
    check_undisturbed(run, before, outcome)
    (failover,) = outcome.report["failovers"]
    assert (failover["epoch"], failover["verdicts"]["continued"]) == (3, 4)


def test_a_leader_that_is_told_to_stop_hands_over(start: Start) -> None:
    run = start()
    before = run.in_second()
    stopped = run.leader()
    kill(stopped, signal.SIGTERM)
    run.running("second", 4, epoch=2)
    outcome = run.finish()
    check_undisturbed(run, before, outcome)
    (failover,) = outcome.report["failovers"]
    assert failover["verdicts"]["continued"] == 4


def test_a_zombie_leader_has_no_say(start: Start) -> None:
    election = "high__availability_kubernetes_leader__election_"
    run = start(
        **{election + "lease__duration": "4 s", election + "renew__deadline": "3 s", election + "retry__period": "1 s"},
        heartbeat_timeout="3 s",
    )
    before = run.in_second()
    zombie = run.leader()
    kill(zombie, signal.SIGSTOP)
    try:
        run.leader(but=zombie["id"])
        run.running("second", 4, epoch=2)
    finally:
        kill(zombie, signal.SIGCONT)
    eventually(lambda: says(run, zombie) == (False, run.leader()["id"]), "the zombie has learnt who leads")
    outcome = run.finish()
    check_undisturbed(run, before, outcome)
    assert [failover["verdicts"]["continued"] for failover in outcome.report["failovers"]] == [4]
    epochs = [operation["epoch"] for operation in operations(run)]
    assert epochs == sorted(epochs)
    assert set(epochs) == {1, 2}
