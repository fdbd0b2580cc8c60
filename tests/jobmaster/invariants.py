"""What must be true of the world at any time, whatever happens to it."""

from collections import Counter
from typing import TYPE_CHECKING, Protocol

from flinkjob.api.job import Partitioner
from flinkjob.graph import operations as ops
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.jobgraph import JobGraph
from flinkjob.graph.states import ExecutionState, JobStatus
from flinkjob.graph.vertex import TaskId
from flinkjob.jobmaster.restart import FixedDelay
from flinkjob.worker.protocol import AttemptId, Cancel

if TYPE_CHECKING:
    from .taskmanagers import Items, TaskManager
    from .world import World

_ACTIVE = (ExecutionState.DEPLOYING, ExecutionState.RUNNING, ExecutionState.CANCELING)
_ENDING = (JobStatus.CANCELLING, JobStatus.FAILING)


class Losses(Protocol):
    """A world in which partitions get lost."""

    job_graph: JobGraph
    lost: set[TaskId]


class Outcome(Protocol):
    """A world in which a job has been run."""

    job_graph: JobGraph
    written: "dict[AttemptId, Items]"
    inputs_read: dict[AttemptId, list[tuple[int, int, int]]]

    @property
    def graph(self) -> ExecutionGraph:
        """What has become of the job."""


# Before an operation is applied


def check_operation(world: "World", operation: ops.Operation) -> None:
    """All that must be true of an operation that the leader decides on, with the graph as it was before."""
    terminal_is_terminal(world, operation)
    if isinstance(operation, ops.TasksReset):
        finished_is_finished(world, operation)
    elif isinstance(operation, ops.TaskStateChanged) and operation.state is ExecutionState.CANCELING:
        nothing_consistent_is_cancelled(world, operation)
    elif isinstance(operation, ops.TaskFailed):
        nothing_consistent_fails(world, operation)
    elif isinstance(operation, ops.TaskManagerRemoved):
        removed_taskmanagers_hold_nothing(world, operation)
    elif isinstance(operation, ops.RestartScheduled):
        the_budget_survives(world)
    elif isinstance(operation, ops.TaskDeploying):
        inputs_are_there(world, operation)


def terminal_is_terminal(world: "World", operation: ops.Operation) -> None:
    """Once the job's end is in the log, nothing follows but the epochs of leaders that learn of it."""
    assert not world.replayed.status.terminal or isinstance(operation, ops.EpochStarted), f"{operation} after the end"


def finished_is_finished(world: "World", operation: ops.TasksReset) -> None:
    """A finished task runs again only if its partition was lost, or a producer's was, or everything is restarted."""
    for subtask in operation.subtasks:
        task = TaskId(operation.vertex, subtask)
        if world.replayed.state_of(task) is ExecutionState.FINISHED:
            assert world.options.restart_all or task in world.lost or producer_lost(world, task), f"{task} runs again"


def nothing_consistent_is_cancelled(world: "World", operation: ops.TaskStateChanged) -> None:
    """A running attempt is cancelled only if the job ends, what it reads was lost, or everything is restarted."""
    task = TaskId(operation.vertex, operation.subtask)
    assert world.replayed.status in _ENDING or world.options.restart_all or producer_lost(world, task), (
        f"{task} is cancelled for nothing"
    )


def nothing_consistent_fails(world: "World", operation: ops.TaskFailed) -> None:
    """An attempt fails only if something happened to it or to its TaskManager."""
    graph = world.replayed
    attempt = AttemptId(graph.run, operation.vertex, operation.subtask, operation.attempt)
    taskmanager = graph.vertices[operation.vertex].taskmanager[operation.subtask]
    lost_input = operation.cause == "an input is lost" and producer_lost(
        world, TaskId(operation.vertex, operation.subtask)
    )
    assert attempt in world.broken or lost_input or _is_away(world, taskmanager), f"{attempt}: {operation.cause}"


def removed_taskmanagers_hold_nothing(world: "World", operation: ops.TaskManagerRemoved) -> None:
    """A TaskManager is given up only if it is away, and once the log has no attempt on it any more."""
    assert _is_away(world, operation.taskmanager), f"TaskManager {operation.taskmanager} is not away"
    for task in world.replayed.active_tasks():
        on = world.replayed.vertex_of(task).taskmanager[task.subtask]
        assert on != operation.taskmanager, f"{task} is still on it"


