"""The cases that Blink and Flink (FLIP-383) tested their recoveries with, and what becomes of them here.

Each test says in its docstring where the case comes from and, where the outcome is another one, what it was there.
"""

import pytest

from flinkjob.api.job import Partitioner
from flinkjob.graph import operations as ops
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.operations import InputSplit
from flinkjob.graph.states import ExecutionState
from flinkjob.graph.vertex import TaskId
from flinkjob.jobmaster import events as ev
from flinkjob.jobmaster.failover import output_needed
from flinkjob.jobmaster.restart import FixedDelay
from flinkjob.worker.protocol import AttemptId, Report, Splits

from .bench import Bench
from .jobs import FORWARD, HASH, job, pair, vertex, word_count
from .world import options

E = ExecutionState


def consumer_deploying() -> Bench:
    """The producer has FINISHED, the consumer is DEPLOYING."""
    bench = Bench(pair())
    bench.connect()
    bench.finished(0)
    return bench


def test_replay_log() -> None:
    """Blink ``testReplayLog``: a finished producer stays finished, and its consumer goes on."""
    bench = consumer_deploying().successor()
    assert bench.states() == [["FINISHED"], ["DEPLOYING"]]
    bench.connect(reports=[bench.report(1, 0, E.DEPLOYING)])
    bench.handle(ev.PartitionsChecked(()))
    assert bench.status == "RUNNING"
    assert not bench.deployed()
    assert not bench.cancelled()


def test_replay_log_with_failover() -> None:
    """Blink ``testReplayLogWithFailover``: the consumer failed and was deployed again before the leader died."""
    old = consumer_deploying()
    old.failed(1)
    old.wait()
    bench = old.successor()
    assert bench.states() == [["FINISHED"], ["DEPLOYING"]]
    assert bench.attempt(1).attempt == 1
    assert bench.graph.restarts == 1


def test_replay_log_with_full_restart() -> None:
    """Blink ``testReplayLogWithFullRestart``: there the log was cleared, here the restart is in it like all else."""
    old = Bench(pair(), options(full=True))
    old.connect()
    old.finished(0)
    old.failed(1)
    old.wait()
    bench = old.successor()
    assert bench.states() == [["DEPLOYING"], ["CREATED"]]
    assert [bench.attempt(0).attempt, bench.attempt(1).attempt] == [1, 1]


def test_replay_log_lazy_from_source() -> None:
    """Blink ``testReplayLogLazyFromSource``: after a restart of the producer its consumer waits for it again."""
    old = consumer_deploying()
    old.failed(1, lost=(0, 0))
    old.wait()
    bench = old.successor()
    assert bench.states() == [["DEPLOYING"], ["CREATED"]]


def test_reconcile_with_task_executor() -> None:
    """Blink ``testReconcileWithTaskExecutor``: RUNNING is kept; FINISHED was refused there and is taken here."""
    old = Bench(pair(producers=2))
    old.connect()
    old.running(0, 0)
    old.running(0, 1)
    bench = old.successor()
    bench.connect(reports=[bench.report(0, 0, E.RUNNING), bench.report(0, 1, E.FINISHED, size=3)])
    assert bench.states()[0] == ["RUNNING", "FINISHED"]
    assert bench.graph.failovers[-1].verdicts == {"advanced": 1, "continued": 1}


def test_replay_input_splits() -> None:
    """Blink ``testReplayInputSplits``: two splits are taken, so the next one handed out is the third."""
    old = Bench(word_count(sources=3))
    old.handle(ev.SplitsEnumerated(0, tuple(InputSplit(f"file-{number}") for number in range(4))))
    old.connect(slots=3)
    for subtask in (0, 1):
        old.handle(ev.SplitRequested("tm-0", old.attempt(0, subtask), 0))
    old.finished(0, 0)
    bench = old.successor()
    bench.handle(ev.PartitionsChecked(()))
    bench.connect(slots=3, reports=[bench.report(0, 1, E.RUNNING), bench.report(0, 2, E.RUNNING)])
    bench.handle(ev.SplitRequested("tm-0", bench.attempt(0, 2), 0))
    (answer,) = bench.sent(Splits)
    assert answer.split == InputSplit("file-2")


