"""A TaskManager as the protocol wants it, without processes: its tasks go on when somebody calls ``step``."""

import zlib
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from flinkjob.api.job import Partitioner
from flinkjob.graph.jobgraph import JobGraph
from flinkjob.graph.operations import ResultPartition
from flinkjob.graph.states import ExecutionState
from flinkjob.jobmaster import events as ev
from flinkjob.worker import protocol as msg

Items = tuple[str, ...]
"""What a partition holds."""


class Surroundings(Protocol):
    """What a TaskManager needs of the world it lives in."""

    job_graph: JobGraph

    def begun(self, taskmanager: "TaskManager", attempt: msg.AttemptId) -> None:
        """An attempt's process was started."""

    def wants_to_fail(self, attempt: msg.AttemptId) -> bool:
        """Whether the attempt is to fail now."""

    def read(self, attempt: msg.AttemptId) -> Items | None:
        """What an attempt has written; None: it is gone."""

    def write(self, attempt: msg.AttemptId, items: Items) -> None:
        """An attempt has finished with this output."""


@dataclass(slots=True)
class Running:
    """An attempt that a TaskManager holds.

    Attributes:
        deployment: as the JobMaster sent it.
        state: DEPLOYING, RUNNING or CANCELING.
        splits: the paths of the splits that it got.
        asked: it waits for the answer to a SplitRequest.
        exhausted: there are no more splits.
    """

    deployment: msg.Deployment
    state: ExecutionState = ExecutionState.DEPLOYING
    splits: list[str] = field(default_factory=list)
    asked: bool = False
    exhausted: bool = False

    @property
    def can_step(self) -> bool:
        """Whether it does not wait for an answer."""
        return self.state is not ExecutionState.RUNNING or not self.asked


