"""Which subtasks have to run again when some fail: Flink's failover strategies.

``region`` restarts, by the rules of Flink's ``RestartPipelinedRegionFailoverStrategy``:

1. the region of each failed subtask. Regions are bordered by blocking exchanges, and every exchange here is one, so a
   region is one subtask;
2. the producers of input partitions that are known to be lost, if a restarted subtask needs them, and so on upwards;
3. all consumers of a restarted subtask that have begun, also finished ones: a producer that runs again may produce
   something else, and nothing may be built of both.

``full`` restarts everything that has begun.
"""

from collections import deque
from collections.abc import Collection, Iterator

from flinkjob.api.job import Partitioner
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.states import ExecutionState
from flinkjob.graph.vertex import TaskId


def region_restart(graph: ExecutionGraph, failed: Collection[TaskId], lost: Collection[TaskId]) -> set[TaskId]:
    """The subtasks to restart because ``failed`` failed and the partitions of ``lost`` are gone."""
    restart: set[TaskId] = set()
    todo = deque([*failed, *lost])
    lost = set(lost)
    while todo:
        task = todo.popleft()
        if task in restart:
            continue
        restart.add(task)
        todo.extend(consumer for consumer in consumers_of(graph, task) if consumer not in restart)
        if lost:
            todo.extend(producer for producer in producers_of(graph, task) if producer in lost)
    return restart


def full_restart(graph: ExecutionGraph) -> set[TaskId]:
    """Every subtask that has begun."""
    return set(graph.tasks_in(*(state for state in ExecutionState if state is not ExecutionState.CREATED)))


def consumers_of(graph: ExecutionGraph, task: TaskId) -> Iterator[TaskId]:
    """The subtasks that read the task's partition and have begun."""
    for consumer, number in graph.job_graph.vertices[task.vertex].outputs:
        vertex = graph.vertices[consumer]
        if vertex.counts[ExecutionState.CREATED] == vertex.parallelism:
            continue
        forward = graph.job_graph.vertices[consumer].inputs[number].partitioner is Partitioner.FORWARD
        for subtask in (task.subtask,) if forward else range(vertex.parallelism):
            if vertex.state[subtask] != ExecutionState.CREATED:
                yield TaskId(consumer, subtask)


def producers_of(graph: ExecutionGraph, task: TaskId) -> Iterator[TaskId]:
    """The subtasks whose partitions the task reads."""
    for edge in graph.job_graph.vertices[task.vertex].inputs:
        forward = edge.partitioner is Partitioner.FORWARD
        for subtask in (task.subtask,) if forward else range(graph.vertices[edge.source].parallelism):
            yield TaskId(edge.source, subtask)


def output_needed(graph: ExecutionGraph, vertex: int, subtask: int) -> bool:
    """Whether somebody will still read the partition of this finished subtask: a consumer, or the job's result."""
    outputs = graph.job_graph.vertices[vertex].outputs
    if not outputs:
        return True
    for consumer, number in outputs:
        states = graph.vertices[consumer]
        if graph.job_graph.vertices[consumer].inputs[number].partitioner is Partitioner.FORWARD:
            if states.state[subtask] != ExecutionState.FINISHED:
                return True
        elif not states.finished:
            return True
    return False
