"""Which tasks run again: the region rules, ``full``, lost partitions, and leaders that die in the middle of it."""

from flinkjob.graph import operations as ops
from flinkjob.graph.states import ExecutionState, JobStatus
from flinkjob.graph.vertex import TaskId
from flinkjob.jobmaster import events as ev
from flinkjob.jobmaster.failover import full_restart, inputs_of, output_needed, region_restart
from flinkjob.jobmaster.restart import FixedDelay, NoRestart
from flinkjob.worker.protocol import AttemptId, Cancel, Deploy

from .bench import Bench
from .jobs import BROADCAST, FORWARD, HASH, REBALANCE, chain, diamond, job, pair, vertex
from .world import options

E = ExecutionState


def tasks(*places: tuple[int, int]) -> set[TaskId]:
    """Those subtasks."""
    return {TaskId(*place) for place in places}


def half_done() -> Bench:
    """A producer of two subtasks has finished; of two consumers one has finished and one runs; a third vertex waits."""
    bench = Bench(
        job(vertex("p", 2), vertex("c", 2, reads={"p": HASH}), vertex("d", 2, reads={"c": FORWARD, "p": BROADCAST}))
    )
    bench.connect(slots=2)
    bench.finished(0, 0)
    bench.finished(0, 1)
    bench.finished(1, 0)
    assert bench.states() == [["FINISHED"] * 2, ["FINISHED", "DEPLOYING"], ["DEPLOYING", "CREATED"]]
    bench.running(1, 1)
    return bench


# The rules


def test_rule_1_a_region_is_one_subtask_and_finished_neighbours_stay() -> None:
    bench = half_done()
    assert region_restart(bench.graph, tasks((1, 1)), []) == tasks((1, 1))


def test_rule_2_the_producer_of_a_lost_partition_runs_again() -> None:
    bench = half_done()
    assert TaskId(0, 1) in region_restart(bench.graph, tasks((1, 1)), tasks((0, 1)))
    assert TaskId(0, 0) not in region_restart(bench.graph, tasks((1, 1)), tasks((0, 1)))


def test_rule_3_all_consumers_that_have_begun_run_again_finished_ones_too_and_their_consumers() -> None:
    bench = half_done()
    assert region_restart(bench.graph, [], tasks((0, 0))) == tasks((0, 0), (1, 0), (1, 1), (2, 0))


def test_a_forward_edge_passes_a_restart_on_to_its_own_subtask_only() -> None:
    bench = Bench(chain(3))
    bench.connect(slots=9)
    for subtask in range(3):
        bench.finished(0, subtask)
    bench.finished(1, 2)
    assert region_restart(bench.graph, [], tasks((0, 2))) == tasks((0, 2), (1, 2), (2, 2))


def test_full_restarts_all_that_has_begun_and_nothing_else() -> None:
    bench = half_done()
    assert full_restart(bench.graph) == tasks((0, 0), (0, 1), (1, 0), (1, 1), (2, 0))


def test_inputs_are_found_through_each_kind_of_edge() -> None:
    bench = half_done()
    assert inputs_of(bench.graph, tasks((2, 0))) == tasks((1, 0), (0, 0), (0, 1))
    assert inputs_of(bench.graph, tasks((0, 0))) == set()


def test_an_output_is_needed_until_its_last_consumer_has_finished_and_a_result_always() -> None:
    bench = half_done()
    assert output_needed(bench.graph, 0, 0)
    assert output_needed(bench.graph, 1, 0)
    bench.finished(1, 1)
    bench.finished(2, 0)
    assert not output_needed(bench.graph, 1, 0)
    assert output_needed(bench.graph, 1, 1)
    bench.finished(2, 1)
    assert not output_needed(bench.graph, 0, 0)
    assert output_needed(bench.graph, 2, 1)


# Through the JobMaster


def test_a_failed_task_runs_again_alone_after_its_delay() -> None:
    bench = half_done()
    failed_at = bench.now
    bench.failed(1, 1)
    assert not bench.cancelled()
    assert bench.master.next_deadline() == failed_at + 1000
    bench.wait()
    assert (1, 1, 1, 1) in bench.deployed()
    assert [op.subtasks for op in bench.logged(ops.TasksReset)] == [(1,)]