def test_splits_are_answered_while_reconciling() -> None:
    """A task that goes on need not wait for the others' verdicts."""
    old = Bench(word_count(sources=2))
    old.handle(ev.SplitsEnumerated(0, (InputSplit("file-0"), InputSplit("file-1"))))
    old.connect("tm-0", slots=1)
    old.connect("tm-1", slots=1)
    bench = old.successor()
    bench.connect("tm-0", slots=1, reports=[bench.report(0, 0, E.RUNNING)])
    bench.handle(ev.SplitRequested("tm-0", bench.attempt(0, 0), 0))
    assert bench.status == "RECONCILING"
    assert [answer.split for answer in bench.sent(Splits)] == [InputSplit("file-0")]


def test_continue_schedule_after_replaying_an_empty_log() -> None:
    """Blink ``testContinueScheduleAfterReplayingEmptyLog``."""
    bench = Bench(pair(), log=[])
    bench.connect()
    assert bench.state(0) == "DEPLOYING"
    assert bench.graph.run == 1


def test_a_log_of_one_operation_begins_the_job() -> None:
    """The leader died after its epoch's start and before the job's."""
    bench = Bench(word_count()).successor(upto=1)
    assert bench.status == "RUNNING"
    assert bench.graph.run == 1
    assert bench.effects(ev.EnumerateSplits) == [ev.EnumerateSplits(0)]
    bench.handle(ev.SplitsEnumerated(0, ()))
    bench.connect()
    assert len(bench.deployed()) == 2


def test_failover_after_reconcile_deploying_executions() -> None:
    """Blink ``testFailoverAfterReconcileDeployingExecutions``: nobody reports, so both fail when the time is over."""
    old = Bench(pair(producers=2), options(reconcile=1000))
    old.connect()
    bench = old.successor()
    bench.wait()
    assert bench.status == "RUNNING"
    assert bench.states()[0] == ["FAILED", "FAILED"]
    assert [restarted.subtask for restarted in bench.graph.failovers[-1].restarted] == [0, 1]


def test_continue_scheduling_after_replaying_only_resets() -> None:
    """Blink ``testContinueSchedulingAfterReplayOnlyResetLogs``: everything is CREATED again and waits; the job got stuck."""
    old = Bench(pair())
    old.connect()
    old.failed(0)
    old.wait()
    bench = old.successor(upto=old.upto(ops.TasksReset))
    assert bench.states() == [["CREATED"], ["CREATED"]]
    bench.connect()
    assert bench.deployed() == [AttemptId(1, 0, 0, 1)]


def test_batch_with_task_failover() -> None:
    """Blink ``BatchWithTaskFailoverITCase``: the leader dies, a second later a TaskManager; it costs one restart."""
    old = Bench(pair(producers=2), options(FixedDelay(1, 1000)))
    old.connect("tm-0", slots=1)
    old.connect("tm-1", slots=1)
    old.running(0, 0, on="tm-0")
    old.running(0, 1, on="tm-1")
    bench = old.successor()
    bench.connect("tm-0", slots=1, reports=[bench.report(0, 0, E.RUNNING)])
    bench.handle(ev.TaskManagerGone("tm-1", "killed"), after=1000)
    assert bench.status == "RUNNING"
    assert bench.states()[0] == ["RUNNING", "FAILED"]
    assert not bench.logged(ops.TaskStateChanged)[2:], "nothing was cancelled"
    assert len(bench.logged(ops.RestartScheduled)) == 1


def test_recover_slot() -> None:
    """Blink ``SlotPoolTest.testRecoverSlot``: a task that goes on has its slot, and only the others get new tasks."""
    old = Bench(pair(producers=3))
    old.connect(slots=2)
    old.running(0, 0)
    old.running(0, 1)
    bench = old.successor()
    bench.connect(slots=2, reports=[bench.report(0, 0, E.RUNNING), bench.report(0, 1, E.RUNNING)])
    assert bench.status == "RUNNING"
    assert not bench.deployed()
    bench.finished(0, 1)
    assert bench.deployed() == [AttemptId(1, 0, 2, 0)]


