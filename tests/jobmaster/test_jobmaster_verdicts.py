"""The verdict table: what the log says against what a TaskManager says, after a failover, row by row."""

from collections.abc import Callable

import pytest

from flinkjob.graph import operations as ops
from flinkjob.graph.states import ExecutionState
from flinkjob.graph.vertex import TaskId
from flinkjob.jobmaster import events as ev
from flinkjob.jobmaster.verdicts import Verdict, judge
from flinkjob.worker.protocol import Acknowledge, AttemptId, Cancel, Report

from .bench import Bench
from .jobs import FORWARD, job, pair, vertex
from .world import options

E = ExecutionState


def deploying() -> Bench:
    """A successor to a leader that had one task DEPLOYING."""
    old = Bench(pair())
    old.connect(slots=1)
    assert old.state(0) == "DEPLOYING"
    return old.successor()


def running() -> Bench:
    """A successor to a leader that had one task RUNNING."""
    old = Bench(pair())
    old.connect(slots=1)
    old.running(0)
    return old.successor()


def canceling() -> Bench:
    """A successor to a leader that had one task CANCELING, to be started again: everything restarts."""
    old = Bench(pair(producers=2), options(full=True))
    old.connect(slots=2)
    old.running(0)
    old.running(0, 1)
    old.failed(0)
    assert old.states()[0] == ["FAILED", "CANCELING"]
    return old.successor()


def verdicts(bench: Bench) -> dict[str, int]:
    """Those of the failover that is over."""
    assert bench.status == "RUNNING"
    return bench.graph.failovers[-1].verdicts


def test_a_successor_waits_before_it_schedules() -> None:
    bench = deploying()
    assert bench.status == "RECONCILING"
    bench.connect("tm-1", slots=4)
    assert not bench.last.effects
    assert bench.status == "RECONCILING"


@pytest.mark.parametrize(("leader", "state"), [(deploying, E.DEPLOYING), (running, E.RUNNING)])
def test_same_state_is_continued_and_nothing_is_sent_to_the_task(leader: Callable[[], Bench], state: E) -> None:
    bench = leader()
    bench.connect(slots=1, reports=[bench.report(0, 0, state)])
    assert bench.state(0) == state.name
    assert not bench.last.effects
    assert verdicts(bench) == {"continued": 1}


def test_a_running_report_for_a_deploying_task_advances_it_and_nothing_is_sent_to_it() -> None:
    bench = deploying()
    bench.connect(slots=1, reports=[bench.report(0, 0, E.RUNNING)])
    assert bench.state(0) == "RUNNING"
    assert not bench.last.effects
    assert verdicts(bench) == {"advanced": 1}


@pytest.mark.parametrize("leader", [deploying, running])
def test_a_finished_report_advances_and_is_acknowledged_and_its_consumer_is_deployed(
    leader: Callable[[], Bench],
) -> None:
    bench = leader()
    attempt = bench.attempt(0)
    bench.connect(slots=1, reports=[bench.report(0, 0, E.FINISHED, size=3)])
    assert bench.state(0) == "FINISHED"
    assert bench.sent(Acknowledge) == [Acknowledge(2, (attempt,))]
    assert bench.deployed() == [AttemptId(1, 1, 0, 0)]
    assert verdicts(bench) == {"advanced": 1}


@pytest.mark.parametrize("leader", [deploying, running])
@pytest.mark.parametrize("state", [E.FAILED, E.CANCELED])
def test_an_unhappy_end_advances_and_is_restarted_by_the_strategy(leader: Callable[[], Bench], state: E) -> None:
    bench = leader()
    attempt = bench.attempt(0)
    bench.connect(slots=1, reports=[bench.report(0, 0, state)])
    assert bench.state(0) == "FAILED"
    assert bench.sent(Acknowledge) == [Acknowledge(2, (attempt,))]
    assert verdicts(bench) == {"advanced": 1}
    assert [op.tasks for op in bench.logged(ops.RestartScheduled)] == [((0, 0),)]


def test_a_deploying_task_of_which_nothing_is_known_is_redeployed_with_the_same_attempt() -> None:
    bench = deploying()
    bench.connect(slots=1)
    assert bench.deployed("tm-0") == [AttemptId(1, 0, 0, 0)]
    assert bench.state(0) == "DEPLOYING"
    assert verdicts(bench) == {"redeployed": 1}
    assert not bench.logged(ops.RestartScheduled)


