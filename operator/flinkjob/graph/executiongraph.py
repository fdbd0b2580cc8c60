"""The ExecutionGraph: what has become of every subtask, as the sum of all operations.

``apply`` is the only way to change it, in normal running and in replay alike, so ``fold(apply, log) == graph`` holds at
every position of the log. An operation that does not fit raises IllegalOperation and leaves the graph as it was.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from flinkjob.api.errors import IllegalOperation
from flinkjob.graph import operations as ops
from flinkjob.graph.jobgraph import JobGraph
from flinkjob.graph.snapshot import SCALARS, ExceptionEntry, TaskManagerInfo, decode_snapshot, encode_snapshot
from flinkjob.graph.states import ACTIVE_EXECUTION_STATES, JOB_TRANSITIONS, LEGAL, ExecutionState, JobStatus
from flinkjob.graph.vertex import ExecutionJobVertex, TaskId

MAX_FAILOVERS = 10
"""How many failovers the history keeps."""
MAX_EXCEPTIONS = 16
"""How many failures the history keeps (Flink: ``web.exception-history-size``)."""

_CREATED = int(ExecutionState.CREATED)
_DEPLOYING = int(ExecutionState.DEPLOYING)
_RUNNING = int(ExecutionState.RUNNING)
_FINISHED = int(ExecutionState.FINISHED)
_CANCELED = int(ExecutionState.CANCELED)
_FAILED = int(ExecutionState.FAILED)
_STATES = tuple(ExecutionState)


class ExecutionGraph:
    """A JobGraph and all that has become of it.

    Attributes:
        job_graph: what is to run.
        vertices: an ExecutionJobVertex for each JobVertex, in its order.
        lsn: how many operations made the graph what it is.
        run: the epoch in which this graph was begun; attempts of another run are strangers.
        epoch: that of the latest leader. leader: its id.
        status: the job's. status_times: when each status was entered (the latest time), milliseconds.
        started_at: when the job was first led, milliseconds.
        taskmanagers: all that ever registered, by index.
        restart_due: subtasks that are to run again, and from when on, milliseconds.
        restart_state: what the restart strategy remembers.
        restarts: how many restarts have been scheduled. failover_count: how many leaders took over.
        failovers: the latest of those. exceptions: the latest failures.
    """

    def __init__(self, job_graph: JobGraph) -> None:
        self.job_graph = job_graph
        self.vertices = [ExecutionJobVertex(vertex) for vertex in job_graph.vertices]
        self.lsn = 0
        self.run = 0
        self.epoch = 0
        self.leader = ""
        self.status = JobStatus.CREATED
        self.status_cause = ""
        self.status_times: dict[JobStatus, int] = {}
        self.started_at = 0
        self.taskmanagers: list[TaskManagerInfo] = []
        self.taskmanager_index: dict[str, int] = {}
        self.restart_due: dict[TaskId, int] = {}
        self.restart_state = ops.RestartState()
        self.restarts = 0
        self.failover_count = 0
        self.failovers: list[ops.FailoverCompleted] = []
        self.exceptions: list[ExceptionEntry] = []

    def apply(self, operation: ops.Operation) -> None:
        """Make the one change that the operation describes.

        Raises:
            IllegalOperation: it does not fit the graph as it is; nothing has been changed.
        """
        try:
            _APPLY[type(operation)](self, operation)
        except (IndexError, OverflowError) as error:
            raise self._out_of_range(operation, error) from None
        self.lsn += 1

    def apply_all(self, operations: Iterable[ops.Operation]) -> None:
        """``apply`` for each, in order; those before one that does not fit have been applied."""
        for operation in operations:
            # As in ``apply``, without the call: replay is nothing but this loop.
            try:
                _APPLY[type(operation)](self, operation)
            except (IndexError, OverflowError) as error:
                raise self._out_of_range(operation, error) from None
            self.lsn += 1

    # What people and rooms above ask

    def vertex_of(self, task: TaskId) -> ExecutionJobVertex:
        """The vertex of a subtask."""
        return self.vertices[task.vertex]

    def state_of(self, task: TaskId) -> ExecutionState:
        """The state of the subtask's present attempt."""
        return self.vertices[task.vertex].execution_state(task.subtask)

    def task_name(self, vertex: int, subtask: int) -> str:
        """A subtask as people name it: ``tokenize[3]``."""
        return f"{self.job_graph.vertices[vertex].name}[{subtask}]"

    def tasks_in(self, *states: ExecutionState) -> Iterator[TaskId]:
        """All subtasks whose present attempt is in one of the states."""
        for index, vertex in enumerate(self.vertices):
            for subtask in vertex.subtasks_in(*states):
                yield TaskId(index, subtask)

    def active_tasks(self) -> Iterator[TaskId]:
        """All subtasks that occupy a slot."""
        return self.tasks_in(*ACTIVE_EXECUTION_STATES)

    def count(self, *states: ExecutionState) -> int:
        """How many subtasks are in one of the states."""
        return sum(vertex.counts[state] for vertex in self.vertices for state in states)

    @property
    def total_tasks(self) -> int:
        """How many subtasks the job has."""
        return sum(vertex.parallelism for vertex in self.vertices)

    def done(self) -> float:
        """How much of the job is done, 0 to 1: each vertex counts by its subtasks, a source by its splits handed out."""
        return sum(vertex.done * vertex.parallelism for vertex in self.vertices) / self.total_tasks

    def accumulators(self) -> dict[str, int | float]:
        """The sums of the accumulators of all finished subtasks, by name."""
        totals: dict[str, int | float] = {}
        for vertex in self.vertices:
            for values in vertex.accumulators.values():
                for name, value in values.items():
                    totals[name] = totals.get(name, 0) + value
        return dict(sorted(totals.items()))

    # The operations

    def _illegal(self, operation: ops.Operation, why: str) -> IllegalOperation:
        return IllegalOperation(f"operation {self.lsn + 1}, {operation!r}, does not apply: {why}")

    def _out_of_range(self, operation: ops.Operation, error: Exception) -> IllegalOperation:
        return IllegalOperation(f"operation {self.lsn + 1}, {operation!r}, is out of the graph's range: {error}")

    def _checked(
        self, operation: ops.TaskStateChanged | ops.TaskFinished | ops.TaskFailed, new: int
    ) -> ExecutionJobVertex:
        """The operation's vertex, once it is certain that the attempt is the present one and may become ``new``."""
        index, subtask = operation.vertex, operation.subtask
        if index < 0 or subtask < 0:
            raise self._nowhere(operation, index, subtask)
        vertex = self.vertices[index]
        if vertex.attempt[subtask] != operation.attempt:
            raise self._illegal(operation, f"the present attempt is {vertex.attempt[subtask]}")
        old = vertex.state[subtask]
        if not LEGAL[old << 4 | new]:
            raise self._illegal(operation, f"{_STATES[old].name} does not go over to {_STATES[new].name}")
        return vertex

    def _place(self, operation: ops.Operation, vertex: int, subtask: int) -> tuple[ExecutionJobVertex, int]:
        if vertex < 0 or subtask < 0 or vertex >= len(self.vertices) or subtask >= self.vertices[vertex].parallelism:
            raise self._nowhere(operation, vertex, subtask)
        return self.vertices[vertex], subtask

    def _nowhere(self, operation: ops.Operation, vertex: int, subtask: int) -> IllegalOperation:
        # Negative indexes would count from the end in Python; here they are nonsense. Too large ones raise IndexError by
        # themselves, so that the operations of a task's life, which replay is made of, need not ask for them.
        return self._illegal(operation, f"there is no subtask {subtask} of vertex {vertex}")

    def _epoch_started(self, operation: ops.EpochStarted) -> None:
        if operation.epoch <= self.epoch:
            raise self._illegal(operation, f"epoch {self.epoch} has already begun")
        if not self.run:
            self.run = operation.epoch
            self.started_at = operation.at
            self.status_times[JobStatus.CREATED] = operation.at
        self.epoch = operation.epoch
        self.leader = operation.leader

    def _job_status_changed(self, operation: ops.JobStatusChanged) -> None:
        if operation.status not in JOB_TRANSITIONS[self.status]:
            raise self._illegal(operation, f"{self.status.name} does not go over to {operation.status.name}")
        self.status = operation.status
        self.status_cause = operation.cause
        self.status_times[operation.status] = operation.at
        if operation.status is JobStatus.FAILING:
            self._remember(ExceptionEntry(-1, -1, 0, -1, operation.at, operation.cause))

    def _taskmanager_registered(self, operation: ops.TaskManagerRegistered) -> None:
        if operation.id in self.taskmanager_index:
            raise self._illegal(operation, "it is registered")
        if operation.slots < 1:
            raise self._illegal(operation, "a TaskManager has a slot at least")
        self.taskmanager_index[operation.id] = len(self.taskmanagers)
        self.taskmanagers.append(TaskManagerInfo(operation.id, operation.address, operation.slots, operation.at))

    def _taskmanager_removed(self, operation: ops.TaskManagerRemoved) -> None:
        if not 0 <= operation.taskmanager < len(self.taskmanagers) or self.taskmanagers[operation.taskmanager].removed:
            raise self._illegal(operation, "no such TaskManager is registered")
        info = self.taskmanagers[operation.taskmanager]
        info.removed = operation.cause or "removed"
        del self.taskmanager_index[info.id]

    def _splits_created(self, operation: ops.SplitsCreated) -> None:
        vertex, _ = self._place(operation, operation.vertex, 0)
        if vertex.splits is not None:
            raise self._illegal(operation, "the vertex has its splits")
        vertex.splits = operation.splits

    def _splits_assigned(self, operation: ops.SplitsAssigned) -> None:
        vertex, subtask = self._place(operation, operation.vertex, operation.subtask)
        last = operation.first + operation.count
        if (
            vertex.splits is None
            or operation.count < 1
            or operation.first != vertex.splits_taken
            or last > len(vertex.splits)
        ):
            raise self._illegal(operation, f"{vertex.splits_taken} of {len(vertex.splits or ())} splits are taken")
        vertex.assigned.setdefault(subtask, []).extend(range(operation.first, last))
        vertex.splits_taken = last

    def _task_deploying(self, operation: ops.TaskDeploying) -> None:
        index, subtask, taskmanager = operation.vertex, operation.subtask, operation.taskmanager
        if index < 0 or subtask < 0:
            raise self._nowhere(operation, index, subtask)
        vertex = self.vertices[index]
        old = vertex.state[subtask]
        if old != _CREATED or vertex.attempt[subtask] != operation.attempt:
            raise self._illegal(operation, f"attempt {vertex.attempt[subtask]} is {_STATES[old].name}")
        if taskmanager < 0 or self.taskmanagers[taskmanager].removed:
            raise self._illegal(operation, "no such TaskManager is registered")
        vertex.deployed_at[subtask] = operation.at
        vertex.since[subtask] = operation.at
        vertex.taskmanager[subtask] = taskmanager
        vertex.state[subtask] = _DEPLOYING
        counts = vertex.counts
        counts[_CREATED] -= 1
        counts[_DEPLOYING] += 1

    def _task_state_changed(self, operation: ops.TaskStateChanged) -> None:
        new = operation.state
        if new != _RUNNING and new in (_FINISHED, _FAILED, _DEPLOYING, _CREATED):
            raise self._illegal(operation, "that state has an operation of its own")
        vertex = self._checked(operation, new)
        self._move(vertex, operation.subtask, new, operation.at)

    def _task_finished(self, operation: ops.TaskFinished) -> None:
        vertex = self._checked(operation, _FINISHED)
        subtask, partition = operation.subtask, operation.partition
        if not partition.possible:
            raise self._illegal(operation, "no such partition can be")
        self._move(vertex, subtask, _FINISHED, operation.at)
        vertex.size[subtask] = partition.size
        vertex.records[subtask] = partition.records
        vertex.checksum[subtask] = partition.checksum
        if operation.accumulators:
            vertex.accumulators[subtask] = operation.accumulators

    def _task_failed(self, operation: ops.TaskFailed) -> None:
        vertex = self._checked(operation, _FAILED)
        subtask = operation.subtask
        self._move(vertex, subtask, _FAILED, operation.at)
        self._remember(
            ExceptionEntry(
                operation.vertex, subtask, operation.attempt, vertex.taskmanager[subtask], operation.at, operation.cause
            )
        )

    def _restart_scheduled(self, operation: ops.RestartScheduled) -> None:
        for vertex, subtask in operation.tasks:
            self._place(operation, vertex, subtask)
        for vertex, subtask in operation.tasks:
            task = TaskId(vertex, subtask)
            self.vertices[vertex].restarting += task not in self.restart_due
            self.restart_due[task] = operation.due
        self.restart_state = operation.strategy
        self.restarts += 1

    def _tasks_reset(self, operation: ops.TasksReset) -> None:
        for subtask in operation.subtasks:
            vertex, _ = self._place(operation, operation.vertex, subtask)
            if vertex.state[subtask] not in (_FINISHED, _CANCELED, _FAILED):
                raise self._illegal(operation, f"subtask {subtask} is {_STATES[vertex.state[subtask]].name}")
        if len(set(operation.subtasks)) < len(operation.subtasks):
            raise self._illegal(operation, "a subtask is named twice")
        for subtask in operation.subtasks:
            vertex = self.vertices[operation.vertex]
            self._move(vertex, subtask, _CREATED, operation.at)
            vertex.attempt[subtask] += 1
            vertex.taskmanager[subtask] = -1
            vertex.size[subtask] = vertex.records[subtask] = vertex.checksum[subtask] = vertex.deployed_at[subtask] = 0
            vertex.accumulators.pop(subtask, None)
            if self.restart_due.pop(TaskId(operation.vertex, subtask), None) is not None:
                vertex.restarting -= 1

    def _failover_completed(self, operation: ops.FailoverCompleted) -> None:
        self.failover_count += 1
        self.failovers = [*self.failovers[1 - MAX_FAILOVERS :], operation]

    @staticmethod
    def _move(vertex: ExecutionJobVertex, subtask: int, new: int, at: int) -> None:
        # The first step, because a time out of range is refused here, before anything has changed.
        vertex.since[subtask] = at
        counts = vertex.counts
        counts[vertex.state[subtask]] -= 1
        counts[new] += 1
        vertex.state[subtask] = new

    def _remember(self, entry: ExceptionEntry) -> None:
        self.exceptions = [*self.exceptions[1 - MAX_EXCEPTIONS :], entry]

    # Snapshots

    def snapshot(self) -> bytes:
        """The whole graph as bytes, from which ``restore`` makes an equal one. The same operations give the same bytes."""
        return encode_snapshot(self.job_graph.id, {name: getattr(self, name) for name in SCALARS}, self.vertices)

    @classmethod
    def restore(cls, job_graph: JobGraph, data: bytes) -> "ExecutionGraph":
        """The graph that ``snapshot`` was taken of.

        Raises:
            IllegalOperation: the bytes are no snapshot, of another version, or of another JobGraph.
        """
        graph = cls(job_graph)
        for name, value in decode_snapshot(job_graph.id, data, graph.vertices).items():
            setattr(graph, name, value)
        for task in graph.restart_due:
            graph.vertices[task.vertex].restarting += 1
        graph.taskmanager_index = {info.id: i for i, info in enumerate(graph.taskmanagers) if not info.removed}
        return graph


_APPLY: dict[type, Callable[[ExecutionGraph, Any], None]] = {
    ops.EpochStarted: ExecutionGraph._epoch_started,
    ops.JobStatusChanged: ExecutionGraph._job_status_changed,
    ops.TaskManagerRegistered: ExecutionGraph._taskmanager_registered,
    ops.TaskManagerRemoved: ExecutionGraph._taskmanager_removed,
    ops.SplitsCreated: ExecutionGraph._splits_created,
    ops.SplitsAssigned: ExecutionGraph._splits_assigned,
    ops.TaskDeploying: ExecutionGraph._task_deploying,
    ops.TaskStateChanged: ExecutionGraph._task_state_changed,
    ops.TaskFinished: ExecutionGraph._task_finished,
    ops.TaskFailed: ExecutionGraph._task_failed,
    ops.RestartScheduled: ExecutionGraph._restart_scheduled,
    ops.TasksReset: ExecutionGraph._tasks_reset,
    ops.FailoverCompleted: ExecutionGraph._failover_completed,
}