def deployed() -> Bench:
    """Two producers run on one TaskManager, which is about to connect anew to the same leader."""
    bench = Bench(pair(producers=2))
    bench.connect()
    bench.running(0, 0)
    bench.running(0, 1)
    bench.handle(ev.TaskManagerDisconnected("tm-0"))
    return bench


def test_matching_deployments() -> None:
    """Flink ``DefaultExecutionDeploymentReconcilerTest.testMatchingDeployments``."""
    bench = deployed()
    bench.connect(reports=[bench.report(0, 0, E.RUNNING), bench.report(0, 1, E.RUNNING)])
    assert bench.states()[0] == ["RUNNING", "RUNNING"]
    assert (bench.deployed(), bench.cancelled()) == ([], [])


def test_missing_deployments() -> None:
    """Flink ``DefaultExecutionDeploymentReconcilerTest.testMissingDeployments``: what is not there has failed."""
    bench = deployed()
    bench.connect(reports=[bench.report(0, 0, E.RUNNING)])
    assert bench.states()[0] == ["RUNNING", "FAILED"]
    assert bench.cancelled() == []


def test_unknown_deployments() -> None:
    """Flink ``DefaultExecutionDeploymentReconcilerTest.testUnknownDeployments``: what nobody asked for is cancelled."""
    bench = deployed()
    unknown = AttemptId(1, 1, 0, 7)
    known = [bench.report(0, 0, E.RUNNING), bench.report(0, 1, E.RUNNING)]
    bench.connect(slots=2, reports=[*known, Report(unknown, E.RUNNING)])
    assert bench.states() == [["RUNNING", "RUNNING"], ["CREATED"]]
    assert bench.cancelled() == [unknown]


def test_missing_and_unknown_deployments() -> None:
    """Flink ``DefaultExecutionDeploymentReconcilerTest.testMissingAndUnknownDeployments``: each gets its due at once."""
    bench = deployed()
    unknown = AttemptId(1, 1, 0, 7)
    bench.connect(reports=[bench.report(0, 0, E.RUNNING), Report(unknown, E.RUNNING)])
    assert bench.states() == [["RUNNING", "FAILED"], ["CREATED"]]
    assert bench.cancelled() == [unknown]


def test_pending_deployments_are_not_failed() -> None:
    """Flink ``DefaultExecutionDeploymentReconcilerTest.testPendingDeployments``, and JobMaster's
    ``testExecutionDeploymentReconciliationForPendingExecution``: here the command is sent again.
    """
    old = Bench(pair())
    old.connect()
    bench = old.successor()
    bench.connect()
    assert bench.deployed() == [AttemptId(1, 0, 0, 0)]


def test_recover_from_jm_failover() -> None:
    """FLIP-383 ``testRecoverFromJMFailover``: finished tasks are kept; running ones ran again there and go on here."""
    old = consumer_deploying()
    old.running(1)
    bench = old.successor()
    bench.connect(reports=[bench.report(1, 0, E.RUNNING)])
    bench.handle(ev.PartitionsChecked(()))
    bench.finished(1)
    assert bench.status == "FINISHED"
    assert [bench.attempt(0).attempt, bench.attempt(1).attempt] == [0, 0]


def test_source_not_all_finished() -> None:
    """FLIP-383 ``testSourceNotAllFinished``: the finished subtask is kept, the other one goes on."""
    old = Bench(pair(producers=2))
    old.connect()
    old.finished(0, 0)
    bench = old.successor()
    bench.handle(ev.PartitionsChecked(()))
    bench.connect(reports=[bench.report(0, 1, E.RUNNING)])
    assert bench.states() == [["FINISHED", "RUNNING"], ["CREATED"]]


def test_task_executor_not_registered_on_time() -> None:
    """FLIP-383 ``testTaskExecutorNotRegisterOnTime``: with no time at all, everything that ran fails at once."""
    old = Bench(pair(), options(reconcile=0))
    old.connect()
    bench = old.successor()
    assert bench.status == "RUNNING"
    assert bench.state(0) == "FAILED"
    assert bench.graph.failovers[-1].verdicts == {"restarted": 1}


