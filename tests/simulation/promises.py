"""What must be true whatever happens: each promise is a function, and a broken one is an AssertionError that says so.

The truth against which all is measured is what has been acknowledged: no leader believes more than was told to it, and none
may believe anything else.
"""

from collections.abc import Callable
from operator import attrgetter, eq
from typing import TYPE_CHECKING

from flinkjob.api.errors import CorruptedLog, IllegalOperation
from flinkjob.api.job import Partitioner
from flinkjob.graph import operations as ops
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.snapshot import SCALARS
from flinkjob.graph.states import ACTIVE_EXECUTION_STATES, ExecutionState, JobStatus
from flinkjob.graph.vertex import ExecutionJobVertex, TaskId
from flinkjob.jobmaster import events as ev
from flinkjob.jobmaster.failover import output_needed
from flinkjob.jobmaster.restart import FixedDelay
from flinkjob.oplog.replay import Replay
from flinkjob.worker import protocol as msg
from flinkjob.worker.protocol import AttemptId
from flinkjob.worker.taskexecutor import Link
from jobmaster import invariants
from jobmaster.invariants import everything_is_in_the_result_once, nothing_is_built_of_two_attempts, producer_lost

from . import leaderpromises
from .logstore import Node, fold

if TYPE_CHECKING:
    from .cluster import Cluster
    from .taskmanager import Task, TaskManager
    from .term import Term

_E = ExecutionState
_SCALARS = attrgetter(*SCALARS)
_COLUMNS = attrgetter(*(name for name in ExecutionJobVertex.__slots__ if name != "job_vertex"))
"""All that is modified in a graph, and in each of its vertices. To compare it costs far less than to encode it."""
_ENDING = (JobStatus.CANCELLING, JobStatus.FAILING)


# The log


def check_replay(world: "Cluster", epoch: int, graph: ExecutionGraph, replay: Replay) -> tuple[Node, ExecutionGraph]:
    """All that must be true of what a new leader has read. Returns the last block, and the fold of all up to it."""
    node = the_log_ends_with_a_block(world, replay)
    nothing_acknowledged_is_lost(world, epoch, node)
    folded = fold(world.job_graph, node)
    the_replay_is_the_fold(graph, folded)
    return node, folded


def the_log_ends_with_a_block(world: "Cluster", replay: Replay) -> Node:
    """A replay ends with a block that a leader has written, whatever lies in the store beside it."""
    assert replay.end is not None
    node = world.truth.blocks.get((replay.end.epoch, replay.end.lsn)) if replay.end.lsn else world.beginning
    assert node is not None, f"the replay ends at {replay.end}, which nobody has written"
    return node


def nothing_acknowledged_is_lost(world: "Cluster", epoch: int, node: Node) -> None:
    """What has been acknowledged once is in the log of every later leader, though not of one that is deposed as it reads."""
    truth = world.truth
    deposed = epoch < truth.node.epoch
    assert deposed or truth.descends(node, truth.node), f"LSN {truth.node.lsn} of epoch {truth.node.epoch} is lost"


def the_replay_is_the_fold(graph: ExecutionGraph, folded: ExecutionGraph) -> None:
    """A snapshot and the operations after it give the same graph as all the operations, byte by byte."""
    assert graph.snapshot() == folded.snapshot(), "the replay gives another graph than the log's operations"


def check_acknowledged(world: "Cluster", leader: str, node: Node) -> None:
    """All that must be true when a leader is told that a block is durable."""
    epochs_do_not_interleave(world, leader, node)
    if node.lsn > world.truth.node.lsn:
        world.truth.acknowledge(node)
        world.holdings_changed = True


def epochs_do_not_interleave(world: "Cluster", leader: str, node: Node) -> None:
    """Of each position of the log one leader's effects are released: what is acknowledged is one history, without a fork."""
    truth = world.truth
    one_line = truth.descends(node, truth.node) or truth.descends(truth.node, node)
    assert one_line, f"{leader} acts upon epoch {node.epoch}, LSN {node.lsn}, beside epoch {truth.node.epoch}"


