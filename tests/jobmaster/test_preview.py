"""A preview says what a failover would come to: compared with one that really happens, and in the cases one by one."""

from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flinkjob.api.job import InputSpec, Partitioner, TaskSpec, VertexSpec
from flinkjob.graph import operations as ops
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.jobgraph import JobGraph
from flinkjob.graph.states import ExecutionState, JobStatus
from flinkjob.graph.vertex import TaskId
from flinkjob.jobmaster import events as ev
from flinkjob.jobmaster.deciding import JobMasterOptions
from flinkjob.jobmaster.failover import outputs_needed
from flinkjob.jobmaster.master import JobMaster
from flinkjob.jobmaster.preview import FailoverPreview, preview_failover
from flinkjob.jobmaster.restart import FixedDelay
from flinkjob.jobmaster.verdicts import Verdict
from flinkjob.worker.protocol import AttemptId, Report

TASKMANAGERS = ("tm-0", "tm-1")
OPTIONS = JobMasterOptions(reconcile_timeout=60_000, heartbeat_timeout=50_000, restart_strategy=FixedDelay(10, 0))
_E = ExecutionState


def job() -> ExecutionGraph:
    """Three sources, each read by all of three consumers; two TaskManagers, epoch 1."""
    task = TaskSpec(command=("true",))
    edge = (InputSpec(source="read", partitioner=Partitioner.HASH),)
    vertices = (
        VertexSpec(name="read", parallelism=3, task=task),
        VertexSpec(name="count", parallelism=3, task=task, inputs=edge),
    )
    graph = ExecutionGraph(JobGraph.build(job_id="0" * 32, name="job", vertices=vertices))
    graph.apply_all(
        [
            ops.EpochStarted(1, "jm-0", 1),
            *(ops.TaskManagerRegistered(name, "here", 9, 1) for name in TASKMANAGERS),
            ops.JobStatusChanged(JobStatus.RUNNING, 1),
        ]
    )
    return graph


def bring(graph: ExecutionGraph, vertex: int, subtask: int, state: ExecutionState, taskmanager: int = 0) -> None:
    """Bring a subtask's first attempt into a state."""
    if state is not _E.CREATED:
        graph.apply(ops.TaskDeploying(vertex, subtask, 0, taskmanager, 2))
    if state in (_E.RUNNING, _E.CANCELING):
        graph.apply(ops.TaskStateChanged(vertex, subtask, 0, _E.RUNNING, 3))
    if state is _E.CANCELING:
        graph.apply(ops.TaskStateChanged(vertex, subtask, 0, _E.CANCELING, 4))
    if state is _E.FINISHED:
        graph.apply(ops.TaskFinished(vertex, subtask, 0, 4, ops.ResultPartition(10, 1, 7)))


def told(preview: FailoverPreview) -> dict[tuple[int, int], tuple[Verdict, str]]:
    return {tuple(item.task): (item.verdict, item.reason) for item in preview.tasks}  # type: ignore[misc]


def everybody(id: str) -> bool:
    return True


def test_tasks_that_run_on_connected_taskmanagers_are_continued() -> None:
    graph = job()
    for subtask in range(3):
        bring(graph, 0, subtask, _E.RUNNING, subtask % 2)
    preview = preview_failover(graph, connected=everybody)
    assert preview == FailoverPreview({Verdict.CONTINUED: 3}, (), ())


def test_what_is_not_simply_continued_is_told_with_its_reason() -> None:
    graph = job()
    bring(graph, 0, 0, _E.DEPLOYING)
    bring(graph, 0, 1, _E.CANCELING)
    bring(graph, 0, 2, _E.RUNNING, 1)
    preview = preview_failover(graph, connected=lambda id: id == "tm-0")
    assert preview.waited_for == ("tm-1",)
    tasks = told(preview)
    assert {task: verdict for task, (verdict, _) in tasks.items()} == {
        (0, 0): Verdict.REDEPLOYED,
        (0, 1): Verdict.CANCELED_AGAIN,
        (0, 2): Verdict.CONFLICT,
    }
    assert "tm-1 is not connected" in tasks[0, 2][1]


def test_a_missing_partition_takes_its_consumers_with_it() -> None:
    graph = job()
    for subtask in range(3):
        bring(graph, 0, subtask, _E.FINISHED)
    bring(graph, 1, 0, _E.RUNNING)
    preview = preview_failover(graph, connected=everybody, missing=[TaskId(0, 1)])
    assert told(preview) == {
        (0, 1): (Verdict.CONFLICT, "its result partition is missing or damaged"),
        (1, 0): (Verdict.CONFLICT, "what it read runs again"),
    }
    assert preview.verdicts[Verdict.CONTINUED] == 0


def test_the_full_strategy_restarts_all_that_has_begun_if_anything() -> None:
    graph = job()
    bring(graph, 0, 0, _E.RUNNING, 0)
    bring(graph, 0, 1, _E.RUNNING, 1)
    assert preview_failover(graph, connected=everybody, restart_all=True).verdicts == {Verdict.CONTINUED: 2}
    preview = preview_failover(graph, connected=lambda id: id == "tm-0", restart_all=True)
    assert preview.verdicts == {Verdict.CONFLICT: 2, Verdict.CONTINUED: 0}


def test_without_a_log_all_that_has_begun_runs_again() -> None:
    graph = job()
    bring(graph, 0, 0, _E.RUNNING)
    bring(graph, 0, 1, _E.FINISHED)
    preview = preview_failover(graph, connected=everybody, logged=False)
    assert set(told(preview)) == {(0, 0), (0, 1)}
    assert all("no operation log" in reason for _, reason in told(preview).values())


