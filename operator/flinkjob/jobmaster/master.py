"""The JobMaster: events in, operations and effects out.

It is a pure function with a memory: the ExecutionGraph, which only operations change, and what can be found again after a
failover (who is connected, what is ready, what has been asked for). Everything that must survive is in the graph; a new
JobMaster on a replayed graph asks the same questions that this one would.

The end of each event is ``_advance``, which looks at the graph and does all that is due. It does not rely on what the
event was, so that a leader that died between two operations leaves nothing half done.
"""

from collections.abc import Callable, Iterable

from flinkjob.api.errors import ProtocolViolation
from flinkjob.graph import operations as ops
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.states import ExecutionState, JobStatus
from flinkjob.graph.vertex import TaskId
from flinkjob.jobmaster import events as ev
from flinkjob.jobmaster.deciding import MAX_CAUSE, Deciding, JobMasterOptions
from flinkjob.jobmaster.failover import inputs_of, outputs_needed, region_restart
from flinkjob.jobmaster.reconciliation import FAILED_ITSELF, INPUT_RUNS_AGAIN, Reconciliation, Replay
from flinkjob.jobmaster.verdicts import Verdict, check_reports, judge
from flinkjob.jobmaster.workers import Worker
from flinkjob.worker.protocol import AttemptId, JobOver, Report, Splits

_E = ExecutionState
_ENDING = {JobStatus.CANCELLING: JobStatus.CANCELED, JobStatus.FAILING: JobStatus.FAILED}