def test_a_lost_input_restarts_its_producer_and_begun_consumers_once_they_have_stopped() -> None:
    bench = half_done()
    bench.failed(1, 1, lost=(0, 0))
    assert bench.cancelled() == [AttemptId(1, 2, 0, 0)]
    assert bench.states() == [["FINISHED"] * 2, ["FINISHED", "FAILED"], ["CANCELING", "CREATED"]]
    bench.wait()
    assert bench.deployed() == [AttemptId(1, 0, 0, 1)]  # the consumers wait for their producer
    assert bench.states() == [["DEPLOYING", "FINISHED"], ["CREATED", "CREATED"], ["CANCELING", "CREATED"]]
    bench.canceled(2, 0)
    assert bench.state(2, 0) == "CREATED"
    bench.finished(0, 0)
    assert sorted(bench.deployed()) == [AttemptId(1, 1, 0, 1), AttemptId(1, 1, 1, 1)]


def test_a_consumer_is_not_deployed_while_its_producer_waits_to_run_again() -> None:
    bench = Bench(pair(consumers=2))
    bench.connect(slots=1)
    bench.finished(0)
    bench.failed(1, 0, lost=(0, 0))
    assert not bench.deployed(), "consumer[1] has never begun, but what it reads is lost"
    bench.wait()
    assert bench.deployed() == [AttemptId(1, 0, 0, 1)]


def test_a_forward_consumer_is_not_deployed_while_its_producer_waits_to_run_again() -> None:
    graph = job(vertex("a", 2), vertex("b", 2, reads={"a": FORWARD}), vertex("c", 2, reads={"a": FORWARD}))
    bench = Bench(graph)
    bench.connect(slots=1)
    bench.finished(0, 0)
    assert bench.deployed() == [AttemptId(1, 0, 1, 0)]
    bench.finished(0, 1)
    assert bench.deployed() == [AttemptId(1, 1, 0, 0)]
    bench.failed(1, 0, lost=(0, 0))
    assert bench.deployed() == [AttemptId(1, 1, 1, 0)]
    bench.finished(1, 1)
    assert bench.deployed() == [AttemptId(1, 2, 1, 0)], "c[0] comes before c[1], but what it reads is lost"


def test_a_lost_input_that_is_none_of_the_tasks_inputs_is_not_believed() -> None:
    for nonsense in ((1, 0), (2, 1), (0, 99), (-1, 0), (0, -1), (99, 0)):
        bench = half_done()
        bench.failed(1, 1, lost=nonsense)
        assert [op.tasks for op in bench.logged(ops.RestartScheduled)] == [((1, 1),)]


def test_full_restarts_everything_and_no_cancel_overtakes_a_deployment() -> None:
    old = Bench(pair(producers=2), options(full=True))
    old.connect(slots=2)
    old.running(0, 0)
    bench = old.successor()
    bench.connect(slots=2)  # nothing arrived: [0] is lost, [1] is deployed again, and both restart
    kinds = [type(effect.message) for effect in bench.effects(ev.Send)]
    assert kinds == [Deploy, Cancel]
    assert bench.state(0, 1) == "CANCELING"


def test_a_finished_result_that_is_lost_runs_again_before_the_job_can_finish() -> None:
    old = Bench(job(vertex("only")))
    old.connect()
    old.finished(0)
    bench = old.successor(upto=old.upto(ops.TaskFinished))
    bench.connect()
    bench.handle(ev.PartitionsChecked((TaskId(0, 0),)))
    assert bench.status == "RUNNING"
    bench.wait()
    assert bench.deployed() == [AttemptId(1, 0, 0, 1)]
    bench.finished(0)
    assert bench.status == "FINISHED"


