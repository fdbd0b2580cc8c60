"""The TaskManagers of a term: who is connected, who is away and until when that is borne, who has a free slot."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

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
        lost: it is gone for good.
        away_since, deadline: since when it is not connected, and when it counts as lost; milliseconds.
        tasks: the subtasks whose present attempt is active on it.
        strangers: attempts that the log has no use for; they hold their slots until they have stopped.
    """

    id: str
    index: int
    slots: int
    connected: bool = False
    lost: bool = False
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
        self._deadlines: list[tuple[int, int, Worker]] = []
        self._numbers = count()
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
        worker.connected, worker.lost = False, True
        del self._by_id[worker.id], self._by_index[worker.index]

    def came(self, worker: Worker) -> None:
        """It is connected."""
        worker.connected = True

    def left(self, worker: Worker, *, now: int, deadline: int) -> None:
        """It is not connected (any more)."""
        worker.connected, worker.away_since, worker.deadline = False, now, deadline
        # The number keeps two entries of one deadline from being compared by their TaskManagers.
        heappush(self._deadlines, (deadline, next(self._numbers), worker))

    def overdue(self, now: int) -> list[Worker]:
        """Those that have been away for too long; each is to be removed."""
        found: dict[str, Worker] = {}
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            worker = heappop(self._deadlines)[2]
            found[worker.id] = worker
        return list(found.values())

    def next_deadline(self) -> int | None:
        """When the next one will have been away for too long."""
        while self._deadlines:
            deadline, _, worker = self._deadlines[0]
            if not worker.connected and not worker.lost and worker.deadline == deadline:
                return deadline
            # It came back since, or is away anew, with another deadline.
            heappop(self._deadlines)
        return None

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
