"""What the core of a TaskManager does about each event."""

import pytest

from flinkjob.graph.operations import InputSplit, ResultPartition
from flinkjob.graph.states import ExecutionState
from flinkjob.worker import events as ev
from flinkjob.worker import protocol as msg
from flinkjob.worker.taskexecutor import EXIT_NO_LEADER, EXIT_OK
from worker.executors import (
    GRACE,
    HEARTBEAT_INTERVAL,
    HEARTBEAT_TIMEOUT,
    RECONNECTION_TIMEOUT,
    Bench,
    attempt,
    deploy,
    only,
    registered,
    reports,
    states,
)

RUNNING, FINISHED, FAILED = ExecutionState.RUNNING, ExecutionState.FINISHED, ExecutionState.FAILED
DEPLOYING, CANCELED = ExecutionState.DEPLOYING, ExecutionState.CANCELED


@pytest.fixture
def bench() -> Bench:
    """Registered with the leader of epoch 1, two slots, nothing to do."""
    bench = Bench()
    bench.join()
    return bench


def test_a_connection_begins_with_a_registration_of_all_that_is_held(bench: Bench) -> None:
    bench.tell(deploy(1, attempt(0), attempt(1), attempt(2)), ev.Started(attempt(0)), ev.Finished(attempt(1)))
    bench.tell(ev.ConnectionLost())
    [send] = only(ev.Send, bench.tell(ev.Connected()))
    assert isinstance(send.message, msg.Register)
    assert (send.message.id, send.message.job, send.message.address, send.message.slots) == ("tm", "job", "here", 2)
    assert sorted(states([send])) == [(0, RUNNING), (1, FINISHED), (2, DEPLOYING)]


def test_deployments_beyond_the_slots_start_in_order_as_slots_become_free(bench: Bench) -> None:
    effects = bench.tell(deploy(1, *map(attempt, range(4))))
    assert [start.deployment.attempt.subtask for start in only(ev.StartAttempt, effects)] == [0, 1]
    assert bench.executor.queued == 2
    [start] = only(ev.StartAttempt, bench.tell(ev.Finished(attempt(1))))
    assert start.deployment.attempt == attempt(2)
    assert bench.executor.slots[start.slot] == attempt(2)


def test_a_started_attempt_is_reported_once(bench: Bench) -> None:
    bench.tell(deploy(1, attempt(0)))
    assert states(bench.tell(ev.Started(attempt(0)))) == [(0, RUNNING)]
    assert bench.tell(ev.Started(attempt(0))) == []


def test_the_ends_of_attempts_are_reported_with_what_they_left(bench: Bench) -> None:
    bench.tell(deploy(1, attempt(0), attempt(1)))
    partition = ResultPartition(10, 2, 3)
    assert reports(bench.tell(ev.Finished(attempt(0), partition, {"n": 1}))) == [
        msg.Report(attempt(0), FINISHED, partition, {"n": 1})
    ]
    assert reports(bench.tell(ev.Failed(attempt(1), "why", (3, 4)))) == [
        msg.Report(attempt(1), FAILED, cause="why", lost_input=(3, 4))
    ]


def test_a_process_that_dies_fails_its_attempt(bench: Bench) -> None:
    bench.tell(deploy(1, attempt(0)))
    [report] = reports(bench.tell(ev.ProcessDied(attempt(0), "killed by SIGSEGV")))
    assert (report.state, report.cause) == (FAILED, "killed by SIGSEGV")


def test_a_repeated_deployment_is_answered_and_starts_nothing(bench: Bench) -> None:
    bench.tell(deploy(1, attempt(0), attempt(1), attempt(2)), ev.Started(attempt(0)), ev.Finished(attempt(1)))
    effects = bench.tell(deploy(1, attempt(0), attempt(1), attempt(2)))
    assert only(ev.StartAttempt, effects) == []
    assert states(effects) == [(0, RUNNING), (1, FINISHED), (2, DEPLOYING)]


def test_an_end_is_reported_with_each_registration_until_it_is_acknowledged(bench: Bench) -> None:
    bench.tell(deploy(1, attempt(0)), ev.Finished(attempt(0)))
    for epoch in (2, 3):
        bench.tell(ev.ConnectionLost())
        assert states(bench.join(epoch)) == [(0, FINISHED)]
    bench.tell(msg.Acknowledge(3, (attempt(0),)), ev.ConnectionLost())
    assert states(bench.join(4)) == []