def test_a_running_task_of_which_nothing_is_known_is_a_conflict_and_restarts() -> None:
    bench = running()
    bench.connect(slots=1)
    assert bench.state(0) == "FAILED"
    assert verdicts(bench) == {"restarted": 1}
    assert bench.graph.failovers[-1].restarted == (ops.RestartedTask(0, 0, "TaskManager tm-0 no longer has it"),)
    bench.wait()
    assert bench.deployed() == [AttemptId(1, 0, 0, 1)]


@pytest.mark.parametrize("reported", [(1, 0, 0, 7), (9, 0, 0, 0), (1, 5, 0, 0), (1, 0, 3, 0), (1, -1, -1, 0)])
def test_another_attempt_is_cancelled_as_an_orphan(reported: tuple[int, int, int, int]) -> None:
    bench = running()
    orphan = Report(AttemptId(*reported), E.RUNNING)
    bench.connect(slots=1, reports=[orphan, bench.report(0, 0, E.RUNNING)])
    assert bench.cancelled() == [AttemptId(*reported)]


def test_an_older_attempt_is_cancelled_while_the_present_one_goes_on() -> None:
    old = Bench(pair())
    old.connect(slots=2)
    old.failed(0)
    old.wait()
    old.running(0)
    bench = old.successor()
    stale = Report(AttemptId(1, 0, 0, 0), E.RUNNING)
    bench.connect(slots=2, reports=[stale, bench.report(0, 0, E.RUNNING)])
    assert bench.cancelled() == [stale.attempt]
    assert verdicts(bench) == {"continued": 1, "orphaned": 1}
    assert bench.state(0) == "RUNNING"


def test_a_logged_end_that_is_reported_again_is_acknowledged_and_nothing_is_logged() -> None:
    old = Bench(pair())
    old.connect(slots=1)
    old.running(0)
    report = old.report(0, 0, E.FINISHED, size=3)
    old.finished(0, size=3)
    bench = old.successor(upto=old.upto(ops.TaskFinished))
    bench.handle(ev.PartitionsChecked(()))
    bench.connect(slots=1, reports=[report])
    assert bench.sent(Acknowledge) == [Acknowledge(2, (report.attempt,))]
    assert len(bench.logged(ops.TaskFinished)) == 1


def finished() -> Bench:
    """A successor to a leader whose first task had FINISHED, and the second was not begun."""
    old = Bench(pair())
    old.connect(slots=1)
    old.running(0)
    old.finished(0)
    return old.successor(upto=old.upto(ops.TaskFinished))


def test_a_needed_partition_is_verified_and_its_producer_goes_on_being_finished() -> None:
    bench = finished()
    assert bench.effects(ev.CheckPartitions) == [ev.CheckPartitions(((TaskId(0, 0), 0, ops.ResultPartition(7, 7, 7)),))]
    bench.connect(slots=1)
    assert bench.status == "RECONCILING"
    assert not bench.deployed()
    bench.handle(ev.PartitionsChecked(()))
    assert bench.deployed() == [AttemptId(1, 1, 0, 0)]
    assert bench.state(0) == "FINISHED"


def test_a_missing_partition_resets_its_producer() -> None:
    bench = finished()
    bench.connect(slots=1)
    bench.handle(ev.PartitionsChecked((TaskId(0, 0),)))
    assert not bench.deployed()  # above all not the consumer of what is not there
    reason = "its result partition is missing or damaged"
    assert bench.graph.failovers[-1].restarted == (ops.RestartedTask(0, 0, reason),)
    assert verdicts(bench) == {"restarted": 1}
    bench.wait()
    assert bench.deployed() == [AttemptId(1, 0, 0, 1)]


def test_an_empty_partition_is_not_looked_for() -> None:
    old = Bench(pair())
    old.connect(slots=1)
    old.finished(0, size=0)
    assert not old.successor(upto=old.upto(ops.TaskFinished)).effects(ev.CheckPartitions)


def test_a_partition_that_nobody_reads_any_more_is_not_looked_for() -> None:
    old = Bench(
        job(vertex("a"), vertex("b", reads={"a": FORWARD}), vertex("c", reads={"b": FORWARD})),
    )
    old.connect(slots=1)
    old.finished(0)
    old.finished(1)
    (check,) = old.successor(upto=old.upto(ops.TaskFinished, vertex=1)).effects(ev.CheckPartitions)
    assert [task for task, _, _ in check.partitions] == [TaskId(1, 0)]


def test_a_canceling_task_that_still_runs_is_cancelled_again() -> None:
    bench = canceling()
    bench.connect(slots=2, reports=[bench.report(0, 1, E.RUNNING)])
    assert bench.sent(Cancel) == [Cancel(2, (AttemptId(1, 0, 1, 0),))]
    assert bench.state(0, 1) == "CANCELING"
    assert verdicts(bench) == {"cancelled": 1}


