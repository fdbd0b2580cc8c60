"""TaskManagers that come, go, return, or tell nonsense; slots, splits and the JobMaster's clock."""

import pytest

from flinkjob.api.errors import ProtocolViolation
from flinkjob.graph import operations as ops
from flinkjob.graph.operations import InputSplit, ResultPartition
from flinkjob.graph.states import ExecutionState
from flinkjob.jobmaster import events as ev
from flinkjob.worker.protocol import Acknowledge, AttemptId, Report, Splits

from .bench import Bench
from .jobs import job, pair, vertex, word_count
from .world import options

E = ExecutionState


def strangers(count: int, state: E = E.RUNNING) -> list[Report]:
    """Reports of attempts of another run."""
    return [Report(AttemptId(77, 0, number, 0), state) for number in range(count)]


# Slots


def test_tasks_are_spread_over_taskmanagers_in_turn_and_slots_are_not_overused() -> None:
    bench = Bench(pair(producers=5), log=[])
    bench.connect("tm-0", slots=1)
    assert bench.deployed("tm-0") == [AttemptId(1, 0, 0, 0)]
    bench.connect("tm-1", slots=2)
    assert bench.deployed("tm-1") == [AttemptId(1, 0, 1, 0), AttemptId(1, 0, 2, 0)]
    bench.finished(0, 0, on="tm-0")
    assert bench.deployed() == [AttemptId(1, 0, 3, 0)]


def test_deployments_to_one_taskmanager_go_in_one_message() -> None:
    bench = Bench(pair(producers=4))
    bench.connect("tm-0", slots=4)
    assert len(bench.effects(ev.Send)) == 1
    assert len(bench.deployed("tm-0")) == 4


def test_orphans_hold_their_slots_until_they_have_stopped() -> None:
    bench = Bench(pair(producers=4))
    bench.connect(slots=2, reports=strangers(2))
    assert not bench.deployed()
    bench.handle(ev.TasksReported("tm-0", (strangers(1, E.CANCELED)[0],)))
    assert bench.sent(Acknowledge) == [Acknowledge(1, (AttemptId(77, 0, 0, 0),))]
    assert len(bench.deployed()) == 1


def test_orphans_are_forgotten_when_their_taskmanager_comes_back_without_them() -> None:
    bench = Bench(pair(producers=4))
    bench.connect(slots=2, reports=strangers(2))
    bench.connect(slots=2)
    assert len(bench.deployed()) == 2


def test_ended_strangers_hold_no_slot() -> None:
    bench = Bench(pair(producers=4))
    bench.connect(slots=2, reports=strangers(2, E.FINISHED))
    assert len(bench.deployed()) == 2


def test_nothing_is_deployed_to_a_taskmanager_that_is_away() -> None:
    bench = Bench(pair())
    bench.connect()
    bench.handle(ev.TaskManagerDisconnected("tm-0"))
    bench.connect("tm-1", slots=1)
    bench.handle(ev.TaskManagerGone("tm-0", "gone"))
    bench.wait()
    assert bench.deployed("tm-0") == []
    assert bench.deployed("tm-1") == [AttemptId(1, 0, 0, 1)]


# Coming and going


def test_a_broken_connection_costs_nothing_if_the_taskmanager_returns_in_time() -> None:
    bench = Bench(pair())
    bench.connect(slots=1)
    bench.running(0)
    logged = len(bench.log)
    bench.handle(ev.TaskManagerDisconnected("tm-0"))
    bench.handle(ev.TimePassed(), after=49_999)
    bench.connect(slots=1, reports=[bench.report(0, 0, E.RUNNING)])
    assert bench.last == ev.Decision()
    assert len(bench.log) == logged
    assert bench.master.next_deadline() is None


def test_a_taskmanager_that_stays_away_is_lost_when_the_heartbeat_timeout_is_over() -> None:
    bench = Bench(pair())
    bench.connect()
    bench.running(0)
    bench.handle(ev.TaskManagerDisconnected("tm-0"))
    left = bench.now
    bench.wait()
    assert bench.now == left + 50_000
    assert bench.logged(ops.TaskManagerRemoved) == [ops.TaskManagerRemoved(0, "silent for 50 s", bench.now)]
    assert bench.graph.exceptions[-1].cause == "TaskManager tm-0 is lost: silent for 50 s"
    assert bench.master.next_deadline() == bench.now + 1000  # the restart


