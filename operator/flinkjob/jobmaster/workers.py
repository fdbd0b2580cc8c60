"""The TaskManagers of a term: who is connected, who is away and until when that is borne, who has a free slot."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from flinkjob.graph.vertex import TaskId
from flinkjob.worker.protocol import AttemptId


@dataclass(slots=True, eq=False)
class Worker:
    """A TaskManager, as this leader knows it.

    Attributes:
        id: its name.
        index: its place in ``ExecutionGraph.taskmanagers``.
        slots: how many attempts it runs at once.
        connected: whether commands reach it.
        away_since, deadline: since when it is not connected, and when it counts as lost; milliseconds.
        tasks: the subtasks whose present attempt is active on it.
        strangers: attempts that the log has no use for; they hold their slots until they have stopped.
    """

    id: str
    index: int
    slots: int
    connected: bool = False
    away_since: int = 0
    deadline: int = 0
    tasks: set[TaskId] = field(default_factory=set)
    strangers: set[AttemptId] = field(default_factory=set)
    offered: bool = False

    @property
    def has_free_slot(self) -> bool:
        """Whether another attempt may be deployed to it."""
        return self.connected and len(self.tasks) + len(self.strangers) < self.slots


class Workers:
    """All TaskManagers that are not lost. What is asked at each event costs the same for one and for ten thousand."""

    def __init__(self) -> None:
        self._by_id: dict[str, Worker] = {}
        self._by_index: dict[int, Worker] = {}
        self._away: dict[str, Worker] = {}
        self._free: deque[Worker] = deque()

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._by_id.values())

    def get(self, taskmanager: str) -> Worker | None:
        """The TaskManager of this id."""
        return self._by_id.get(taskmanager)

    def at(self, index: int) -> Worker:
        """The TaskManager of this index."""
        return self._by_index[index]

    def add(self, worker: Worker) -> None:
        """It was registered, now or by an earlier leader."""
        self._by_id[worker.id] = self._by_index[worker.index] = worker

    def remove(self, worker: Worker) -> None:
        """It is lost."""
        worker.connected = False
        del self._by_id[worker.id], self._by_index[worker.index]
        self._away.pop(worker.id, None)

    def came(self, worker: Worker) -> None:
        """It is connected."""
        worker.connected = True
        self._away.pop(worker.id, None)

    def left(self, worker: Worker, *, now: int, deadline: int) -> None:
        """It is not connected (any more)."""
        worker.connected, worker.away_since, worker.deadline = False, now, deadline
        self._away[worker.id] = worker

    def overdue(self, now: int) -> list[Worker]:
        """Those that have been away for too long."""
        return [worker for worker in self._away.values() if worker.deadline <= now]

    def next_deadline(self) -> int | None:
        """When the next one will have been away for too long."""
        return min((worker.deadline for worker in self._away.values()), default=None)

    def offer(self, worker: Worker) -> None:
        """It may have a free slot now."""
        if worker.has_free_slot and not worker.offered:
            worker.offered = True
            self._free.append(worker)

    def take_slot(self) -> Worker | None:
        """A TaskManager with a free slot, in turn, so that tasks spread; None if there is none."""
        while self._free:
            worker = self._free.popleft()
            worker.offered = False
            if worker.has_free_slot:
                return worker
        return None