# A decision


def check_decision(term: "Term", decision: ev.Decision) -> None:
    """All that must be true of what a leader decides; one that is deposed and does not know it decides in vain."""
    if decision.operations:
        deposed = term.epoch < term.world.truth.graph.epoch
        term.world.note(term.process, decision.operations)
        for operation in ops.decode_operations(ops.encode_operations(decision.operations)):
            if not deposed:
                _check_operation(term, operation)
            term.shadow.apply(operation)
        the_log_folds_to_the_graph(term)
        splits_are_dealt_out_once(term.shadow)
        if not deposed and any(isinstance(operation, ops.FailoverCompleted) for operation in decision.operations):
            a_failover_finds_lost_partitions(term)
    time_goes_on(term)


def _check_operation(term: "Term", operation: ops.Operation) -> None:
    terminal_is_terminal(term, operation)
    if isinstance(operation, ops.TasksReset):
        finished_is_finished(term, operation)
    elif isinstance(operation, ops.TaskStateChanged) and operation.state is _E.CANCELING:
        nothing_consistent_is_cancelled(term, operation)
    elif isinstance(operation, ops.TaskFailed):
        nothing_consistent_fails(term, operation)
    elif isinstance(operation, ops.TaskManagerRemoved):
        only_absent_taskmanagers_are_given_up(term, operation)
    elif isinstance(operation, ops.RestartScheduled):
        the_budget_is_kept(term)
    elif isinstance(operation, ops.TaskDeploying):
        inputs_are_there(term, operation)


def the_log_folds_to_the_graph(term: "Term") -> None:
    """``fold(apply, log) == graph``, in all that a graph holds, with each operation having gone through its encoding."""
    assert term.master is not None
    graph, shadow = term.master.graph, term.shadow
    same = _SCALARS(graph) == _SCALARS(shadow) and all(
        map(eq, map(_COLUMNS, graph.vertices), map(_COLUMNS, shadow.vertices))
    )
    assert same, "the operations do not fold to the leader's graph"


def splits_are_dealt_out_once(graph: ExecutionGraph) -> None:
    """Each split that is taken belongs to one subtask."""
    for vertex in graph.vertices:
        if vertex.splits:
            dealt = sorted(index for indexes in vertex.assigned.values() for index in indexes)
            assert dealt == list(range(vertex.splits_taken)), f"the splits {dealt} were dealt out"


def time_goes_on(term: "Term") -> None:
    """What a leader waits for lies ahead; otherwise its timer would spin."""
    assert term.master is not None
    deadline = term.master.next_deadline()
    assert deadline is None or deadline > term.now(), "the leader waits for what has passed"


def terminal_is_terminal(term: "Term", operation: ops.Operation) -> None:
    """Once the job's end is decided, nothing follows but the epochs of leaders that learn of it."""
    over = term.shadow.status.terminal
    assert not over or isinstance(operation, ops.EpochStarted), f"{operation} after the end"


def finished_is_finished(term: "Term", operation: ops.TasksReset) -> None:
    """A finished task runs again only if its partition was lost, or a producer's was, or everything is restarted."""
    world, vertex = term.world, term.shadow.vertices[operation.vertex]
    for subtask in operation.subtasks:
        if vertex.state[subtask] != _E.FINISHED or world.options.restart_all:
            continue
        task = TaskId(operation.vertex, subtask)
        gone = AttemptId(term.shadow.run, *task, vertex.attempt[subtask]) in world.lost_attempts
        assert gone or producer_lost(world, task), f"{task} has finished, and runs again"


def nothing_consistent_is_cancelled(term: "Term", operation: ops.TaskStateChanged) -> None:
    """A running attempt is cancelled only if the job ends, what it reads was lost, or everything is restarted."""
    task = TaskId(operation.vertex, operation.subtask)
    cause = term.shadow.status in _ENDING or term.world.options.restart_all or producer_lost(term.world, task)
    assert cause, f"{task} is cancelled for nothing"


