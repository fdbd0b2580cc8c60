"""Which subtasks have to run again when some fail: Flink's failover strategies.

``region`` restarts, by the rules of Flink's ``RestartPipelinedRegionFailoverStrategy``:

1. the region of each failed subtask. Regions are bordered by blocking exchanges, and every exchange here is one, so a
   region is one subtask;
2. the producers of partitions that are known to be lost; they are only looked for where somebody still has to read them;
3. all consumers of a restarted subtask that have begun, also finished ones: a producer that runs again may produce
   something else, and nothing may be built of both.

``full`` restarts everything that has begun.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator

from flinkjob.api.job import Partitioner
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.states import ExecutionState
from flinkjob.graph.vertex import TaskId


def region_restart(graph: ExecutionGraph, failed: Collection[TaskId], lost: Collection[TaskId]) -> set[TaskId]:
    """The subtasks to restart because ``failed`` failed and the partitions of ``lost`` are gone."""
    restart = {*failed, *lost}
    todo = deque(restart)
    whole: set[int] = set()
    while todo:
        for consumer in _consumers(graph, todo.popleft(), whole):
            if consumer not in restart:
                restart.add(consumer)
                todo.append(consumer)
    return restart


def full_restart(graph: ExecutionGraph) -> set[TaskId]:
    """Every subtask that has begun."""
    return set(graph.tasks_in(*(state for state in ExecutionState if state is not ExecutionState.CREATED)))


def _consumers(graph: ExecutionGraph, task: TaskId, whole: set[int]) -> Iterator[TaskId]:
    """The subtasks that read the task's partition and have begun, but those of vertices that are ``whole`` already.

    Where each consumer reads each producer, one producer brings in the whole vertex, and the others need not look again.
    """
    for consumer, number in graph.job_graph.vertices[task.vertex].outputs:
        vertex = graph.vertices[consumer]
        if consumer in whole:
            continue
        if graph.job_graph.vertices[consumer].inputs[number].partitioner is Partitioner.FORWARD:
            subtasks: Iterable[int] = (task.subtask,)
        else:
            subtasks = range(vertex.parallelism)
            whole.add(consumer)
        for subtask in subtasks:
            if vertex.state[subtask] != ExecutionState.CREATED:
                yield TaskId(consumer, subtask)


def inputs_of(graph: ExecutionGraph, tasks: Iterable[TaskId]) -> set[TaskId]:
    """The subtasks whose partitions the tasks read."""
    subtasks: dict[int, set[int]] = {}
    for task in tasks:
        subtasks.setdefault(task.vertex, set()).add(task.subtask)
    producers: set[TaskId] = set()
    for vertex, members in subtasks.items():
        for edge in graph.job_graph.vertices[vertex].inputs:
            forward = edge.partitioner is Partitioner.FORWARD
            sources = members if forward else range(graph.vertices[edge.source].parallelism)
            producers.update(TaskId(edge.source, subtask) for subtask in sources)
    return producers


def outputs_needed(graph: ExecutionGraph) -> Iterator[TaskId]:
    """The finished subtasks that left something which somebody will still read: what a new leader has to look at."""
    for vertex in graph.vertices:
        index = vertex.job_vertex.index
        if any(vertex.size):
            for subtask in vertex.subtasks_in(ExecutionState.FINISHED):
                if output_needed(graph, index, subtask):
                    yield TaskId(index, subtask)


def output_needed(graph: ExecutionGraph, vertex: int, subtask: int) -> bool:
    """Whether somebody will still read the partition of this finished subtask: a consumer, or the job's result.

    A consumer that is to run again will read it again; what is to be produced again, nobody will read.
    """
    if (vertex, subtask) in graph.restart_due:
        return False
    outputs = graph.job_graph.vertices[vertex].outputs
    if not outputs:
        return True
    for consumer, number in outputs:
        states = graph.vertices[consumer]
        if graph.job_graph.vertices[consumer].inputs[number].partitioner is Partitioner.FORWARD:
            if states.state[subtask] != ExecutionState.FINISHED or (consumer, subtask) in graph.restart_due:
                return True
        elif not states.finished or states.restarting:
            return True
    return False