@pytest.mark.parametrize("state", [E.FINISHED, E.CANCELED, E.FAILED, None])
def test_a_canceling_task_that_has_ended_or_is_not_there_is_canceled(state: E | None) -> None:
    bench = canceling()
    bench.connect(slots=2, reports=[bench.report(0, 1, state)] if state else [])
    assert bench.state(0, 1) == "CANCELED"
    assert verdicts(bench) == {"advanced": 1}
    assert len(bench.logged(ops.RestartScheduled)) == 1
    bench.wait()
    assert sorted(bench.deployed()) == [AttemptId(1, 0, 0, 1), AttemptId(1, 0, 1, 1)]


def test_a_task_on_a_taskmanager_that_is_gone_fails_at_once() -> None:
    bench = running()
    bench.handle(ev.TaskManagerGone("tm-0", "its pod was deleted"), after=5)
    assert bench.state(0) == "FAILED"
    assert verdicts(bench) == {"restarted": 1}
    reason = "TaskManager tm-0 is lost: its pod was deleted"
    assert bench.graph.failovers[-1].restarted == (ops.RestartedTask(0, 0, reason),)
    assert bench.graph.failovers[-1].reconcile_ms == 5


def test_a_task_on_a_silent_taskmanager_fails_when_the_time_is_over() -> None:
    bench = running()
    began = bench.now
    assert bench.master.next_deadline() == began + 60_000
    bench.handle(ev.TimePassed(), after=59_999)
    assert bench.status == "RECONCILING"
    bench.wait()
    assert bench.now == began + 60_000
    assert bench.state(0) == "FAILED"
    assert bench.graph.failovers[-1].restarted == (
        ops.RestartedTask(0, 0, "TaskManager tm-0 is lost: silent for 60 s"),
    )


def test_a_late_report_gets_its_orphans_cancelled() -> None:
    bench = running()
    late = bench.report(0, 0, E.RUNNING)
    bench.wait()
    bench.connect(slots=1, reports=[late])
    assert bench.cancelled("tm-0") == [late.attempt]
    assert not bench.deployed()
    assert bench.state(0) == "FAILED"


@pytest.mark.parametrize("logged", [E.DEPLOYING, E.RUNNING])
@pytest.mark.parametrize("reported", [E.DEPLOYING, E.RUNNING, E.FINISHED, E.CANCELED, E.FAILED])
def test_the_taskmanagers_word_counts_wherever_it_legally_follows(logged: E, reported: E) -> None:
    behind = (logged, reported) in {(E.DEPLOYING, E.DEPLOYING), (E.RUNNING, E.RUNNING), (E.RUNNING, E.DEPLOYING)}
    assert judge(logged, reported) is (Verdict.CONTINUED if behind else Verdict.ADVANCED)


def test_a_mixed_failover_counts_each_verdict_once() -> None:
    old = Bench(pair(producers=4))
    old.connect(slots=4)
    for subtask in (0, 1, 2):
        old.running(0, subtask)
    bench = old.successor()
    orphan = Report(AttemptId(1, 0, 0, 9), E.RUNNING)
    reports = [bench.report(0, 0, E.RUNNING), bench.report(0, 1, E.FINISHED, size=1), orphan]
    bench.connect(slots=4, reports=reports)
    assert verdicts(bench) == {"continued": 1, "advanced": 1, "redeployed": 1, "restarted": 1, "orphaned": 1}
    assert bench.deployed() == [AttemptId(1, 0, 3, 0)]
    assert [task.subtask for task in bench.graph.failovers[-1].restarted] == [2]


def test_the_failover_is_told_with_all_its_numbers() -> None:
    bench = deploying()
    began, replayed = bench.now, len(bench.log) - len(bench.last.operations)
    bench.now += 40
    bench.connect(slots=1)
    (told,) = bench.graph.failovers
    assert told == ops.FailoverCompleted(
        epoch=2,
        leader="jm-2",
        cause="killed",
        started_at=began,
        replayed_operations=replayed,
        replay_ms=1.5,
        reconcile_ms=40.0,
        decided_at=began + 40,
        verdicts={"redeployed": 1},
    )
    assert bench.graph.failover_count == 1


def test_nothing_has_to_be_waited_for_when_nothing_ran() -> None:
    bench = Bench(pair()).successor()
    assert bench.status == "RUNNING"
    assert bench.graph.failovers[-1].verdicts == {}
    bench.connect()
    assert bench.deployed() == [AttemptId(1, 0, 0, 0)]


def test_a_new_job_has_no_failover_in_its_history() -> None:
    bench = Bench(pair())
    bench.connect()
    assert not bench.graph.failovers
    assert bench.status == "RUNNING"