def test_a_lost_taskmanager_that_returns_is_another_one() -> None:
    bench = Bench(pair())
    bench.connect(slots=1)
    bench.running(0)
    late = bench.report(0, 0, E.FINISHED, size=3)
    bench.handle(ev.TaskManagerGone("tm-0", "no heartbeat"))
    bench.connect(slots=1, reports=[late])
    assert bench.sent(Acknowledge) == [Acknowledge(1, (late.attempt,))]
    assert bench.state(0) == "FAILED"
    assert len(bench.graph.taskmanagers) == 2
    bench.wait()
    assert bench.deployed("tm-0") == [AttemptId(1, 0, 0, 1)]


def test_a_lost_taskmanager_that_still_talks_has_to_register_anew() -> None:
    bench = Bench(pair())
    bench.connect()
    report = bench.report(0, 0, E.RUNNING)
    bench.handle(ev.TaskManagerGone("tm-0", "no heartbeat"))
    with pytest.raises(ProtocolViolation, match="'tm-0' is not registered"):
        bench.handle(ev.TasksReported("tm-0", (report,)))


def test_the_end_of_a_connection_to_nobody_is_nothing() -> None:
    bench = Bench(pair())
    bench.connect()
    bench.handle(ev.TaskManagerGone("tm-0", "its pod is gone"))
    deadline = bench.master.next_deadline()
    assert bench.handle(ev.TaskManagerDisconnected("tm-0")) == ev.Decision()
    assert bench.handle(ev.TaskManagerGone("tm-9", "who?")) == ev.Decision()
    assert bench.master.next_deadline() == deadline


def test_a_taskmanager_that_returns_with_other_slots_has_lost_what_it_ran() -> None:
    bench = Bench(pair(producers=2))
    bench.connect(slots=2)
    bench.running(0, 0)
    alive = bench.report(0, 0, E.RUNNING)
    bench.connect(slots=1, reports=[alive])
    assert bench.graph.taskmanagers[0].removed == "it came back with 1 slots in the place of 2"
    assert bench.states()[0] == ["FAILED", "FAILED"]
    assert bench.cancelled() == [alive.attempt]
    assert [info.slots for info in bench.graph.taskmanagers] == [2, 1]
    bench.wait()
    assert not bench.deployed()  # the one slot is still held by what is being stopped
    bench.handle(ev.TasksReported("tm-0", (Report(alive.attempt, E.CANCELED),)))
    assert bench.deployed() == [AttemptId(1, 0, 0, 1)]


def test_a_task_that_is_not_there_any_more_fails_without_a_failover_too() -> None:
    bench = Bench(pair())
    bench.connect()
    bench.running(0)
    bench.connect()
    assert bench.state(0) == "FAILED"
    assert bench.graph.exceptions[-1].cause == "not consistent: TaskManager tm-0 no longer has it"
    assert len(bench.logged(ops.RestartScheduled)) == 1
    assert bench.logged(ops.FailoverCompleted) == []


def test_a_deployment_that_did_not_arrive_is_sent_again_without_a_failover_too() -> None:
    bench = Bench(pair())
    bench.connect()
    bench.connect()
    assert bench.deployed() == [AttemptId(1, 0, 0, 0)]
    assert not bench.last.operations


def test_tasks_cancelled_on_a_lost_taskmanager_are_canceled() -> None:
    bench = Bench(pair(producers=3), options(full=True))
    bench.connect("tm-0", slots=2)
    bench.connect("tm-1", slots=1)
    bench.failed(0, 2, on="tm-1")
    assert bench.states()[0] == ["CANCELING", "CANCELING", "FAILED"]
    bench.handle(ev.TaskManagerGone("tm-0", "gone"))
    assert bench.states()[0] == ["CANCELED", "CANCELED", "FAILED"]
    assert len(bench.logged(ops.RestartScheduled)) == 1
    bench.wait()
    assert bench.deployed("tm-1") == [AttemptId(1, 0, 0, 1)]


# Reports


def test_reports_of_old_attempts_change_nothing() -> None:
    bench = Bench(pair())
    bench.connect()
    old = bench.attempt(0)
    bench.failed(0)
    bench.wait()
    for state in (E.FINISHED, E.FAILED, E.CANCELED):
        bench.handle(ev.TasksReported("tm-0", (Report(old, state),)))
        assert not bench.last.operations
        assert bench.sent(Acknowledge) == [Acknowledge(1, (old,))]
    bench.handle(ev.TasksReported("tm-0", (Report(old, E.RUNNING),)))
    assert bench.cancelled() == [old]
    assert bench.state(0) == "DEPLOYING"