class JobMaster(Deciding):
    """Runs one job for one term of leadership.

    Args:
        graph: new, or replayed from the log.
        options: see JobMasterOptions.
        jitter: gives random numbers in [-1, 1].
    """

    def __init__(
        self, graph: ExecutionGraph, options: JobMasterOptions, *, jitter: Callable[[], float] = lambda: 0.0
    ) -> None:
        super().__init__(graph, options, jitter)
        self._ended = False
        self._splits_wanted = [v.job_vertex.index for v in graph.vertices if v.job_vertex.splits and v.splits is None]
        self._handlers: dict[type, Callable[..., None]] = {
            ev.TaskManagerConnected: self._connected,
            ev.TaskManagerDisconnected: self._disconnected,
            ev.TaskManagerGone: self._gone,
            ev.TasksReported: self._reported,
            ev.SplitRequested: self._split_requested,
            ev.SplitsEnumerated: self._splits_enumerated,
            ev.EnumerationFailed: self._enumeration_failed,
            ev.PartitionsChecked: self._partitions_checked,
            ev.CancelRequested: self._cancel_requested,
            ev.TimePassed: lambda event: None,
        }

    # The three calls of the shell

    def start(self, *, epoch: int, leader: str, now: int, replay: Replay | None = None) -> ev.Decision:
        """Begin the term: log the epoch's start and, on a replayed graph that has begun, reconcile."""
        self._begin(now)
        resumed = bool(self.graph.run)
        self._do(ops.EpochStarted(epoch, leader, now))
        for index, info in enumerate(self.graph.taskmanagers):
            if not info.removed:
                worker = Worker(info.id, index, info.slots)
                self.workers.add(worker)
                self.workers.left(worker, now=now, deadline=now + self.options.reconcile_timeout)
        if resumed and not self.graph.status.terminal:
            self._start_reconciling(replay or Replay())
        elif not resumed:
            self._do(ops.JobStatusChanged(JobStatus.RUNNING, now))
        self._scheduler.rebuild()
        return self._end()

    def handle(self, event: ev.Event, now: int) -> ev.Decision:
        """Decide on an event.

        Args:
            event: what happened.
            now: milliseconds of the Unix epoch, never going back within a term.

        Raises:
            ProtocolViolation: a TaskManager told nonsense; nothing has been decided.
        """
        self._begin(now)
        if not self.graph.status.terminal:
            self._handlers[type(event)](event)
        elif isinstance(event, ev.TaskManagerConnected):
            self._send(event.id, JobOver(self.graph.epoch, self.graph.status.name))
        return self._end()

    def next_deadline(self) -> int | None:
        """When ``TimePassed`` is wanted at the latest, in milliseconds of the Unix epoch."""
        deadlines = [self.workers.next_deadline()]
        if self.graph.status is JobStatus.RUNNING:
            deadlines.append(self._scheduler.next_reset())
        return None if self.graph.status.terminal else min((at for at in deadlines if at is not None), default=None)

    # TaskManagers

    def _connected(self, event: ev.TaskManagerConnected) -> None:
        if event.slots < 1:
            raise ProtocolViolation(f"TaskManager {event.id!r} offers {event.slots} slots; it needs one at least")
        check_reports(event.id, event.reports)
        worker = self.workers.get(event.id)
        if worker is not None and worker.slots != event.slots:
            self._lose(worker, f"it came back with {event.slots} slots in the place of {worker.slots}")
            worker = None
        if worker is None:
            self._do(ops.TaskManagerRegistered(event.id, event.address, event.slots, self._now))
            worker = Worker(event.id, self.graph.taskmanager_index[event.id], event.slots)
            self.workers.add(worker)
        self.workers.came(worker)
        worker.strangers.clear()
        reported = {report.attempt: report for report in event.reports}
        for task in sorted(worker.tasks):
            self._reconcile(worker, task, reported.pop(self.attempt_of(task), None))
        for report in reported.values():
            self._unexpected(worker, report)
        self.workers.offer(worker)

    def _reconcile(self, worker: Worker, task: TaskId, report: Report | None) -> None:
        """The verdict on an attempt that the log has on this TaskManager, and what follows from it."""
        verdict = judge(self.graph.state_of(task), report.state if report else None)
        if verdict is Verdict.CONFLICT:
            self._conflict(worker, task, f"TaskManager {worker.id} no longer has it")
        elif verdict is Verdict.REDEPLOYED:
            self._scheduler.deploy(worker, self.attempt_of(task))
        elif verdict is Verdict.CANCELED_AGAIN:
            self._send_cancel(worker.id, self.attempt_of(task))
        elif verdict is Verdict.ADVANCED:
            self._advance_task(worker, task, report or Report(self.attempt_of(task), _E.CANCELED))
        if self.reconciliation:
            self.reconciliation.settle(task, verdict)

    def _unexpected(self, worker: Worker, report: Report) -> None:
        """A report of an attempt that the log does not have as active on this TaskManager."""
        if report.state.terminal:
            self._acknowledge(worker.id, report.attempt)
            worker.strangers.discard(report.attempt)
            self.workers.offer(worker)
            return
        worker.strangers.add(report.attempt)
        self._send_cancel(worker.id, report.attempt)
        if self.reconciliation:
            self.reconciliation.verdicts[Verdict.ORPHANED.value] += 1

    def _reported(self, event: ev.TasksReported) -> None:
        worker = self._worker(event.id)
        check_reports(event.id, event.reports)
        for report in event.reports:
            task = self._task_on(worker, report.attempt)
            if task is None:
                self._unexpected(worker, report)
            elif judge(self.graph.state_of(task), report.state) is Verdict.ADVANCED:
                self._advance_task(worker, task, report)

    def _advance_task(self, worker: Worker, task: TaskId, report: Report) -> None:
        """Log what the TaskManager says of an attempt, and do what follows."""
        attempt, canceling = report.attempt.attempt, self.graph.state_of(task) is _E.CANCELING
        if report.state is _E.RUNNING:
            self._do(ops.TaskStateChanged(*task, attempt, _E.RUNNING, self._now))
            return
        worker.tasks.discard(task)
        self.workers.offer(worker)
        if canceling:
            self._do(ops.TaskStateChanged(*task, attempt, _E.CANCELED, self._now))
        elif report.state is _E.FINISHED:
            self._do(ops.TaskFinished(*task, attempt, self._now, report.partition, report.accumulators))
            self._scheduler.ready.on_finished(task)
        else:
            cause = report.cause or f"{report.state.name} by TaskManager {worker.id}"
            self._do(ops.TaskFailed(*task, attempt, self._now, cause[:MAX_CAUSE]))
            self._restart([task], self._lost_input(task, report), cause)
        self._scheduler.ended(task)
        self._acknowledge(worker.id, report.attempt)

    def _lost_input(self, task: TaskId, report: Report) -> list[TaskId]:
        if report.lost_input is None:
            return []
        producer = TaskId(*report.lost_input)
        sources = {edge.source for edge in self.graph.job_graph.vertices[task.vertex].inputs}
        known = producer.vertex in sources and 0 <= producer.subtask < self.graph.vertex_of(producer).parallelism
        return [producer] if known and self.graph.state_of(producer) is _E.FINISHED else []

    def _disconnected(self, event: ev.TaskManagerDisconnected) -> None:
        worker = self.workers.get(event.id)
        if worker is not None:
            self.workers.left(worker, now=self._now, deadline=self._now + self.options.heartbeat_timeout)

    def _gone(self, event: ev.TaskManagerGone) -> None:
        worker = self.workers.get(event.id)
        if worker is not None:
            self._lose(worker, event.cause)

    def _lose(self, worker: Worker, cause: str) -> None:
        """The TaskManager is gone for good: what it ran fails at once."""
        self.workers.remove(worker)
        reason = f"TaskManager {worker.id} is lost: {cause}"
        failed = []
        for task in sorted(worker.tasks):
            attempt = self.graph.vertex_of(task).attempt[task.subtask]
            if self.graph.state_of(task) is _E.CANCELING:
                self._do(ops.TaskStateChanged(*task, attempt, _E.CANCELED, self._now))
                self._scheduler.ended(task)
                if self.reconciliation:
                    self.reconciliation.settle(task, Verdict.ENDED)
                continue
            self._do(ops.TaskFailed(*task, attempt, self._now, reason))
            failed.append(task)
            if self.reconciliation:
                self.reconciliation.conflict(task, reason)
        # Only now: wherever the log ends, it never has an attempt on a TaskManager that is not there any more.
        self._do(ops.TaskManagerRemoved(worker.index, cause, self._now))
        if failed:
            self._restart(failed, [], reason)

    # Splits

    def _split_requested(self, event: ev.SplitRequested) -> None:
        task = self._task_on(self._worker(event.id), event.attempt)
        if task is None:
            return
        vertex = self.graph.vertex_of(task)
        have = vertex.assigned.get(task.subtask, [])
        if vertex.splits is None or not 0 <= event.index <= len(have):
            raise ProtocolViolation(f"{self.name(task)} asks for split {event.index}; it has got {len(have)} so far")
        if event.index == len(have) and vertex.splits_taken < len(vertex.splits):
            self._do(ops.SplitsAssigned(*task, vertex.splits_taken, 1))
            have = vertex.assigned[task.subtask]
        split = vertex.splits[have[event.index]] if event.index < len(have) else None
        self._send(event.id, Splits(self.graph.epoch, event.attempt, event.index, split))

    def _splits_enumerated(self, event: ev.SplitsEnumerated) -> None:
        if self.graph.vertices[event.vertex].splits is None:
            self._do(ops.SplitsCreated(event.vertex, event.splits))
            self._scheduler.ready.add_vertex(event.vertex)

    def _enumeration_failed(self, event: ev.EnumerationFailed) -> None:
        self._fail_job(f"the splits of {self.graph.job_graph.vertices[event.vertex].name!r}: {event.cause}")

    # Failures

    def _conflict(self, worker: Worker, task: TaskId, reason: str) -> None:
        """The log and the TaskManager do not agree on an attempt: it has failed."""
        worker.tasks.discard(task)
        attempt = self.graph.vertex_of(task).attempt[task.subtask]
        self._do(ops.TaskFailed(*task, attempt, self._now, f"not consistent: {reason}"))
        if self.reconciliation:
            self.reconciliation.conflict(task, reason)
        else:
            self._restart([task], [], reason)

    def _cancel_requested(self, event: ev.CancelRequested) -> None:
        if not self.graph.status.terminal and self.graph.status is not JobStatus.CANCELLING:
            self._do(ops.JobStatusChanged(JobStatus.CANCELLING, self._now, "cancelled by request"))

    # The failover

    def _start_reconciling(self, replay: Replay) -> None:
        if self.graph.status is JobStatus.RUNNING:
            self._do(ops.JobStatusChanged(JobStatus.RECONCILING, self._now, replay.cause))
        elif self.graph.status is JobStatus.CREATED:
            self._do(ops.JobStatusChanged(JobStatus.RUNNING, self._now))
        pending = set(self.graph.active_tasks())
        for task in pending:
            self.workers.at(self.graph.vertex_of(task).taskmanager[task.subtask]).tasks.add(task)
        self.reconciliation = Reconciliation(replay, self._now, pending, set())
        # The previous leader may have died after it logged a failure and before it logged what follows from it.
        self.reconciliation.failed.update(
            task for task in self.graph.tasks_in(_E.FAILED, _E.CANCELED) if task not in self.graph.restart_due
        )
        if self.graph.status not in _ENDING:
            self._check_partitions(outputs_needed(self.graph))

    def _check_partitions(self, tasks: Iterable[TaskId]) -> None:
        """Have the partitions of these finished subtasks looked at; those that left nothing cannot have lost it."""
        partitions = []
        for task in tasks:
            vertex = self.graph.vertex_of(task)
            if vertex.size[task.subtask]:
                partitions.append((task, vertex.attempt[task.subtask], vertex.partition(task.subtask)))
        if partitions and self.reconciliation:
            self.reconciliation.unchecked.update(task for task, _, _ in partitions)
            self._effect(ev.CheckPartitions(tuple(partitions)))

    def _partitions_checked(self, event: ev.PartitionsChecked) -> None:
        if self.reconciliation:
            missing = [task for task in event.missing if task in self.reconciliation.unchecked]
            self.reconciliation.partitions_checked(missing)
            # What is to run again reads its inputs again; nobody may have looked at those yet.
            again = inputs_of(self.graph, region_restart(self.graph, [], missing)) - self.reconciliation.checked
            self._check_partitions(task for task in sorted(again) if self.graph.state_of(task) is _E.FINISHED)

    def _finish_reconciling(self, reconciliation: Reconciliation) -> None:
        self.reconciliation = None
        if self.graph.status is JobStatus.RECONCILING:
            self._do(ops.JobStatusChanged(JobStatus.RUNNING, self._now))
        for task in self._to_restart(reconciliation.failed, reconciliation.lost):
            alone = task in reconciliation.failed
            reconciliation.restarted.setdefault(task, FAILED_ITSELF if alone else INPUT_RUNS_AGAIN)
        replay = reconciliation.replay
        self._do(
            ops.FailoverCompleted(
                epoch=self.graph.epoch,
                leader=self.graph.leader,
                cause=replay.cause,
                started_at=replay.started_at,
                replayed_operations=replay.operations,
                replay_ms=float(replay.ms),
                reconcile_ms=float(self._now - reconciliation.began_at),
                decided_at=self._now,
                verdicts=dict(sorted(reconciliation.verdicts.items())),
                restarted=reconciliation.restarted_tasks(),
                silent_since=replay.silent_since,
            )
        )
        if reconciliation.failed or reconciliation.lost:
            causes = sorted(set(reconciliation.restarted.values()))
            self._restart(reconciliation.failed, reconciliation.lost, "; ".join(causes) or "failed before the failover")
        # The previous leader may have died after it scheduled a restart and before it cancelled what is to run again.
        self._stop(self.graph.restart_due)

    # What is due, whatever the event was

    def _advance(self) -> None:
        for worker in self.workers.overdue(self._now):
            self._lose(worker, f"silent for {(self._now - worker.away_since) / 1000:.0f} s")
        if self.reconciliation and self.reconciliation.over:
            self._finish_reconciling(self.reconciliation)
        status = self.graph.status
        if status in _ENDING:
            self._wind_down(_ENDING[status])
        elif status is JobStatus.RUNNING:
            self._ask_for_splits()
            self._scheduler.reset_due(self._do, self._now)
            self._scheduler.schedule(self._do, self._now)
            if not self.graph.restart_due and all(vertex.finished for vertex in self.graph.vertices):
                self._end_job(JobStatus.FINISHED)

    def _ask_for_splits(self) -> None:
        for vertex in self._splits_wanted:
            self._effect(ev.EnumerateSplits(vertex))
        self._splits_wanted = []

    def _wind_down(self, end: JobStatus) -> None:
        """The job is to end early: stop everything, and end it once nothing is left."""
        for task in list(self.graph.tasks_in(_E.CREATED)):
            attempt = self.graph.vertex_of(task).attempt[task.subtask]
            self._do(ops.TaskStateChanged(*task, attempt, _E.CANCELED, self._now))
        self._stop(list(self.graph.tasks_in(_E.DEPLOYING, _E.RUNNING)))
        if not self.graph.count(_E.CANCELING):
            if self.reconciliation:
                self._finish_reconciling(self.reconciliation)
            self._end_job(end)

    def _end_job(self, status: JobStatus) -> None:
        self._do(ops.JobStatusChanged(status, self._now, self.graph.status_cause))

    # The decision's end, and what an event means

    def _end(self) -> ev.Decision:
        if not self.graph.status.terminal:
            self._advance()
        self._send_gathered()
        if self.graph.status.terminal and not self._ended:
            self._ended = True
            self._effect(ev.JobEnded(self.graph.status))
            for worker in self.workers:
                self._send(worker.id, JobOver(self.graph.epoch, self.graph.status.name))
        return self._decision

    def _worker(self, taskmanager: str) -> Worker:
        worker = self.workers.get(taskmanager)
        if worker is None:
            raise ProtocolViolation(f"TaskManager {taskmanager!r} is not registered")
        return worker

    def _task_on(self, worker: Worker, attempt: AttemptId) -> TaskId | None:
        """The task whose present attempt this is, if it is active on the TaskManager."""
        task = TaskId(attempt.vertex, attempt.subtask)
        if task not in worker.tasks or attempt.run != self.graph.run:
            return None
        return task if attempt.attempt == self.graph.vertex_of(task).attempt[task.subtask] else None