def test_what_ends_without_a_leader_is_kept_for_the_next_one(bench: Bench) -> None:
    bench.tell(deploy(1, attempt(0), attempt(1), attempt(2)), ev.ConnectionLost())
    effects = bench.tell(ev.Finished(attempt(0)))
    assert only(ev.Send, effects) == []
    assert [start.deployment.attempt for start in only(ev.StartAttempt, effects)] == [attempt(2)]
    assert sorted(states(bench.join(2))) == [(0, FINISHED), (1, DEPLOYING), (2, DEPLOYING)]


def test_what_changes_between_registration_and_answer_is_told_after_the_answer(bench: Bench) -> None:
    bench.tell(deploy(1, attempt(0), attempt(1)), ev.ConnectionLost(), ev.Connected())
    assert bench.tell(ev.Finished(attempt(0))) == []
    assert states(bench.tell(registered(2))) == [(0, FINISHED)]


def reconnected(bench: Bench, epoch: int) -> list[ev.Effect]:
    """Two tasks run, the connection is lost and taken up again; what was done about that."""
    bench.tell(deploy(1, attempt(0), attempt(1)), ev.Started(attempt(0)), ev.Started(attempt(1)))
    effects = bench.tell(ev.ConnectionLost())
    bench.pass_time(RECONNECTION_TIMEOUT - 1)
    return effects + bench.join(epoch)


@pytest.mark.parametrize("epoch", [1, 2], ids=["previous", "new"])
def test_reconnecting_to_a_job_master(bench: Bench, epoch: int) -> None:
    """Blink ``TaskExecutorTest.testReconnectingToPreviousJobMaster`` and ``testReconnectingToNewJobMaster``: the slots
    stay in use, and what runs in them is reported once.
    """
    effects = reconnected(bench, epoch)
    assert bench.executor.slots == [attempt(0), attempt(1)]
    assert sorted(states(effects)) == [(0, RUNNING), (1, RUNNING)]
    assert [type(effect) for effect in effects] == [ev.Send]
    assert bench.executor.epoch == epoch


# Epochs


def test_commands_of_a_lower_epoch_have_no_effect_at_all(bench: Bench) -> None:
    bench.tell(deploy(1, attempt(0)), ev.Finished(attempt(0)), deploy(1, attempt(1)), ev.ConnectionLost())
    bench.join(5)
    before = bench.executor.reports
    for command in (
        deploy(4, attempt(2)),
        msg.Cancel(4, (attempt(1),)),
        msg.Acknowledge(4, (attempt(0),)),
        msg.JobOver(4, "FINISHED"),
        msg.Alive(4),
    ):
        assert bench.tell(command) == []
    assert bench.executor.reports == before
    assert bench.executor.epoch == 5


def test_a_deposed_leader_is_left(bench: Bench) -> None:
    bench.tell(ev.ConnectionLost())
    bench.join(5)
    bench.tell(ev.ConnectionLost(), ev.Connected())
    [effect] = bench.tell(registered(4))
    assert isinstance(effect, ev.Disconnect)
    assert bench.tell(deploy(4, attempt(0))) == []
    assert bench.executor.registered == registered(5)


def test_commands_before_the_registration_is_answered_have_no_effect() -> None:
    bench = Bench()
    bench.tell(ev.Connected())
    assert bench.tell(deploy(1, attempt(0))) == []
    assert bench.executor.reports == ()


def test_a_refusal_ends_the_connection() -> None:
    bench = Bench()
    assert bench.tell(ev.Connected(), msg.Refused("other:1", "not me"))[1:] == [ev.Disconnect("not me")]


# Cancelling


def test_cancelling_is_a_request_then_a_grace_then_a_kill(bench: Bench) -> None:
    bench.tell(deploy(1, attempt(0)), ev.Started(attempt(0)))
    slot = bench.executor.slots.index(attempt(0))
    assert bench.tell(msg.Cancel(1, (attempt(0),))) == [ev.CancelAttempt(slot, attempt(0))]
    assert bench.tell(msg.Cancel(1, (attempt(0),))) == []
    assert only(ev.KillAttempt, bench.pass_time(GRACE - 1)) == []
    assert only(ev.KillAttempt, bench.pass_time(1)) == [ev.KillAttempt(slot, attempt(0))]
    bench.tell(msg.Alive(1))
    assert only(ev.KillAttempt, bench.pass_time(GRACE)) == []
    assert states(bench.tell(ev.ProcessDied(attempt(0), "killed by SIGKILL"))) == [(0, CANCELED)]