def test_what_runs_again_has_its_own_inputs_looked_at_too() -> None:
    old = Bench(chain(1), options(FixedDelay(1, 1000)))
    old.connect()
    old.finished(0)
    old.finished(1)
    bench = old.successor(upto=old.upto(ops.TaskFinished, vertex=1))
    bench.connect()
    bench.handle(ev.PartitionsChecked((TaskId(1, 0),)))
    (check,) = bench.effects(ev.CheckPartitions)
    assert [task for task, _, _ in check.partitions] == [TaskId(0, 0)]
    assert bench.status == "RECONCILING"
    bench.handle(ev.PartitionsChecked((TaskId(0, 0),)))
    assert [op.tasks for op in bench.logged(ops.RestartScheduled)] == [((0, 0), (1, 0))]
    bench.wait()
    for number in range(3):
        bench.finished(number)
    assert bench.status == "FINISHED", "one restart was enough"


def test_a_partition_that_was_not_asked_for_cannot_be_missing() -> None:
    bench = half_done().successor()
    bench.handle(ev.PartitionsChecked((TaskId(1, 1), TaskId(2, 1))))
    assert not bench.graph.failovers
    assert bench.master.reconciliation is not None
    assert not bench.master.reconciliation.lost


def test_missing_partitions_at_a_failover_restart_the_producer_and_its_begun_consumers() -> None:
    old = half_done()
    old.running(2, 0)
    bench = old.successor()
    bench.connect(slots=2, reports=[bench.report(1, 1, E.RUNNING), bench.report(2, 0, E.RUNNING)])
    bench.handle(ev.PartitionsChecked((TaskId(0, 1),)))
    assert [op.tasks for op in bench.logged(ops.RestartScheduled)] == [((0, 1), (1, 0), (1, 1), (2, 0))]
    assert sorted(bench.cancelled()) == [AttemptId(1, 1, 1, 0), AttemptId(1, 2, 0, 0)]


def test_all_that_fails_in_one_failover_costs_one_restart() -> None:
    old = Bench(pair(producers=4), options(FixedDelay(1, 10)))
    for name in ("tm-0", "tm-1"):
        old.connect(name)
    for subtask, name in enumerate(("tm-0", "tm-0", "tm-1", "tm-1")):
        old.running(0, subtask, on=name)
    bench = old.successor()
    bench.connect("tm-0")
    bench.handle(ev.TaskManagerGone("tm-1", "its pod is gone"))
    (restart,) = bench.logged(ops.RestartScheduled)
    assert len(restart.tasks) == 4
    assert bench.graph.restart_state.restarts == 1


# A leader that dies in the middle


def test_killed_between_failure_and_restart_the_successor_schedules_it_once() -> None:
    old = Bench(pair(), options(FixedDelay(1, 1000)))
    old.connect()
    old.failed(0)
    bench = old.successor(upto=old.upto(ops.TaskFailed))
    assert [op.strategy.restarts for op in bench.logged(ops.RestartScheduled)] == [1]
    bench.connect()
    bench.wait()
    assert bench.deployed() == [AttemptId(1, 0, 0, 1)]
    again = old.successor(upto=old.upto(ops.RestartScheduled))
    assert [op.strategy.restarts for op in again.logged(ops.RestartScheduled)] == [1]


def test_killed_between_failure_and_restart_without_budget_the_successor_fails_the_job() -> None:
    old = Bench(pair(), options(NoRestart()))
    old.connect()
    old.failed(0)
    bench = old.successor(upto=old.upto(ops.TaskFailed))
    assert bench.status == "FAILED"


def interrupted_full_restart() -> Bench:
    """Killed after a restart of everything was logged and before the cancellations that belong to it."""
    old = Bench(pair(producers=2), options(full=True))
    old.connect()
    old.running(0, 1)
    old.failed(0, 0)
    assert old.state(0, 1) == "CANCELING"
    return old.successor(upto=old.upto(ops.RestartScheduled))