def nothing_consistent_fails(term: "Term", operation: ops.TaskFailed) -> None:
    """An attempt fails only if something happened to it or to its TaskManager, or what it reads was lost."""
    task = TaskId(operation.vertex, operation.subtask)
    attempt = AttemptId(term.shadow.run, *task, operation.attempt)
    lost_input = operation.cause == "an input is lost" and producer_lost(term.world, task)
    index = term.shadow.vertices[operation.vertex].taskmanager[operation.subtask]
    cause = attempt in term.world.broken or lost_input or _is_absent(term, index)
    assert cause, f"{attempt} fails for nothing: {operation.cause}"


def only_absent_taskmanagers_are_given_up(term: "Term", operation: ops.TaskManagerRemoved) -> None:
    """A TaskManager is given up only if its process has ended or was silent for too long, and holds nothing by then."""
    assert _is_absent(term, operation.taskmanager), f"TaskManager {operation.taskmanager} is given up for nothing"
    for task in term.shadow.active_tasks():
        on = term.shadow.vertices[task.vertex].taskmanager[task.subtask]
        assert on != operation.taskmanager, f"{task} is on a TaskManager that is given up"


def _is_absent(term: "Term", index: int) -> bool:
    info, world = term.shadow.taskmanagers[index], term.world
    taskmanager = world.taskmanagers.get(info.id)
    if info.removed or taskmanager is None or not taskmanager.alive or info.slots != taskmanager.slots:
        return True
    patience = min(world.options.reconcile_timeout, world.options.heartbeat_timeout)
    return term.now() - term.heard.get(info.id, term.began_at) >= patience


def the_budget_is_kept(term: "Term") -> None:
    """Neither time nor failovers renew the restart budget."""
    strategy = term.world.options.restart_strategy
    if isinstance(strategy, FixedDelay):
        assert term.shadow.restarts < strategy.attempts, f"there is a restart beyond the budget of {strategy.attempts}"


def inputs_are_there(term: "Term", operation: ops.TaskDeploying) -> None:
    """A task is deployed only when all that it reads has been produced and is not about to be produced again."""
    graph = term.shadow
    for edge in term.world.job_graph.vertices[operation.vertex].inputs:
        forward = edge.partitioner is Partitioner.FORWARD
        for subtask in (operation.subtask,) if forward else range(graph.vertices[edge.source].parallelism):
            source = TaskId(edge.source, subtask)
            assert graph.state_of(source) is _E.FINISHED, f"{source} has not finished"
            assert source not in graph.restart_due, f"{source} is to run again"


def orphans_are_stopped(term: "Term", event: ev.TaskManagerConnected, decision: ev.Decision) -> None:
    """What a TaskManager runs and the log has no use for (any more) is cancelled as soon as it is reported."""
    graph = term.shadow
    if graph.status.terminal:
        return
    sent = [effect.message for effect in decision.effects if isinstance(effect, ev.Send)]
    cancelled = {attempt for message in sent if isinstance(message, msg.Cancel) for attempt in message.attempts}
    for report in event.reports:
        attempt = report.attempt
        vertex = graph.vertices[attempt.vertex]
        present = attempt.run == graph.run and vertex.attempt[attempt.subtask] == attempt.attempt
        on = vertex.taskmanager[attempt.subtask]
        present = present and graph.taskmanager_index.get(event.id) == on
        wanted = present and vertex.state[attempt.subtask] != _E.CANCELING
        assert wanted or report.state.terminal or attempt in cancelled, f"the orphan {attempt} is left running"