def test_a_report_from_the_wrong_taskmanager_changes_nothing() -> None:
    bench = Bench(pair())
    bench.connect("tm-0", slots=1)
    bench.connect("tm-1", slots=1)
    bench.running(0, on="tm-1")
    assert bench.state(0) == "DEPLOYING"
    assert bench.cancelled("tm-1") == [bench.attempt(0)]


def test_the_same_report_twice_is_one() -> None:
    bench = Bench(pair(producers=2))
    bench.connect(slots=1)
    report = bench.report(0, 0, E.FINISHED, size=3)
    bench.handle(ev.TasksReported("tm-0", (report, report)))
    assert len(bench.logged(ops.TaskFinished)) == 1
    assert [ack.attempts for ack in bench.sent(Acknowledge)] == [(report.attempt, report.attempt)]
    bench.handle(ev.TasksReported("tm-0", (report,)))
    assert not bench.last.operations


def test_stale_reports_of_a_lower_state_are_not_believed() -> None:
    bench = Bench(pair())
    bench.connect()
    bench.running(0)
    bench.handle(ev.TasksReported("tm-0", (bench.report(0, 0, E.DEPLOYING), bench.report(0, 0, E.RUNNING))))
    assert bench.last == ev.Decision()


def test_a_task_that_was_cancelled_by_nobody_has_failed() -> None:
    bench = Bench(pair())
    bench.connect()
    bench.canceled(0)
    assert bench.graph.exceptions[-1].cause == "CANCELED by TaskManager tm-0"
    assert len(bench.logged(ops.RestartScheduled)) == 1


@pytest.mark.parametrize(
    "nonsense",
    [
        Report(AttemptId(1, 0, 0, 0), E.CREATED),
        Report(AttemptId(1, 0, 0, 0), E.CANCELING),
        Report(AttemptId(1, 0, 0, 0), E.FINISHED, ResultPartition(-1, 0, 0)),
        Report(AttemptId(1, 0, 0, 0), E.FINISHED, ResultPartition(0, -1, 0)),
        Report(AttemptId(1, 0, 0, 0), E.FINISHED, ResultPartition(0, 0, -1)),
        Report(AttemptId(1, 0, 0, 0), E.FINISHED, ResultPartition(0, 0, 1 << 32)),
        Report(AttemptId(1, 0, 0, 0), E.FINISHED, ResultPartition(1 << 63, 0, 0)),
        Report(AttemptId(1, 0, 0, 0), E.FINISHED, ResultPartition(0, 1 << 63, 0)),
    ],
    ids=str,
)
def test_nonsense_is_refused_before_anything_is_decided(nonsense: Report) -> None:
    bench = Bench(pair(producers=2))
    bench.connect()
    before = bench.graph.snapshot()
    good = bench.report(0, 1, E.RUNNING)
    with pytest.raises(ProtocolViolation, match="'tm-0' reports"):
        bench.handle(ev.TasksReported("tm-0", (good, nonsense)))
    with pytest.raises(ProtocolViolation, match="'tm-0' reports"):
        bench.connect("tm-0", reports=[good, nonsense])
    assert bench.graph.snapshot() == before


@pytest.mark.parametrize("slots", [0, -1])
def test_a_taskmanager_without_slots_is_refused(slots: int) -> None:
    bench = Bench(pair())
    with pytest.raises(ProtocolViolation, match="one at least"):
        bench.connect(slots=slots)
    assert not bench.graph.taskmanagers


# Splits


def reading() -> Bench:
    """Two subtasks that read five splits."""
    bench = Bench(word_count(sources=2))
    bench.connect()
    assert not bench.deployed()
    bench.handle(ev.SplitsEnumerated(0, tuple(InputSplit(f"file-{number}") for number in range(5))))
    assert len(bench.deployed()) == 2
    return bench


def ask(bench: Bench, subtask: int, index: int) -> str | None:
    """The path of the split that the subtask is given."""
    bench.handle(ev.SplitRequested("tm-0", bench.attempt(0, subtask), index))
    (answer,) = bench.sent(Splits)
    assert (answer.attempt, answer.index, answer.epoch) == (bench.attempt(0, subtask), index, bench.graph.epoch)
    return answer.split.path if answer.split else None