def test_killed_between_restart_and_its_cancellations_the_successor_cancels() -> None:
    bench = interrupted_full_restart()
    assert bench.state(0, 1) == "RUNNING"
    bench.connect(reports=[bench.report(0, 1, E.RUNNING)])
    assert bench.cancelled() == [AttemptId(1, 0, 1, 0)]
    bench.canceled(0, 1)
    bench.wait()
    assert sorted(bench.deployed()) == [AttemptId(1, 0, 0, 1), AttemptId(1, 0, 1, 1)]


def test_killed_between_restart_and_its_cancellations_a_task_that_finished_meanwhile_runs_again() -> None:
    bench = interrupted_full_restart()
    bench.connect(reports=[bench.report(0, 1, E.FINISHED, size=1)])
    assert bench.state(0, 1) == "FINISHED"
    bench.wait()
    assert sorted(bench.deployed()) == [AttemptId(1, 0, 0, 1), AttemptId(1, 0, 1, 1)]


def test_killed_while_a_taskmanager_is_given_up_the_successor_does_the_rest() -> None:
    old = Bench(pair(producers=2))
    old.connect()
    old.running(0, 0)
    old.running(0, 1)
    first = len(old.log)
    old.handle(ev.TaskManagerGone("tm-0", "its pod is gone"))
    for upto in range(first, len(old.log) + 1):
        bench = old.successor(upto=upto)
        bench.handle(ev.TaskManagerGone("tm-0", "its pod is gone"))
        bench.wait()
        assert bench.states()[0] == ["CREATED", "CREATED"]
        bench.connect("tm-1")
        assert sorted(bench.deployed()) == [AttemptId(1, 0, 0, 1), AttemptId(1, 0, 1, 1)]


def test_killed_right_after_reconciling_the_successor_reconciles_again() -> None:
    old = Bench(pair())
    old.connect(slots=1)
    old.running(0)
    middle = old.successor()
    middle.connect(slots=1)
    upto = (
        len(middle.log)
        - 1
        - middle.log[::-1].index(next(op for op in reversed(middle.log) if isinstance(op, ops.JobStatusChanged)))
    )
    assert middle.logged(ops.TaskFailed)
    assert middle.log[upto] == ops.JobStatusChanged(JobStatus.RUNNING, middle.now)
    last = middle.successor(upto=upto + 1)
    assert [op.tasks for op in last.logged(ops.RestartScheduled)] == [((0, 0),)]


def test_a_restart_that_waits_goes_on_waiting_after_a_failover() -> None:
    old = Bench(pair(), options(FixedDelay(5, 10_000)))
    old.connect()
    old.failed(0)
    due = old.now + 10_000
    old.now += 4_000
    bench = old.successor()
    bench.connect()
    assert bench.state(0) == "FAILED"
    assert bench.master.next_deadline() == due
    bench.wait()
    assert bench.deployed() == [AttemptId(1, 0, 0, 1)]
    assert len(bench.logged(ops.RestartScheduled)) == 1


def test_consumers_read_the_new_attempt_of_a_producer_that_ran_again() -> None:
    bench = Bench(diamond(1))
    bench.handle(ev.SplitsEnumerated(0, ()))
    bench.connect(slots=9)
    bench.finished(0)
    left, right, join = (bench.graph.job_graph.vertices[i].name for i in (1, 2, 3))
    assert (left, right, join) == ("left", "right", "join")
    bench.failed(2, 1, lost=(0, 0))
    for task in ((1, 0), (2, 0)):
        bench.canceled(*task)
    bench.wait()
    bench.finished(0, size=9)
    for deploy in bench.sent(Deploy):
        for deployment in deploy.deployments:
            ((read,),) = deployment.inputs
            assert (read.attempt, read.partition.size) == (1, 9)


def test_an_empty_partition_is_not_handed_to_consumers() -> None:
    bench = Bench(job(vertex("p", 2), vertex("c", reads={"p": REBALANCE})))
    bench.connect()
    bench.finished(0, 0, size=0)
    bench.finished(0, 1, size=3)
    ((deployment,),) = [deploy.deployments for deploy in bench.sent(Deploy)]
    assert [(p.subtask, p.partition.size) for p in deployment.inputs[0]] == [(1, 3)]
