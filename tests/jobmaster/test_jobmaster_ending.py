"""How a job ends: FINISHED, cancelled, failed; and that an end is an end for each leader that follows."""

import pytest

from flinkjob.graph import operations as ops
from flinkjob.graph.states import ExecutionState, JobStatus
from flinkjob.jobmaster import events as ev
from flinkjob.jobmaster.restart import FixedDelay, NoRestart
from flinkjob.worker.protocol import AttemptId, JobOver

from .bench import Bench
from .jobs import pair, word_count
from .world import options

E = ExecutionState


def over() -> Bench:
    """A job that has FINISHED."""
    bench = Bench(pair())
    bench.connect()
    bench.finished(0)
    bench.finished(1)
    return bench


def test_the_job_is_finished_when_all_tasks_are_and_everybody_hears_of_it_once() -> None:
    bench = over()
    assert bench.status == "FINISHED"
    assert bench.effects(ev.JobEnded) == [ev.JobEnded(JobStatus.FINISHED)]
    assert bench.sent(JobOver) == [JobOver(1, "FINISHED")]
    assert bench.master.next_deadline() is None
    bench.handle(ev.TimePassed(), after=10**9)
    assert bench.last == ev.Decision()


def test_a_successor_of_a_job_that_is_over_logs_its_epoch_and_nothing_else() -> None:
    bench = over().successor()
    assert bench.last.operations == [ops.EpochStarted(2, "jm-2", bench.now)]
    assert bench.effects(ev.JobEnded) == [ev.JobEnded(JobStatus.FINISHED)]
    bench.connect("tm-0", reports=[bench.report(1, 0, E.RUNNING)])
    assert bench.last == ev.Decision([], [ev.Send("tm-0", JobOver(2, "FINISHED"))])
    for event in (
        ev.CancelRequested(),
        ev.TaskManagerDisconnected("tm-0"),
        ev.TaskManagerGone("tm-0", "gone"),
        ev.TasksReported("tm-0", (bench.report(1, 0, E.FAILED),)),
        ev.SplitRequested("tm-0", AttemptId(1, 0, 0, 0), 0),
        ev.PartitionsChecked(()),
        ev.TimePassed(),
    ):
        assert bench.handle(event) == ev.Decision()
    assert bench.master.next_deadline() is None


@pytest.mark.parametrize("last", [JobStatus.CANCELED, JobStatus.FAILED])
def test_other_ends_are_ends_too(last: JobStatus) -> None:
    old = Bench(pair(), options(NoRestart()))
    old.connect()
    if last is JobStatus.FAILED:
        old.failed(0)
    else:
        old.handle(ev.CancelRequested())
        old.canceled(0)
    assert old.status == last.name
    bench = old.successor()
    assert [type(operation) for operation in bench.last.operations] == [ops.EpochStarted]
    assert bench.effects(ev.JobEnded) == [ev.JobEnded(last)]


def test_killed_between_the_last_task_and_the_end_the_successor_ends_the_job() -> None:
    old = over()
    bench = old.successor(upto=old.upto(ops.TaskFinished, vertex=1))
    assert bench.status == "RECONCILING"
    bench.handle(ev.PartitionsChecked(()))
    assert bench.status == "FINISHED"


def test_cancelled_before_anything_was_deployed_the_job_ends_at_once() -> None:
    bench = Bench(pair())
    bench.handle(ev.CancelRequested())
    assert bench.status == "CANCELED"
    assert bench.states() == [["CANCELED"], ["CANCELED"]]
    assert bench.graph.status_cause == "cancelled by request"


def test_cancelled_while_running_the_job_ends_when_the_last_task_has_stopped() -> None:
    bench = Bench(pair(producers=2))
    bench.connect()
    bench.running(0, 1)
    bench.handle(ev.CancelRequested())
    assert sorted(bench.cancelled()) == [AttemptId(1, 0, 0, 0), AttemptId(1, 0, 1, 0)]
    assert bench.states() == [["CANCELING"] * 2, ["CANCELED"]]
    bench.finished(0, 0)  # it was too late to be stopped, and too late to count
    assert bench.status == "CANCELLING"
    bench.canceled(0, 1)
    assert bench.states() == [["CANCELED"] * 2, ["CANCELED"]]
    assert bench.effects(ev.JobEnded) == [ev.JobEnded(JobStatus.CANCELED)]


def test_cancelling_twice_is_cancelling_once() -> None:
    bench = Bench(pair())
    bench.connect()
    bench.handle(ev.CancelRequested())
    assert bench.handle(ev.CancelRequested()) == ev.Decision()


def test_cancelling_stops_a_restart_that_waits() -> None:
    bench = Bench(pair())
    bench.connect()
    bench.failed(0)
    bench.handle(ev.CancelRequested())
    assert bench.status == "CANCELED"
    assert bench.states() == [["FAILED"], ["CANCELED"]]