@pytest.mark.parametrize(
    "end",
    [ev.Finished(attempt(0)), ev.Failed(attempt(0), "why"), ev.Cancelled(attempt(0)), ev.ProcessDied(attempt(0), "")],
)
def test_a_cancelled_attempt_is_canceled_however_it_ends(bench: Bench, end: ev.Event) -> None:
    bench.tell(deploy(1, attempt(0)), msg.Cancel(1, (attempt(0),)))
    assert reports(bench.tell(end)) == [msg.Report(attempt(0), CANCELED)]


def test_a_deployment_cancelled_in_the_queue_never_starts(bench: Bench) -> None:
    bench.tell(deploy(1, *map(attempt, range(4))))
    assert states(bench.tell(msg.Cancel(1, (attempt(2),)))) == [(2, CANCELED)]
    bench.tell(ev.Finished(attempt(0)), ev.Finished(attempt(1)), ev.Finished(attempt(3)))
    assert attempt(2) not in [start.deployment.attempt for start in only(ev.StartAttempt, bench.effects)]


def test_cancelling_what_is_unknown_is_answered(bench: Bench) -> None:
    assert reports(bench.tell(msg.Cancel(1, (attempt(7),)))) == [msg.Report(attempt(7), CANCELED)]
    bench.tell(ev.ConnectionLost())
    assert states(bench.join(2)) == []


def test_cancelling_what_has_ended_is_answered_by_how_it_ended(bench: Bench) -> None:
    bench.tell(deploy(1, attempt(0)), ev.Finished(attempt(0)))
    assert states(bench.tell(msg.Cancel(1, (attempt(0),)))) == [(0, FINISHED)]


def test_a_process_can_speak_only_for_an_attempt_that_is_in_a_slot(bench: Bench) -> None:
    bench.tell(deploy(1, *map(attempt, range(3))))
    assert bench.tell(ev.Started(attempt(2)), ev.SplitWanted(attempt(2), 0), ev.Started(attempt(9))) == []


# Splits


def test_a_split_is_asked_for_and_its_answer_is_handed_on_once(bench: Bench) -> None:
    bench.tell(deploy(1, attempt(0)))
    slot = bench.executor.slots.index(attempt(0))
    assert bench.tell(ev.SplitWanted(attempt(0), 0)) == [ev.Send(msg.SplitRequest(attempt(0), 0))]
    answer = msg.Splits(1, attempt(0), 0, InputSplit("file"))
    assert bench.tell(answer) == [ev.GiveSplit(slot, attempt(0), 0, InputSplit("file"))]
    assert bench.tell(answer) == []


def test_a_cancelled_attempt_gets_no_split(bench: Bench) -> None:
    bench.tell(deploy(1, attempt(0)), ev.SplitWanted(attempt(0), 0), msg.Cancel(1, (attempt(0),)))
    assert bench.tell(msg.Splits(1, attempt(0), 0, InputSplit("file"))) == []


def test_a_split_that_was_asked_for_is_asked_for_again_after_a_registration(bench: Bench) -> None:
    bench.tell(deploy(1, attempt(0), attempt(1)), ev.SplitWanted(attempt(0), 3), ev.ConnectionLost())
    assert bench.tell(ev.SplitWanted(attempt(1), 0)) == []
    sent = [send.message for send in only(ev.Send, bench.join(2))]
    assert sent[1:] == [msg.SplitRequest(attempt(0), 3), msg.SplitRequest(attempt(1), 0)]


# Time


def test_heartbeats_carry_the_progress_of_what_runs(bench: Bench) -> None:
    bench.tell(deploy(1, attempt(0), attempt(1)))
    bench.tell(
        ev.ProgressMade(attempt(0), 0.5, 10, 100), ev.ProgressMade(attempt(1), 0.1, 1, 1), ev.Finished(attempt(1))
    )
    assert bench.executor.next_deadline() == HEARTBEAT_INTERVAL
    for _ in range(2):
        bench.tell(msg.Alive(1))
        [effect] = bench.pass_time(HEARTBEAT_INTERVAL)
        assert effect == ev.Send(msg.Heartbeat((msg.Progress(attempt(0), 0.5, 10, 100),)))


