"""The subtasks of one vertex, in columns.

A column holds one number of every subtask, so that a million subtasks take some 40 MB, a snapshot is a copy of the
columns, and a state change is a few index assignments.
"""

from array import array
from collections.abc import Iterator
from typing import NamedTuple

from flinkjob.graph.jobgraph import JobVertex
from flinkjob.graph.operations import InputSplit, ResultPartition
from flinkjob.graph.states import ExecutionState

_STATES = tuple(ExecutionState)


class TaskId(NamedTuple):
    """A subtask of the graph: (index of the vertex, number of the subtask)."""

    vertex: int
    subtask: int


class ExecutionJobVertex:
    """The subtasks of one JobVertex, in columns. Read it freely; only ``ExecutionGraph.apply`` writes."""

    __slots__ = (
        "accumulators", "assigned", "attempt", "checksum", "counts", "deployed_at", "job_vertex", "parallelism",
        "records", "restarting", "since", "size", "splits", "splits_taken", "state", "taskmanager",
    )  # fmt: skip

    def __init__(self, job_vertex: JobVertex) -> None:
        n = job_vertex.parallelism
        self.job_vertex = job_vertex
        self.parallelism = n
        self.state = bytearray(n)
        self.attempt = array("I", bytes(4 * n))
        self.taskmanager = array("i", [-1]) * n
        self.since = array("q", bytes(8 * n))
        """When the subtask entered its present state, milliseconds (0: it is as it was created)."""
        self.deployed_at = array("q", bytes(8 * n))
        self.size = array("q", bytes(8 * n))
        self.records = array("q", bytes(8 * n))
        self.checksum = array("I", bytes(4 * n))
        self.counts = [0] * len(_STATES)
        self.counts[ExecutionState.CREATED] = n
        self.restarting = 0
        """How many subtasks are to run again but have no new attempt yet."""
        self.splits: tuple[InputSplit, ...] | None = None
        self.splits_taken = 0
        self.assigned: dict[int, list[int]] = {}
        self.accumulators: dict[int, dict[str, int | float]] = {}

    def partition(self, subtask: int) -> ResultPartition:
        """The partition of the present attempt; meaningful once that is FINISHED."""
        return ResultPartition(self.size[subtask], self.records[subtask], self.checksum[subtask])

    def execution_state(self, subtask: int) -> ExecutionState:
        """The state of the subtask's present attempt."""
        return _STATES[self.state[subtask]]

    @property
    def finished(self) -> bool:
        """Whether every subtask is FINISHED."""
        return self.counts[ExecutionState.FINISHED] == self.parallelism

    @property
    def done(self) -> float:
        """How much of the vertex is done, 0 to 1: a source by the splits that were handed out, others by their subtasks."""
        if self.splits and not self.finished:
            return self.splits_taken / len(self.splits)
        return self.counts[ExecutionState.FINISHED] / self.parallelism

    def subtasks_in(self, *states: ExecutionState) -> Iterator[int]:
        """The subtasks whose present attempt is in one of the states; free of cost where there are none."""
        if any(self.counts[state] for state in states):
            yield from (subtask for subtask, state in enumerate(self.state) if state in states)