def test_cancelled_while_reconciling_tasks_are_stopped_as_their_taskmanagers_return() -> None:
    old = Bench(pair(producers=2))
    old.connect("tm-0", slots=1)
    old.connect("tm-1", slots=1)
    bench = old.successor()
    bench.handle(ev.CancelRequested())
    assert bench.status == "CANCELLING"
    bench.connect("tm-0", slots=1, reports=[bench.report(0, 0, E.RUNNING)])
    assert bench.cancelled("tm-0") == [AttemptId(1, 0, 0, 0)]
    bench.canceled(0, 0)
    assert bench.status == "CANCELLING"
    bench.wait()  # tm-1 does not come
    assert bench.status == "CANCELED"
    assert bench.graph.failovers[-1].epoch == 2


def test_cancelled_while_partitions_are_being_looked_at_the_failover_is_still_told() -> None:
    old = Bench(pair())
    old.connect()
    old.finished(0)
    bench = old.successor(upto=old.upto(ops.TaskFinished))
    bench.handle(ev.CancelRequested())
    assert bench.status == "CANCELED"
    assert [failover.epoch for failover in bench.graph.failovers] == [2]


def test_killed_at_each_operation_of_a_cancellation_the_job_is_cancelled_all_the_same() -> None:
    old = Bench(pair(producers=2))
    old.connect()
    old.running(0, 0)
    first = len(old.log) + 1
    old.handle(ev.CancelRequested())
    for upto in range(first, len(old.log) + 1):
        bench = old.successor(upto=upto)
        bench.connect(reports=[bench.report(0, 0, E.RUNNING), bench.report(0, 1, E.DEPLOYING)])
        assert set(bench.cancelled()) == {AttemptId(1, 0, 0, 0), AttemptId(1, 0, 1, 0)}
        bench.canceled(0, 0)
        bench.canceled(0, 1)
        assert bench.status == "CANCELED"
        assert bench.graph.failovers[-1].epoch == 2


def test_a_leader_of_a_cancelled_job_looks_at_no_partitions() -> None:
    old = Bench(pair(consumers=2))
    old.connect()
    old.finished(0)
    old.handle(ev.CancelRequested())
    assert not old.successor().effects(ev.CheckPartitions)


def test_a_failure_without_budget_fails_the_job_once_everything_has_stopped() -> None:
    bench = Bench(pair(producers=2), options(NoRestart()))
    bench.connect()
    bench.failed(0, 0)
    assert bench.status == "FAILING"
    assert bench.cancelled() == [AttemptId(1, 0, 1, 0)]
    cause = "producer[0] failed, and the restart strategy allows no further restart: it broke"
    assert bench.graph.status_cause == cause
    assert bench.graph.exceptions[-1].vertex == -1
    bench.failed(0, 1)
    assert bench.status == "FAILED"
    assert bench.graph.status_cause == cause
    assert bench.effects(ev.JobEnded) == [ev.JobEnded(JobStatus.FAILED)]


def test_a_failing_job_can_be_cancelled() -> None:
    bench = Bench(pair(producers=2), options(NoRestart()))
    bench.connect()
    bench.failed(0, 0)
    bench.handle(ev.CancelRequested())
    bench.canceled(0, 1)
    assert bench.status == "CANCELED"


def test_killed_at_each_operation_of_a_failure_the_job_fails_all_the_same() -> None:
    old = Bench(pair(producers=2), options(NoRestart()))
    old.connect()
    first = len(old.log) + 1
    old.failed(0, 0)
    for upto in range(first, len(old.log) + 1):
        bench = old.successor(upto=upto)
        bench.connect(reports=[bench.report(0, 1, E.RUNNING)])
        bench.canceled(0, 1)
        assert bench.status == "FAILED"


def test_the_budget_is_counted_over_failovers() -> None:
    bench = Bench(pair(), options(FixedDelay(3, 10)))
    for _ in range(3):
        bench.connect()
        bench.failed(0)
        bench = bench.successor()
        bench.connect()
        bench.wait()
    assert bench.status == "RUNNING"
    assert bench.attempt(0).attempt == 3
    bench.failed(0)
    assert bench.status == "FAILED"


def test_splits_that_cannot_be_had_fail_the_job() -> None:
    bench = Bench(word_count())
    assert bench.effects(ev.EnumerateSplits) == [ev.EnumerateSplits(0)]
    bench.handle(ev.EnumerationFailed(0, "no such file"))
    assert bench.status == "FAILED"
    assert bench.graph.status_cause == "the splits of 'tokenize': no such file"


def test_a_long_cause_is_cut() -> None:
    bench = Bench(word_count())
    bench.handle(ev.EnumerationFailed(0, "x" * 100_000))
    assert len(bench.graph.status_cause) == 4096