def test_a_restart_that_is_scheduled_already_is_told() -> None:
    graph = job()
    bring(graph, 0, 0, _E.RUNNING)
    graph.apply(ops.TaskFailed(0, 0, 0, 5, "oops"))
    graph.apply(ops.RestartScheduled(((0, 0),), 9_000, "oops", ops.RestartState(), 5))
    assert told(preview_failover(graph, connected=everybody)) == {
        (0, 0): (Verdict.CONFLICT, "its restart is already scheduled")
    }


def test_after_the_jobs_end_there_is_nothing_to_fail_over() -> None:
    graph = job()
    graph.apply(ops.JobStatusChanged(JobStatus.CANCELLING, 5))
    graph.apply(ops.JobStatusChanged(JobStatus.CANCELED, 5))
    assert preview_failover(graph, connected=everybody) == FailoverPreview({}, (), ())


@st.composite
def situations(draw: st.DrawFn) -> tuple[ExecutionGraph, dict[int, bool], set[TaskId]]:
    """A graph in the middle of its job, which TaskManagers are connected, and which partitions are gone."""
    graph = job()
    sources = [draw(st.sampled_from([_E.CREATED, _E.DEPLOYING, _E.RUNNING, _E.FINISHED])) for _ in range(3)]
    for subtask, state in enumerate(sources):
        bring(graph, 0, subtask, state, draw(st.integers(0, 1)))
    if all(state is _E.FINISHED for state in sources):
        for subtask in range(3):
            state = draw(st.sampled_from([_E.CREATED, _E.DEPLOYING, _E.RUNNING]))
            bring(graph, 1, subtask, state, draw(st.integers(0, 1)))
    needed = sorted(outputs_needed(graph))
    missing = set(draw(st.lists(st.sampled_from(needed)))) if needed else set()
    return graph, {0: draw(st.booleans()), 1: draw(st.booleans())}, missing


@given(situations())
def test_a_failover_at_that_moment_comes_to_what_was_foretold(
    situation: tuple[ExecutionGraph, dict[int, bool], set[TaskId]],
) -> None:
    graph, connected, missing = situation
    preview = preview_failover(graph, connected=lambda id: connected[TASKMANAGERS.index(id)], missing=missing)
    restarted = {task for task, (verdict, _) in told(preview).items() if verdict is Verdict.CONFLICT}
    redeployed = {task for task, (verdict, _) in told(preview).items() if verdict is Verdict.REDEPLOYED}

    copy = ExecutionGraph.restore(graph.job_graph, graph.snapshot())
    effects, decided = fail_over(copy, connected, missing)
    assert decided.verdicts.get("continued", 0) == count(graph, _E.RUNNING, connected)
    assert {(task.vertex, task.subtask) for task in decided.restarted} == restarted
    sent = {(a.vertex, a.subtask) for a in effects if a.attempt == 0}
    # What the failover sends once more with its old attempt, and what it deploys for the first time after it.
    created = {(v, s) for v in range(2) for s in range(3) if graph.state_of(TaskId(v, s)) is _E.CREATED}
    # Some it sends before it hears that what they read is lost.
    assert sent - created - restarted == redeployed


def count(graph: ExecutionGraph, state: ExecutionState, connected: dict[int, bool]) -> int:
    """The tasks in a state on TaskManagers that come back."""
    return sum(connected[graph.vertex_of(task).taskmanager[task.subtask]] for task in graph.tasks_in(state))


def fail_over(
    graph: ExecutionGraph, connected: dict[int, bool], missing: Collection[TaskId]
) -> tuple[list[AttemptId], ops.FailoverCompleted]:
    """A new leader takes over; TaskManagers report what runs, but have not got what is being deployed."""
    master = JobMaster(graph, OPTIONS)
    reports: dict[int, list[Report]] = {0: [], 1: []}
    for task in graph.tasks_in(_E.RUNNING):
        reports[graph.vertex_of(task).taskmanager[task.subtask]].append(
            Report(AttemptId(graph.run, *task, 0), _E.RUNNING)
        )
    effects: list[Any] = [*master.start(epoch=2, leader="jm-1", now=10).effects]
    for index, name in enumerate(TASKMANAGERS):
        if connected[index]:
            event = ev.TaskManagerConnected(name, "here", 9, tuple(reports[index]))
            effects += master.handle(event, 11).effects
    asked = [check for check in effects if isinstance(check, ev.CheckPartitions)]
    while asked:
        check = asked.pop()
        gone = tuple(task for task, _, _ in check.partitions if task in missing)
        new = master.handle(ev.PartitionsChecked(gone), 12).effects
        asked += [each for each in new if isinstance(each, ev.CheckPartitions)]
        effects += new
    effects += master.handle(ev.TimePassed(), 11 + OPTIONS.reconcile_timeout).effects
    deployed = [
        deployment.attempt
        for effect in effects
        if isinstance(effect, ev.Send) and hasattr(effect.message, "deployments")
        for deployment in effect.message.deployments
    ]
    assert graph.failovers, "the failover is over"
    return deployed, graph.failovers[-1]


@pytest.mark.parametrize("state", [_E.CREATED, _E.RUNNING])
def test_only_finished_subtasks_have_outputs_that_are_needed(state: ExecutionState) -> None:
    graph = job()
    bring(graph, 0, 0, state)
    assert list(outputs_needed(graph)) == []
    bring(graph, 0, 1, _E.FINISHED)
    assert list(outputs_needed(graph)) == [TaskId(0, 1)]