class TaskManager:
    """Keeps attempts with or without a leader, and the reports of ended ones until they are acknowledged."""

    def __init__(self, world: Surroundings, name: str, slots: int) -> None:
        self.world = world
        self.id = name
        self.slots = slots
        self.epoch = 0
        self.connection = 0
        self.connected = False
        self.silent = False
        self.attempts: dict[msg.AttemptId, Running] = {}
        self.ended: dict[msg.AttemptId, msg.Report] = {}
        self.inbox: deque[msg.FromJobManager] = deque()
        self.outbox: deque[ev.Event] = deque()

    # The connection

    def connect(self) -> None:
        """Register with the leader: report everything, and ask again for what was not answered."""
        self.inbox.clear()
        self.outbox.clear()
        self.connected, self.connection = True, self.connection + 1
        self.outbox.append(ev.TaskManagerConnected(self.id, f"{self.id}:1", self.slots, tuple(self.reports())))
        for attempt, running in self.attempts.items():
            if running.asked:
                self._ask(attempt, running)

    def disconnect(self, *, heard: int = 0) -> None:
        """The connection breaks; the first ``heard`` messages on their way still arrive."""
        for _ in range(min(heard, len(self.inbox))):
            self.receive(self.inbox.popleft())
        self.connected = False
        self.inbox.clear()
        self.outbox.clear()

    def restart(self, *, slots: int) -> None:
        """The process dies with all its tasks, and another one of the same name begins."""
        self.disconnect()
        self.slots = slots
        self.epoch = 0
        self.attempts.clear()
        self.ended.clear()

    def reports(self) -> Iterable[msg.Report]:
        """All that it has."""
        for attempt, running in self.attempts.items():
            # A task that is being stopped still runs, as far as the protocol knows.
            state = ExecutionState.RUNNING if running.state is ExecutionState.CANCELING else running.state
            yield msg.Report(attempt, state)
        yield from self.ended.values()

    def _tell(self, event: ev.Event) -> None:
        if self.connected:
            self.outbox.append(event)

    def _report(self, report: msg.Report) -> None:
        self._tell(ev.TasksReported(self.id, (report,)))

    def _ask(self, attempt: msg.AttemptId, running: Running) -> None:
        running.asked = True
        self._tell(ev.SplitRequested(self.id, attempt, len(running.splits)))

    # Commands

    def receive(self, message: msg.FromJobManager) -> None:
        """Do what a leader says, unless a later one has spoken."""
        if isinstance(message, msg.Refused) or message.epoch < self.epoch:
            return
        self.epoch = message.epoch
        if isinstance(message, msg.Deploy):
            for deployment in message.deployments:
                self._deploy(deployment)
        elif isinstance(message, msg.Cancel):
            for attempt in message.attempts:
                if attempt in self.attempts:
                    self.attempts[attempt].state = ExecutionState.CANCELING
                else:
                    self._report(self.ended.get(attempt) or msg.Report(attempt, ExecutionState.CANCELED))
        elif isinstance(message, msg.Acknowledge):
            for attempt in message.attempts:
                self.ended.pop(attempt, None)
        elif isinstance(message, msg.Splits):
            self._take_split(message)
        elif isinstance(message, msg.JobOver):
            self.attempts.clear()
            self.ended.clear()

    def _deploy(self, deployment: msg.Deployment) -> None:
        attempt = deployment.attempt
        if attempt in self.attempts:
            self._report(msg.Report(attempt, self.attempts[attempt].state))
        elif attempt in self.ended:
            self._report(self.ended[attempt])
        else:
            self.attempts[attempt] = Running(deployment)
            self.world.begun(self, attempt)

    def _take_split(self, message: msg.Splits) -> None:
        running = self.attempts.get(message.attempt)
        if running is None or not running.asked or message.index != len(running.splits):
            return
        running.asked = False
        if message.split is None:
            running.exhausted = True
        else:
            running.splits.append(message.split.path)

    # Tasks

    def step(self, attempt: msg.AttemptId) -> None:
        """Let an attempt go on a little."""
        running = self.attempts[attempt]
        if running.state is ExecutionState.CANCELING:
            self._end(msg.Report(attempt, ExecutionState.CANCELED))
        elif running.state is ExecutionState.DEPLOYING:
            running.state = ExecutionState.RUNNING
            self._report(msg.Report(attempt, ExecutionState.RUNNING))
        elif self.world.wants_to_fail(attempt):
            self._end(msg.Report(attempt, ExecutionState.FAILED, cause="the task failed"))
        elif self.world.job_graph.vertices[attempt.vertex].splits is not None and not running.exhausted:
            self._ask(attempt, running)
        else:
            self._finish(attempt, running)

    def _finish(self, attempt: msg.AttemptId, running: Running) -> None:
        items = output_of(self.world.job_graph, running.deployment, running.splits, self.world.read)
        if isinstance(items, msg.Report):
            self._end(items)
            return
        self.world.write(attempt, items)
        partition = ResultPartition(len(items), len(items), zlib.crc32("\n".join(items).encode()))
        self._end(msg.Report(attempt, ExecutionState.FINISHED, partition, {"items": len(items)}))

    def _end(self, report: msg.Report) -> None:
        del self.attempts[report.attempt]
        self.ended[report.attempt] = report
        self._report(report)


def output_of(
    job_graph: JobGraph,
    deployment: msg.Deployment,
    splits: Iterable[str],
    read: Callable[[msg.AttemptId], Items | None],
) -> Items | msg.Report:
    """What an attempt puts out: its splits, its name, or all that it reads; a report of its failure where that is gone."""
    attempt = deployment.attempt
    vertex = job_graph.vertices[attempt.vertex]
    if not vertex.inputs:
        return tuple(splits) if vertex.splits else (f"{vertex.name}[{attempt.subtask}]",)
    gathered: list[str] = []
    for edge, partitions in zip(vertex.inputs, deployment.inputs, strict=True):
        for partition in partitions:
            items = read(msg.AttemptId(attempt.run, edge.source, partition.subtask, partition.attempt))
            if items is None:
                lost = (edge.source, partition.subtask)
                return msg.Report(attempt, ExecutionState.FAILED, cause="an input is lost", lost_input=lost)
            gathered += (item for item in items if _is_mine(item, edge.partitioner, attempt, vertex.parallelism))
    return tuple(gathered)


def _is_mine(item: str, partitioner: Partitioner, attempt: msg.AttemptId, parallelism: int) -> bool:
    if partitioner in (Partitioner.FORWARD, Partitioner.BROADCAST):
        return True
    return zlib.crc32(item.encode()) % parallelism == attempt.subtask