def test_each_split_is_given_to_one_subtask_and_then_there_are_no_more() -> None:
    bench = reading()
    assert [ask(bench, 0, 0), ask(bench, 1, 0), ask(bench, 0, 1), ask(bench, 0, 2)] == [
        "file-0", "file-1", "file-2", "file-3",
    ]  # fmt: skip
    assert [ask(bench, 1, 1), ask(bench, 1, 2), ask(bench, 0, 3)] == ["file-4", None, None]


def test_asking_again_for_the_same_split_gives_the_same_and_takes_nothing() -> None:
    bench = reading()
    assert [ask(bench, 0, 0), ask(bench, 0, 0), ask(bench, 0, 1), ask(bench, 0, 0)] == [
        "file-0", "file-0", "file-1", "file-0",
    ]  # fmt: skip
    assert len(bench.logged(ops.SplitsAssigned)) == 2


def test_a_later_attempt_reads_the_same_splits_in_the_same_order() -> None:
    bench = reading()
    assert [ask(bench, 0, 0), ask(bench, 1, 0), ask(bench, 0, 1)] == ["file-0", "file-1", "file-2"]
    bench.failed(0, 0)
    bench.wait()
    assert [ask(bench, 0, 0), ask(bench, 0, 1), ask(bench, 0, 2)] == ["file-0", "file-2", "file-3"]


@pytest.mark.parametrize("index", [-1, 2, 99])
def test_a_split_out_of_turn_is_a_violation(index: int) -> None:
    bench = reading()
    ask(bench, 0, 0)
    with pytest.raises(ProtocolViolation, match=rf"tokenize\[0\] asks for split {index}; it has got 1 so far"):
        bench.handle(ev.SplitRequested("tm-0", bench.attempt(0, 0), index))


def test_a_split_for_a_task_that_has_none_is_a_violation() -> None:
    bench = Bench(pair())
    bench.connect()
    with pytest.raises(ProtocolViolation, match=r"producer\[0\] asks for split 0"):
        bench.handle(ev.SplitRequested("tm-0", bench.attempt(0), 0))


@pytest.mark.parametrize("attempt", [(1, 0, 0, 1), (2, 0, 0, 0), (1, 9, 0, 0), (1, 0, -1, 0), (1, 1, 0, 0)])
def test_an_old_or_unknown_attempt_gets_no_answer_and_no_split(attempt: tuple[int, int, int, int]) -> None:
    bench = reading()
    assert bench.handle(ev.SplitRequested("tm-0", AttemptId(*attempt), 0)) == ev.Decision()


def test_splits_are_enumerated_once_and_asked_for_by_each_leader_until_they_are_known() -> None:
    old = Bench(word_count())
    assert old.effects(ev.EnumerateSplits) == [ev.EnumerateSplits(0)]
    bench = old.successor()
    assert bench.effects(ev.EnumerateSplits) == [ev.EnumerateSplits(0)]
    bench.handle(ev.SplitsEnumerated(0, ()))
    bench.handle(ev.SplitsEnumerated(0, (InputSplit("late"),)))
    assert len(bench.logged(ops.SplitsCreated)) == 1
    assert not bench.successor().effects(ev.EnumerateSplits)


def test_a_source_of_no_splits_runs_and_gets_none() -> None:
    bench = Bench(job(vertex("source", splits=True)))
    bench.connect()
    bench.handle(ev.SplitsEnumerated(0, ()))
    assert ask(bench, 0, 0) is None
    bench.finished(0)
    assert bench.status == "FINISHED"


# The clock


def test_nothing_has_to_be_waited_for_while_all_is_well() -> None:
    bench = Bench(pair())
    assert bench.master.next_deadline() is None
    bench.connect()
    assert bench.master.next_deadline() is None


def test_the_earliest_of_all_deadlines_counts() -> None:
    bench = Bench(pair(producers=2), options(heartbeat=500))
    bench.connect()
    bench.failed(0, 0)
    assert bench.master.next_deadline() == bench.now + 1000
    bench.handle(ev.TaskManagerDisconnected("tm-0"))
    assert bench.master.next_deadline() == bench.now + 500


def test_a_restart_does_not_wake_a_leader_that_reconciles() -> None:
    old = Bench(pair(producers=2))
    old.connect()
    old.running(0, 1)
    old.failed(0, 0)
    bench = old.successor()
    assert bench.master.next_deadline() == bench.now + 60_000
    bench.handle(ev.TimePassed(), after=5_000)
    assert bench.state(0, 0) == "FAILED"
    bench.connect(reports=[bench.report(0, 1, E.RUNNING)])
    assert bench.deployed() == [AttemptId(1, 0, 0, 1)]