def a_failover_finds_lost_partitions(term: "Term") -> None:
    """After a failover no partition counts as there that the log had, that is needed, and that was lost before it began.

    One that was lost and produced again by its attempt (deployed once more, since nobody knew that it had begun) is there.
    """
    graph, lost, storage = term.shadow, term.world.lost_attempts, term.world.storage
    if graph.status is not JobStatus.RUNNING:
        return
    for task in graph.tasks_in(_E.FINISHED):
        vertex = graph.vertices[task.vertex]
        attempt = AttemptId(graph.run, *task, vertex.attempt[task.subtask])
        gone = lost.get(attempt, term.replayed_at) < term.replayed_at and attempt not in storage
        if gone and attempt in term.finished_before:
            noticed = task in graph.restart_due or not vertex.size[task.subtask] or not output_needed(graph, *task)
            assert noticed, f"the partition of {task} was lost before the failover, which has not noticed"


# A command, and what it leads to


def check_command(taskmanager: "TaskManager", message: msg.FromJobManager, obey: Callable[[], None]) -> None:
    """All that must be true of what reaches a TaskManager."""
    world = taskmanager.world
    if isinstance(message, msg.Refused):
        obey()
        return
    if message.epoch < taskmanager.highest_epoch:
        the_deposed_are_not_obeyed(taskmanager, message, obey)
        return
    taskmanager.highest_epoch = message.epoch
    if isinstance(message, msg.Deploy):
        for deployment in message.deployments:
            a_successor_would_know(world, taskmanager, deployment.attempt)
    elif isinstance(message, msg.Cancel):
        for attempt in message.attempts:
            nothing_wanted_is_stopped(world, taskmanager, attempt)
    elif isinstance(message, msg.Acknowledge):
        for attempt in message.attempts:
            ends_are_logged_before_they_are_acknowledged(world, attempt)
    elif isinstance(message, msg.Splits):
        splits_are_logged_before_they_are_given(world, message)
    elif isinstance(message, msg.JobOver):
        assert world.truth.graph.status.terminal, "a TaskManager is told of an end that is not in the log"
    obey()


def the_deposed_are_not_obeyed(
    taskmanager: "TaskManager", message: msg.FromJobManager, obey: Callable[[], None]
) -> None:
    """A command of a lower epoch than a TaskManager has seen changes nothing at all."""
    before = _condition(taskmanager)
    obey()
    assert _condition(taskmanager) == before, f"{taskmanager.name} obeys {message}, and has seen a later epoch"


def _condition(taskmanager: "TaskManager") -> object:
    tasks = [(task.attempt, task.asked_to_stop, len(task.splits)) for task in taskmanager.tasks.values()]
    executor = taskmanager.executor
    return executor.reports, tasks, executor.stopping, executor.link is Link.REGISTERED


def a_successor_would_know(world: "Cluster", taskmanager: "TaskManager", attempt: AttemptId) -> None:
    """No attempt reaches a TaskManager before a successor would know that it is there."""
    where = world.truth.deployed.get(attempt)
    assert where == taskmanager.name, f"{attempt} is deployed to {taskmanager.name}; the log has it on {where}"


def nothing_wanted_is_stopped(world: "Cluster", taskmanager: "TaskManager", attempt: AttemptId) -> None:
    """No command to stop reaches an attempt that the log has as present and wanted."""
    wanted = world.truth.active(attempt, _E.DEPLOYING, _E.RUNNING)
    assert not wanted or world.truth.deployed[attempt] != taskmanager.name, f"{attempt} is wanted, and cancelled"


def ends_are_logged_before_they_are_acknowledged(world: "Cluster", attempt: AttemptId) -> None:
    """A TaskManager forgets an end only when no leader can have missed it."""
    assert not world.truth.active(attempt, *ACTIVE_EXECUTION_STATES), f"the end of {attempt} is not in the log"


def splits_are_logged_before_they_are_given(world: "Cluster", message: msg.Splits) -> None:
    """A split that a task reads is its subtask's in the log."""
    attempt, vertex = message.attempt, world.truth.graph.vertices[message.attempt.vertex]
    if message.split is not None:
        known = vertex.assigned.get(attempt.subtask, [])[message.index : message.index + 1]
        assert [vertex.splits[index] for index in known if vertex.splits] == [message.split], (
            f"split {message.index} of {attempt} is not in the log"
        )