def the_budget_survives(world: "World") -> None:
    """Failovers do not renew the restart budget."""
    strategy = world.options.restart_strategy
    if isinstance(strategy, FixedDelay):
        assert sum(isinstance(op, ops.RestartScheduled) for op in world.log) < strategy.attempts


def inputs_are_there(world: "World", operation: ops.TaskDeploying) -> None:
    """A task is deployed only when all that it reads has been produced and is not about to be produced again."""
    graph = world.replayed
    for edge in world.job_graph.vertices[operation.vertex].inputs:
        forward = edge.partitioner is Partitioner.FORWARD
        for subtask in (operation.subtask,) if forward else range(graph.vertices[edge.source].parallelism):
            source = TaskId(edge.source, subtask)
            assert graph.state_of(source) is ExecutionState.FINISHED, f"{source} has not finished"
            assert source not in graph.restart_due, f"{source} is to run again"


def producer_lost(world: Losses, task: TaskId) -> bool:
    """Whether a partition was lost anywhere above the task."""
    return any(
        _any_lost(world, edge.source, task.subtask if edge.partitioner is Partitioner.FORWARD else None)
        for edge in world.job_graph.vertices[task.vertex].inputs
    )


def _any_lost(world: Losses, vertex: int, subtask: int | None) -> bool:
    subtasks = range(world.job_graph.vertices[vertex].parallelism) if subtask is None else (subtask,)
    return any(TaskId(vertex, s) in world.lost or producer_lost(world, TaskId(vertex, s)) for s in subtasks)


def _is_away(world: "World", index: int) -> bool:
    """Whether the leader has a reason to give a TaskManager up."""
    info = world.replayed.taskmanagers[index]
    taskmanager = world.taskmanagers.get(info.id)
    if taskmanager is None or info.removed or taskmanager.slots != info.slots:
        return True
    assert world.leader is not None
    patience = min(world.options.reconcile_timeout, world.options.heartbeat_timeout)
    return info.id not in world.leader.links and world.now - world.leader.away_since[info.id] >= patience


# After a decision


def check_decision(world: "World") -> None:
    """All that must be true once an event is decided on."""
    the_log_folds_to_the_graph(world)
    time_goes_on(world)
    counts_are_right(world)
    splits_are_dealt_out_once(world)


def the_log_folds_to_the_graph(world: "World") -> None:
    """``fold(apply, log) == graph``, byte by byte."""
    assert world.graph.lsn == world.replayed.lsn == len(world.log)
    assert world.graph.snapshot() == world.replayed.snapshot()


def time_goes_on(world: "World") -> None:
    """What the leader waits for lies ahead; otherwise its timer would spin."""
    assert world.leader is not None
    deadline = world.leader.master.next_deadline()
    assert deadline is None or deadline > world.now, "the deadline has passed already"


# On the way to a TaskManager


def check_cancel(world: "World", message: Cancel) -> None:
    """No command to cancel reaches an attempt that the log has as present and wanted."""
    for attempt in message.attempts:
        task = TaskId(attempt.vertex, attempt.subtask)
        vertex = world.replayed.vertex_of(task)
        wanted = world.replayed.state_of(task) in (ExecutionState.DEPLOYING, ExecutionState.RUNNING)
        present = vertex.attempt[task.subtask] == attempt.attempt and attempt.run == world.replayed.run
        assert not (wanted and present), f"{attempt} is cancelled"


def check_begun(world: "World", taskmanager: "TaskManager", attempt: AttemptId) -> None:
    """A successor would know of each attempt that is begun, and none is begun twice unless its process died."""
    assert attempt[1:] in world.durable_deployments, f"{attempt} was begun before it was durable"
    assert world.starts[attempt] == 1 or attempt in world.broken, f"{attempt} was begun twice"


def check_ended(world: "World", status: JobStatus) -> None:
    """The job's end is told only when it is in the log."""
    assert world.replayed.status is status
    assert world.over


# After each step


def check_world(world: "World") -> None:
    """All that must be true at any time."""
    slots_are_not_overused(world)
    an_attempt_runs_once(world)
    no_end_is_forgotten(world)