def test_recover_decided_parallelism_from_the_same_job_graph_instance() -> None:
    """FLIP-383 ``testRecoverDecidedParallelismFromTheSameJobGraphInstance``: there a leader decided it, and wrote it into
    the JobGraph; here it is declared, and no term changes anything in the JobGraph that all of them share.
    """
    graph = pair(producers=3, consumers=2)
    stored = graph.encode()
    bench = Bench(graph)
    for _ in range(2):
        bench.connect(slots=3, reports=[bench.report(0, 0, E.RUNNING)] if bench.graph.epoch > 1 else [])
        bench.running(0, 0)
        bench = bench.successor()
        assert bench.graph.job_graph is graph
        assert [len(states) for states in bench.states()] == [3, 2]
    assert graph.encode() == stored


def test_recover_from_jm_failover_and_partitions_unavailable() -> None:
    """FLIP-383 ``testRecoverFromJMFailoverAndPartitionsUnavailable``."""
    bench = consumer_deploying().successor()
    bench.connect(reports=[bench.report(1, 0, E.RUNNING)])
    bench.handle(ev.PartitionsChecked((TaskId(0, 0),)))
    assert bench.cancelled() == [AttemptId(1, 1, 0, 0)]
    bench.wait()
    assert bench.deployed() == [AttemptId(1, 0, 0, 1)]


def test_partition_not_found_twice_after_jm_failover() -> None:
    """FLIP-383 ``testPartitionNotFoundTwiceAfterJMFailover``: it is missing again when the next leader looks."""
    first = consumer_deploying().successor()
    first.connect(reports=[first.report(1, 0, E.RUNNING)])
    first.handle(ev.PartitionsChecked((TaskId(0, 0),)))
    first.canceled(1)
    first.wait()
    first.finished(0)
    assert first.deployed() == [AttemptId(1, 1, 0, 1)]
    second = first.successor()
    second.handle(ev.PartitionsChecked((TaskId(0, 0),)))
    second.connect(reports=[second.report(1, 0, E.RUNNING)])
    second.canceled(1)
    second.wait()
    assert second.deployed() == [AttemptId(1, 0, 0, 2)]
    second.finished(0)
    second.finished(1)
    assert second.status == "FINISHED"
    assert second.graph.restarts == 2


def test_an_input_found_missing_by_a_task_while_reconciling_restarts_its_producer() -> None:
    """A report that was lost with the old leader tells of a lost partition."""
    bench = consumer_deploying().successor()
    report = bench.report(1, 0, E.FAILED)
    bench.connect(reports=[type(report)(report.attempt, report.state, cause="gone", lost_input=(0, 0))])
    bench.handle(ev.PartitionsChecked(()))
    assert [op.tasks for op in bench.logged(ops.RestartScheduled)] == [((0, 0), (1, 0))]


@pytest.mark.parametrize("edge", [FORWARD, HASH])
def test_what_a_task_reads_that_is_to_run_again_is_needed(edge: Partitioner) -> None:
    graph = ExecutionGraph(job(vertex("a"), vertex("b", reads={"a": edge}), vertex("c", reads={"b": edge})))
    graph.apply_all([ops.EpochStarted(1, "jm", 1), ops.TaskManagerRegistered("tm", "tm:1", 1, 1)])
    for finished in (0, 1, 2):
        graph.apply(ops.TaskDeploying(finished, 0, 0, 0, 1))
        graph.apply(ops.TaskFinished(finished, 0, 0, 1, ops.ResultPartition(1, 1, 1)))
    assert [output_needed(graph, producer, 0) for producer in (0, 1, 2)] == [False, False, True]
    graph.apply(ops.RestartScheduled(((1, 0), (2, 0)), 9, "its partition is lost", ops.RestartState(1), 1))
    assert [output_needed(graph, producer, 0) for producer in (0, 1, 2)] == [True, False, False]