def check_begun(taskmanager: "TaskManager", task: "Task") -> None:
    """All that must be true when an attempt's process is started."""
    world = taskmanager.world
    world.starts[task.attempt] += 1
    world.inputs_read[task.attempt] = [
        (edge.source, partition.subtask, partition.attempt)
        for edge, partitions in zip(
            world.job_graph.vertices[task.attempt.vertex].inputs, task.deployment.inputs, strict=True
        )
        for partition in partitions
    ]
    an_attempt_runs_once(world, task.attempt)
    slots_are_not_overused(taskmanager)


def an_attempt_runs_once(world: "Cluster", attempt: AttemptId) -> None:
    """No attempt is begun twice unless its process died, and none runs in two places."""
    assert world.starts[attempt] == 1 or attempt in world.broken, f"{attempt} is begun twice"
    for taskmanager in world.taskmanagers.values():
        assert not taskmanager.alive or attempt not in taskmanager.tasks, f"{attempt} runs twice"


def slots_are_not_overused(taskmanager: "TaskManager") -> None:
    """No TaskManager runs more attempts than it has slots."""
    running = len(taskmanager.tasks) + 1
    assert running <= taskmanager.slots, f"{taskmanager.name} runs {running} attempts in {taskmanager.slots} slots"


# At any time


def one_live_attempt_is_accepted(world: "Cluster") -> None:
    """What the log has as running is with its TaskManager alone, or its end is, unless something happened to it.

    It can only be broken when a TaskManager's core has had a turn, or something has been acknowledged.
    """
    truth = world.truth
    for attempt in truth.running - world.broken:
        holders = [name for name, taskmanager in world.taskmanagers.items() if taskmanager.holds(attempt)]
        assert holders == [truth.deployed[attempt]], f"{attempt} is held by {holders}"


# In the end


def it_comes_to_an_end(world: "Cluster") -> None:
    """Once nothing goes wrong any more the job ends and its TaskManagers go: nobody waits for ever, or goes in circles."""
    scheduler = world.scheduler
    raise AssertionError(f"the job is {world.graph.status.name} after {scheduler.now} ms and {scheduler.steps} steps")


def check_end(world: "Cluster") -> None:
    """All that must be true of a job that is over."""
    graph = world.truth.graph
    assert graph.status is world.result, f"the result is {world.result}, and the log says {graph.status.name}"
    assert graph.status in world.possible_ends, f"the job is {graph.status.name}: {graph.status_cause}"
    assert not graph.count(*ACTIVE_EXECUTION_STATES), "a job that is over occupies slots in the log"
    assert not any(tm.tasks for tm in world.taskmanagers.values() if tm.alive), "a job that is over still runs"
    if graph.status is JobStatus.FINISHED:
        everything_is_in_the_result_once(world)
        nothing_is_built_of_two_attempts(world)


# What a promise is called


def no_sound_log_is_damaged() -> None:
    """What leaders and dying machines leave behind is never taken for a damaged log."""


def every_operation_applies() -> None:
    """What has been decided fits the graph, at once and in every replay."""


def nobody_breaks_down() -> None:
    """No process ends by an error of its own."""


def name_of(error: Exception) -> str:
    """The name of the promise that an error breaks."""
    if isinstance(error, CorruptedLog):
        return no_sound_log_is_damaged.__name__
    if isinstance(error, IllegalOperation):
        return every_operation_applies.__name__
    innermost = nobody_breaks_down.__name__
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename in FILES and code.co_name[0] not in "_<" and not code.co_name.startswith("check_"):
            innermost = code.co_name
        trace = trace.tb_next
    return innermost if isinstance(error, AssertionError) else nobody_breaks_down.__name__


FILES = {__file__, leaderpromises.__file__, invariants.__file__}
"""Where promises stand."""