def slots_are_not_overused(world: "World") -> None:
    """No TaskManager has more attempts than slots."""
    for taskmanager in world.taskmanagers.values():
        assert len(taskmanager.attempts) <= taskmanager.slots, f"{taskmanager.id} runs {list(taskmanager.attempts)}"


def an_attempt_runs_once(world: "World") -> None:
    """No attempt is on two TaskManagers."""
    held = [attempt for taskmanager in world.taskmanagers.values() for attempt in taskmanager.attempts]
    assert len(held) == len(set(held)), f"one of {held} runs twice"


def no_end_is_forgotten(world: "World") -> None:
    """An attempt that the durable log has as active is held by its TaskManager, or its end is, or something happened."""
    graph = world.replayed
    for task in graph.tasks_in(ExecutionState.RUNNING):
        vertex = graph.vertex_of(task)
        attempt = AttemptId(graph.run, *task, vertex.attempt[task.subtask])
        taskmanager = world.taskmanagers.get(graph.taskmanagers[vertex.taskmanager[task.subtask]].id)
        if taskmanager is not None and attempt not in world.broken:
            assert attempt in taskmanager.attempts or attempt in taskmanager.ended, f"{attempt} was forgotten"


def counts_are_right(world: "World") -> None:
    """The counts of states equal a recount."""
    for vertex in world.graph.vertices:
        assert vertex.counts == [vertex.state.count(state) for state in ExecutionState]
    assert sum(vertex.restarting for vertex in world.graph.vertices) == len(world.graph.restart_due)


def splits_are_dealt_out_once(world: "World") -> None:
    """Each split that is taken belongs to one subtask."""
    for vertex in world.graph.vertices:
        dealt = sorted(index for indexes in vertex.assigned.values() for index in indexes)
        assert dealt == list(range(vertex.splits_taken))


# In the end


def check_result(world: "World") -> None:
    """All that must be true of a job that is over."""
    nothing_runs_any_more(world)
    if world.graph.status is JobStatus.FINISHED:
        everything_is_in_the_result_once(world)
        nothing_is_built_of_two_attempts(world)


def nothing_runs_any_more(world: "World") -> None:
    """A job that is over occupies no slot, in the log or on a TaskManager that heard of it."""
    assert not world.graph.count(*_ACTIVE)
    assert not any(tm.attempts for tm in world.taskmanagers.values() if tm.connected)


def everything_is_in_the_result_once(world: Outcome) -> None:
    """What each vertex has put out is what it would have without any fault: each split once, nothing lost, nothing twice."""
    totals: list[Counter[str]] = []
    for vertex in world.job_graph.vertices:
        total: Counter[str] = Counter()
        if vertex.splits:
            total.update(split.path for split in world.graph.vertices[vertex.index].splits or ())
        elif not vertex.inputs:
            total.update(f"{vertex.name}[{subtask}]" for subtask in range(vertex.parallelism))
        for edge in vertex.inputs:
            copies = vertex.parallelism if edge.partitioner is Partitioner.BROADCAST else 1
            for item, times in totals[edge.source].items():
                total[item] += copies * times
        totals.append(total)
        found: Counter[str] = Counter()
        for subtask in range(vertex.parallelism):
            found.update(world.written[_present(world, vertex.index, subtask)])
        assert found == total, f"{vertex.name} has put out {found}, not {total}"
    assert world.graph.accumulators().get("items", 0) == sum(total.total() for total in totals)


def nothing_is_built_of_two_attempts(world: Outcome) -> None:
    """Each finished attempt has read the present attempts of its producers: nothing that was thrown away lives on."""
    graph = world.graph
    for vertex in world.job_graph.vertices:
        for subtask in range(vertex.parallelism):
            read = world.inputs_read[_present(world, vertex.index, subtask)]
            for source, producer, attempt in read:
                present = graph.vertices[source].attempt[producer]
                assert attempt == present, f"{vertex.name}[{subtask}] has read attempt {attempt}, not {present}"


def _present(world: Outcome, vertex: int, subtask: int) -> AttemptId:
    return AttemptId(world.graph.run, vertex, subtask, world.graph.vertices[vertex].attempt[subtask])
