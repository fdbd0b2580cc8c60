"""The subtasks that could run now if there were slots, in the order in which they became ready.

Ranges of subtasks are kept as ranges, so that a source of a million subtasks costs one entry. An entry is a hint: whoever
takes a subtask looks whether it is (still) to be deployed.
"""

from collections import deque
from collections.abc import Iterable, Iterator

from flinkjob.api.job import Partitioner
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.states import ExecutionState
from flinkjob.graph.vertex import TaskId

_CREATED = int(ExecutionState.CREATED)


class ReadyQueue:
    """First in, first out; the same subtask may stand in it twice."""

    def __init__(self, graph: ExecutionGraph) -> None:
        self._graph = graph
        self._entries: deque[tuple[int, Iterator[int]]] = deque()

    def add_vertex(self, vertex: int) -> None:
        """All subtasks of the vertex have their inputs."""
        if self._may_be_ready(vertex):
            self.add(vertex, self._created(vertex))

    def add(self, vertex: int, subtasks: Iterable[int]) -> None:
        """These subtasks may have become ready."""
        self._entries.append((vertex, iter(subtasks)))

    def take(self) -> TaskId | None:
        """The next subtask that is to be deployed, or None."""
        while self._entries:
            vertex, subtasks = self._entries[0]
            for subtask in subtasks:
                if self.is_ready(vertex, subtask):
                    return TaskId(vertex, subtask)
            self._entries.popleft()
        return None

    def put_back(self, task: TaskId) -> None:
        """There was no slot for it: it stays the first."""
        self._entries.appendleft((task.vertex, iter((task.subtask,))))

    def is_ready(self, vertex: int, subtask: int) -> bool:
        """Whether the subtask is CREATED and all that it reads is there, and not about to be produced again."""
        states = self._graph.vertices[vertex]
        if states.state[subtask] != _CREATED or not self._may_be_ready(vertex):
            return False
        for edge in states.job_vertex.inputs:
            if edge.partitioner is Partitioner.FORWARD:
                finished = self._graph.vertices[edge.source].state[subtask] == ExecutionState.FINISHED
                if not finished or (edge.source, subtask) in self._graph.restart_due:
                    return False
        return True

    def _may_be_ready(self, vertex: int) -> bool:
        """Whether all is there that all subtasks of the vertex need alike."""
        states = self._graph.vertices[vertex]
        if states.job_vertex.splits is not None and states.splits is None:
            return False
        for edge in states.job_vertex.inputs:
            if edge.partitioner is not Partitioner.FORWARD:
                source = self._graph.vertices[edge.source]
                if not source.finished or source.restarting:
                    return False
        return True

    def _created(self, vertex: int) -> Iterator[int]:
        """The CREATED subtasks, looked for as they are wanted; ``find`` skips the others far faster than a loop does."""
        state = self._graph.vertices[vertex].state
        subtask = state.find(_CREATED)
        while subtask >= 0:
            yield subtask
            subtask = state.find(_CREATED, subtask + 1)

    def on_finished(self, task: TaskId) -> None:
        """A subtask finished: its consumers may have become ready."""
        for consumer, number in self._graph.job_graph.vertices[task.vertex].outputs:
            edge = self._graph.job_graph.vertices[consumer].inputs[number]
            if edge.partitioner is Partitioner.FORWARD:
                self.add(consumer, (task.subtask,))
            elif self._graph.vertices[task.vertex].finished:
                self.add_vertex(consumer)

    def rebuild(self) -> None:
        """Begin anew from the graph alone, as a new leader does."""
        self._entries.clear()
        for vertex in self._graph.job_graph.vertices:
            self.add_vertex(vertex.index)