def test_a_silent_leader_is_left_and_the_tasks_go_on(bench: Bench) -> None:
    bench.tell(deploy(1, attempt(0)))
    bench.pass_time(HEARTBEAT_TIMEOUT - 1)
    bench.tell(msg.Alive(1))
    assert only(ev.Disconnect, bench.pass_time(HEARTBEAT_TIMEOUT - 1)) == []
    effects = bench.pass_time(1)
    assert [type(effect) for effect in effects] == [ev.Disconnect]
    assert states(bench.join(2)) == [(0, DEPLOYING)]


def test_a_leader_that_does_not_answer_the_registration_is_left() -> None:
    bench = Bench()
    bench.tell(ev.Connected())
    deadline = bench.executor.next_deadline()
    assert deadline is not None
    assert only(ev.Disconnect, bench.pass_time(deadline)) != []


def test_without_a_leader_for_too_long_the_tasks_are_cancelled_and_then_it_goes(bench: Bench) -> None:
    bench.tell(deploy(1, *map(attempt, range(3))), ev.ConnectionLost())
    assert bench.executor.next_deadline() == RECONNECTION_TIMEOUT
    assert bench.pass_time(RECONNECTION_TIMEOUT - 1) == []
    effects = bench.pass_time(1)
    assert {effect.attempt for effect in only(ev.CancelAttempt, effects)} == {attempt(0), attempt(1)}
    assert only(ev.ShutDown, effects) == []
    effects = bench.tell(ev.Cancelled(attempt(0)), ev.Cancelled(attempt(1)))
    assert [effect.code for effect in only(ev.ShutDown, effects)] == [EXIT_NO_LEADER]
    assert only(ev.StartAttempt, effects) == []
    assert bench.executor.next_deadline() is None


def test_time_with_connections_that_never_register_counts_as_time_without_a_leader() -> None:
    bench = Bench()
    for _ in range(6):
        bench.tell(ev.Connected())
        bench.pass_time(RECONNECTION_TIMEOUT // 6)
        bench.tell(ev.ConnectionLost())
    assert [effect.code for effect in only(ev.ShutDown, bench.effects)] == [EXIT_NO_LEADER]


def test_a_leader_in_time_ends_the_countdown(bench: Bench) -> None:
    bench.tell(ev.ConnectionLost())
    bench.pass_time(RECONNECTION_TIMEOUT - 1)
    bench.join(2)
    assert only(ev.ShutDown, bench.pass_time(1)) == []


# The end


def test_a_job_that_is_over_leaves_nothing_to_say(bench: Bench) -> None:
    bench.tell(deploy(1, *map(attempt, range(4))), ev.Finished(attempt(0)))
    effects = bench.tell(msg.JobOver(1, "CANCELED"))
    assert {effect.attempt for effect in only(ev.CancelAttempt, effects)} == {attempt(1), attempt(2)}
    effects = bench.tell(ev.Cancelled(attempt(1)), ev.Cancelled(attempt(2)))
    assert effects == [ev.ShutDown("the job is CANCELED", EXIT_OK)]
    assert bench.executor.reports == ()


def test_an_idle_taskmanager_goes_at_once_when_the_job_is_over(bench: Bench) -> None:
    assert bench.tell(msg.JobOver(1, "FINISHED")) == [ev.ShutDown("the job is FINISHED", EXIT_OK)]
    assert bench.tell(deploy(1, attempt(0)), ev.Tick(), ev.ConnectionLost()) == []


def test_a_stop_hands_all_tasks_back_at_once(bench: Bench) -> None:
    bench.tell(deploy(1, *map(attempt, range(3))))
    assert states(bench.tell(ev.StopRequested("SIGTERM"))) == []
    assert bench.tell(ev.Cancelled(attempt(0))) == []
    late = bench.tell(deploy(1, attempt(8)))
    assert late == []
    effects = bench.tell(ev.Cancelled(attempt(1)))
    assert sorted(states(effects)) == [(0, CANCELED), (1, CANCELED), (2, CANCELED), (8, CANCELED)]
    assert effects[-1] == ev.ShutDown("SIGTERM", EXIT_OK)


def test_a_task_that_ignores_the_stop_is_killed_after_the_grace(bench: Bench) -> None:
    bench.tell(deploy(1, attempt(0)), ev.StopRequested("SIGTERM"))
    assert len(only(ev.KillAttempt, bench.pass_time(GRACE))) == 1
    effects = bench.tell(ev.ProcessDied(attempt(0), "killed"))
    assert states(effects) == [(0, CANCELED)]
    assert len(only(ev.ShutDown, effects)) == 1
