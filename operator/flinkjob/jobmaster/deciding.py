"""What every decision of the JobMaster is made of: operations, effects, stopping and restarting tasks, ending the job.

It is the lower half of the JobMaster: nothing here knows of events.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from flinkjob.graph import operations as ops
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.states import ExecutionState, JobStatus
from flinkjob.graph.vertex import TaskId
from flinkjob.jobmaster import events as ev
from flinkjob.jobmaster.failover import full_restart, region_restart
from flinkjob.jobmaster.reconciliation import Reconciliation
from flinkjob.jobmaster.restart import RestartStrategy
from flinkjob.jobmaster.scheduling import Scheduler
from flinkjob.jobmaster.workers import Workers
from flinkjob.worker.protocol import Acknowledge, AttemptId, Cancel, FromJobManager

MAX_CAUSE = 4096
"""Characters of a failure's cause that are kept."""

_E = ExecutionState


@dataclass(frozen=True, slots=True)
class JobMasterOptions:
    """What a person can set.

    Attributes:
        reconcile_timeout: how long a new leader waits for TaskManagers, milliseconds.
        heartbeat_timeout: how long a TaskManager may be away, milliseconds.
        restart_strategy: whether and when failed tasks run again.
        restart_all: the failover strategy is ``full``, not ``region``.
    """

    reconcile_timeout: int
    heartbeat_timeout: int
    restart_strategy: RestartStrategy
    restart_all: bool = False


class Deciding:
    """The decision that is being made, and the graph that it changes."""

    def __init__(self, graph: ExecutionGraph, options: JobMasterOptions, jitter: Callable[[], float]) -> None:
        self.graph = graph
        self.options = options
        self.workers = Workers()
        self.reconciliation: Reconciliation | None = None
        self._scheduler = Scheduler(graph, self.workers)
        self._jitter = jitter
        self._decision = ev.Decision()
        self._acknowledged: dict[str, list[AttemptId]] = {}
        self._now = 0

    def _begin(self, now: int) -> None:
        self._decision, self._now = ev.Decision(), now

    def _do(self, operation: ops.Operation) -> None:
        self.graph.apply(operation)
        self._decision.operations.append(operation)

    def _effect(self, effect: ev.Effect) -> None:
        self._send_gathered()
        self._decision.effects.append(effect)

    def _send_gathered(self) -> None:
        """Acknowledgements and deployments wait to be sent together, but no other command may overtake them."""
        if self._acknowledged:
            epoch, acknowledged = self.graph.epoch, self._acknowledged
            self._acknowledged = {}
            for taskmanager, attempts in acknowledged.items():
                self._decision.effects.append(ev.Send(taskmanager, Acknowledge(epoch, tuple(attempts))))
        self._decision.effects.extend(self._scheduler.take_sends())

    def _send(self, taskmanager: str, message: FromJobManager) -> None:
        self._effect(ev.Send(taskmanager, message))

    def _acknowledge(self, taskmanager: str, attempt: AttemptId) -> None:
        self._acknowledged.setdefault(taskmanager, []).append(attempt)

    def _send_cancel(self, taskmanager: str, attempt: AttemptId) -> None:
        self._send(taskmanager, Cancel(self.graph.epoch, (attempt,)))

    # Failures

    def _restart(self, failed: Collection[TaskId], lost: Collection[TaskId], cause: str) -> None:
        """Ask the restart strategy, once for all that failed together; a failover asks when it is over."""
        if self.reconciliation:
            self.reconciliation.failed.update(failed)
            self.reconciliation.lost.update(lost)
            return
        if self.graph.status is not JobStatus.RUNNING:
            return
        answer = self.options.restart_strategy.on_failure(self.graph.restart_state, self._now, self._jitter())
        if answer is None:
            names = ", ".join(self.name(task) for task in sorted({*failed, *lost})[:3])
            self._fail_job(f"{names} failed, and the restart strategy allows no further restart: {cause}")
            return
        state, delay = answer
        tasks = self._to_restart(failed, lost)
        self._do(ops.RestartScheduled(tuple(sorted(tasks)), self._now + delay, cause[:MAX_CAUSE], state, self._now))
        for task in tasks:
            self._scheduler.ended(task)
        self._stop(tasks)

    def _to_restart(self, failed: Collection[TaskId], lost: Collection[TaskId]) -> set[TaskId]:
        """All that has to run again, by the failover strategy."""
        if not failed and not lost:
            return set()
        return full_restart(self.graph) if self.options.restart_all else region_restart(self.graph, failed, lost)

    def _stop(self, tasks: Iterable[TaskId]) -> None:
        """Cancel those of the tasks that are active."""
        for task in sorted(tasks):
            if self.graph.state_of(task) in (_E.DEPLOYING, _E.RUNNING):
                vertex = self.graph.vertex_of(task)
                attempt = vertex.attempt[task.subtask]
                self._do(ops.TaskStateChanged(*task, attempt, _E.CANCELING, self._now))
                self._send_cancel(self.workers.at(vertex.taskmanager[task.subtask]).id, self.attempt_of(task))

    def _fail_job(self, cause: str) -> None:
        if self.graph.status in (JobStatus.RUNNING, JobStatus.RECONCILING, JobStatus.CREATED):
            self._do(ops.JobStatusChanged(JobStatus.FAILING, self._now, cause[:MAX_CAUSE]))

    # Names

    def attempt_of(self, task: TaskId) -> AttemptId:
        """The present attempt of a task."""
        return AttemptId(self.graph.run, *task, self.graph.vertex_of(task).attempt[task.subtask])

    def name(self, task: TaskId) -> str:
        """A task as people name it."""
        return self.graph.task_name(*task)
