"""A JobMaster on the bench: a test plays the shell and the TaskManagers, one event at a time."""

from collections.abc import Sequence
from typing import Any, TypeVar

from flinkjob.graph import operations as ops
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.jobgraph import JobGraph
from flinkjob.graph.operations import ResultPartition
from flinkjob.graph.states import ExecutionState
from flinkjob.graph.vertex import TaskId
from flinkjob.jobmaster import events as ev
from flinkjob.jobmaster.deciding import JobMasterOptions
from flinkjob.jobmaster.master import JobMaster
from flinkjob.jobmaster.reconciliation import Replay
from flinkjob.worker.protocol import AttemptId, Cancel, Deploy, Report

from .world import T0, options

T = TypeVar("T")


class Bench:
    """One term of a leader, begun on construction.

    Attributes:
        log: all operations, those that were replayed included.
        last: the Decision on the last event.
        now: milliseconds.
    """

    def __init__(
        self,
        job_graph: JobGraph,
        settings: JobMasterOptions | None = None,
        *,
        log: Sequence[ops.Operation] = (),
        now: int = T0,
        epoch: int = 1,
    ) -> None:
        self.settings = settings or options()
        self.now = now
        self.log = list(log)
        self.graph = ExecutionGraph(job_graph)
        self.graph.apply_all(self.log)
        self.master = JobMaster(self.graph, self.settings)
        self.last = ev.Decision()
        replay = Replay("killed", now, len(self.log), 1.5)
        self._take(self.master.start(epoch=epoch, leader=f"jm-{epoch}", now=now, replay=replay))

    def successor(self, *, upto: int | None = None, settings: JobMasterOptions | None = None) -> "Bench":
        """The leader is killed, ``upto`` operations (all, if not said) survive, and the next one begins."""
        epoch, settings = self.graph.epoch + 1, settings or self.settings
        return Bench(self.graph.job_graph, settings, log=self.log[:upto], now=self.now, epoch=epoch)

    def upto(self, operation: type[ops.Operation], **fields: Any) -> int:
        """How many operations there are up to the first such one."""
        return 1 + next(
            index
            for index, op in enumerate(self.log)
            if isinstance(op, operation) and all(getattr(op, name) == value for name, value in fields.items())
        )

    # Events

    def handle(self, event: ev.Event, *, after: int = 0) -> ev.Decision:
        """Tell the JobMaster something, so many milliseconds later."""
        self.now += after
        return self._take(self.master.handle(event, self.now))

    def _take(self, decision: ev.Decision) -> ev.Decision:
        self.log += decision.operations
        self.last = decision
        fold = ExecutionGraph(self.graph.job_graph)
        fold.apply_all(ops.decode_operations(ops.encode_operations(self.log)))
        assert fold.snapshot() == self.graph.snapshot()
        return decision

    def connect(self, name: str = "tm-0", slots: int = 2, reports: Sequence[Report] = ()) -> ev.Decision:
        """A TaskManager registers and reports."""
        return self.handle(ev.TaskManagerConnected(name, f"{name}:1", slots, tuple(reports)))

    def running(self, vertex: int, subtask: int = 0, *, on: str = "tm-0") -> ev.Decision:
        """The present attempt is RUNNING."""
        return self.handle(ev.TasksReported(on, (self.report(vertex, subtask, ExecutionState.RUNNING),)))

    def finished(self, vertex: int, subtask: int = 0, *, on: str = "tm-0", size: int = 7) -> ev.Decision:
        """The present attempt has FINISHED."""
        report = self.report(vertex, subtask, ExecutionState.FINISHED, size=size)
        return self.handle(ev.TasksReported(on, (report,)))

    def failed(
        self, vertex: int, subtask: int = 0, *, on: str = "tm-0", lost: tuple[int, int] | None = None
    ) -> ev.Decision:
        """The present attempt has FAILED."""
        report = Report(self.attempt(vertex, subtask), ExecutionState.FAILED, cause="it broke", lost_input=lost)
        return self.handle(ev.TasksReported(on, (report,)))

    def canceled(self, vertex: int, subtask: int = 0, *, on: str = "tm-0") -> ev.Decision:
        """The present attempt is CANCELED."""
        return self.handle(ev.TasksReported(on, (self.report(vertex, subtask, ExecutionState.CANCELED),)))

    def wait(self) -> ev.Decision:
        """Time passes until the JobMaster wants to be told."""
        deadline = self.master.next_deadline()
        assert deadline is not None
        self.now = deadline
        return self.handle(ev.TimePassed())

    # Looking

    def attempt(self, vertex: int, subtask: int = 0) -> AttemptId:
        """The present attempt."""
        return AttemptId(self.graph.run, vertex, subtask, self.graph.vertices[vertex].attempt[subtask])

    def report(self, vertex: int, subtask: int, state: ExecutionState, *, size: int = 0) -> Report:
        """What a TaskManager says of the present attempt."""
        return Report(self.attempt(vertex, subtask), state, ResultPartition(size, size, size))

    @property
    def status(self) -> str:
        """The name of the job's state."""
        return self.graph.status.name

    def state(self, vertex: int, subtask: int = 0) -> str:
        """The name of the present attempt's state."""
        return self.graph.state_of(TaskId(vertex, subtask)).name

    def states(self) -> list[list[str]]:
        """The names of all states, by vertex."""
        return [[vertex.execution_state(s).name for s in range(vertex.parallelism)] for vertex in self.graph.vertices]

    def sent(self, kind: type[T], to: str | None = None) -> list[T]:
        """The messages of a kind in the last decision."""
        sends = (effect for effect in self.last.effects if isinstance(effect, ev.Send))
        return [send.message for send in sends if isinstance(send.message, kind) and to in (None, send.taskmanager)]

    def effects(self, kind: type[T]) -> list[T]:
        """The effects of a kind in the last decision."""
        return [effect for effect in self.last.effects if isinstance(effect, kind)]

    def deployed(self, to: str | None = None) -> list[AttemptId]:
        """What the last decision deploys."""
        return [deployment.attempt for deploy in self.sent(Deploy, to) for deployment in deploy.deployments]

    def cancelled(self, to: str | None = None) -> list[AttemptId]:
        """What the last decision tells TaskManagers to stop."""
        return [attempt for cancel in self.sent(Cancel, to) for attempt in cancel.attempts]

    def logged(self, kind: type[T]) -> list[T]:
        """The operations of a kind in the whole log."""
        return [operation for operation in self.log if isinstance(operation, kind)]
