"""Scheduling: ready subtasks onto free slots, and the deployments that follow.

A Deployment names the partitions that the attempt is to read. The list is the same for all subtasks that read all of a
producing vertex, so it is made once.
"""

from collections.abc import Callable
from heapq import heappop, heappush

from flinkjob.api.job import Partitioner
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.operations import Operation, TaskDeploying, TasksReset
from flinkjob.graph.states import ExecutionState
from flinkjob.graph.vertex import TaskId
from flinkjob.jobmaster.events import Send
from flinkjob.jobmaster.ready import ReadyQueue
from flinkjob.jobmaster.workers import Worker, Workers
from flinkjob.worker.protocol import AttemptId, Deploy, Deployment, InputPartition

Do = Callable[[Operation], None]
"""Applies an operation to the graph and puts it into the decision."""


class Scheduler:
    """Decides what runs where; all its memory can be rebuilt from the graph."""

    def __init__(self, graph: ExecutionGraph, workers: Workers) -> None:
        self._graph = graph
        self._workers = workers
        self.ready = ReadyQueue(graph)
        self._deployments: dict[str, list[Deployment]] = {}
        self._partitions: dict[int, tuple[InputPartition, ...]] = {}
        self._resets: list[tuple[int, TaskId]] = []

    def rebuild(self) -> None:
        """Begin a term."""
        self.ready.rebuild()
        for task in self._graph.restart_due:
            self.ended(task)

    def ended(self, task: TaskId) -> None:
        """A subtask's attempt is over, or a restart was scheduled for it: it may be due for its next attempt."""
        due = self._graph.restart_due.get(task)
        if due is not None and self._graph.state_of(task).terminal:
            heappush(self._resets, (due, task))

    def next_reset(self) -> int | None:
        """When the next subtask's backoff is over, milliseconds."""
        return self._resets[0][0] if self._resets else None

    def reset_due(self, do: Do, now: int) -> None:
        """Make new attempts of the subtasks whose backoff is over and whose last attempt has ended."""
        due: dict[int, set[int]] = {}
        while self._resets and self._resets[0][0] <= now:
            at, task = heappop(self._resets)
            if self._graph.restart_due.get(task) == at and self._graph.state_of(task).terminal:
                due.setdefault(task.vertex, set()).add(task.subtask)
        for vertex, subtasks in sorted(due.items()):
            do(TasksReset(vertex, tuple(sorted(subtasks)), now))
            self.ready.add(vertex, sorted(subtasks))
            self._partitions.pop(vertex, None)

    def schedule(self, do: Do, now: int) -> None:
        """Deploy what is ready while there are slots."""
        while (task := self.ready.take()) is not None:
            worker = self._workers.take_slot()
            if worker is None:
                self.ready.put_back(task)
                return
            attempt = self._graph.vertex_of(task).attempt[task.subtask]
            do(TaskDeploying(task.vertex, task.subtask, attempt, worker.index, now))
            worker.tasks.add(task)
            self._workers.offer(worker)
            self.deploy(worker, AttemptId(self._graph.run, task.vertex, task.subtask, attempt))

    def deploy(self, worker: Worker, attempt: AttemptId) -> None:
        """Send the command to run the attempt (again)."""
        deployment = Deployment(attempt, self._inputs(attempt.vertex, attempt.subtask))
        self._deployments.setdefault(worker.id, []).append(deployment)

    def take_sends(self) -> list[Send]:
        """The deployments decided on since the last call, a message for each TaskManager."""
        if not self._deployments:
            return []
        epoch, deployments = self._graph.epoch, self._deployments
        self._deployments = {}
        return [Send(taskmanager, Deploy(epoch, tuple(group))) for taskmanager, group in deployments.items()]

    def _inputs(self, vertex: int, subtask: int) -> tuple[tuple[InputPartition, ...], ...]:
        edges = self._graph.job_graph.vertices[vertex].inputs
        return tuple(
            self._partition_of(edge.source, (subtask,))
            if edge.partitioner is Partitioner.FORWARD
            else self._partitions_of(edge.source)
            for edge in edges
        )

    def _partitions_of(self, vertex: int) -> tuple[InputPartition, ...]:
        known = self._partitions.get(vertex)
        if known is None:
            known = self._partition_of(vertex, range(self._graph.vertices[vertex].parallelism))
            self._partitions[vertex] = known
        return known

    def _partition_of(self, vertex: int, subtasks: range | tuple[int, ...]) -> tuple[InputPartition, ...]:
        """What finished subtasks left; those that left nothing are left out."""
        states = self._graph.vertices[vertex]
        return tuple(
            InputPartition(subtask, states.attempt[subtask], states.partition(subtask))
            for subtask in subtasks
            if states.state[subtask] == ExecutionState.FINISHED and states.size[subtask]
        )
