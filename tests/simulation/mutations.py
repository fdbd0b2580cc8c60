"""Deliberate bugs in the pure rooms and in the log: each is a patch that somebody might have written."""

from collections.abc import Callable, Collection
from typing import Any

import pytest

from flinkjob.api.errors import CorruptedLog, Deposed
from flinkjob.election.elector import Elector, State
from flinkjob.graph import executiongraph
from flinkjob.graph import operations as ops
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.states import ExecutionState, JobStatus
from flinkjob.graph.vertex import TaskId
from flinkjob.jobmanager.connections import Connections
from flinkjob.jobmanager.effects import EffectQueue
from flinkjob.jobmaster import deciding, master, verdicts
from flinkjob.jobmaster.events import Decision, SplitRequested
from flinkjob.jobmaster.master import JobMaster
from flinkjob.jobmaster.ready import ReadyQueue
from flinkjob.jobmaster.verdicts import Verdict, judge
from flinkjob.jobmaster.workers import Worker, Workers
from flinkjob.oplog.reader import Block, SegmentReader
from flinkjob.oplog.replay import Replay
from flinkjob.worker import events as wev
from flinkjob.worker import protocol as msg
from flinkjob.worker.protocol import Report
from flinkjob.worker.taskexecutor import _HANDLERS, TaskExecutor

from .journal import Pen
from .logstore import LogStore

Patch = pytest.MonkeyPatch
_E = ExecutionState


# The log


def effects_are_released_before_they_are_durable(patch: Patch) -> None:
    """The queue does not wait for the log."""
    release = EffectQueue.release
    patch.setattr(EffectQueue, "release", lambda self, durable_lsn: release(self, 1 << 60))


def effects_wait_for_the_decision_before(patch: Patch) -> None:
    """The queue waits for one decision too few: an end is acknowledged before it is durable."""

    def put(self: EffectQueue, decision: Decision) -> None:
        before = self._last_lsn
        if decision.operations:
            self._last_lsn = self._journal.append(decision.operations)
        self._waiting.append((before, decision.effects))
        self.release(self._journal.durable_lsn)

    patch.setattr(EffectQueue, "put", put)


def the_fence_is_not_asked(patch: Patch) -> None:
    """A leader does not look whether it has been deposed before it acts."""
    patch.setattr(LogStore, "check_fence", lambda self, epoch: None)


def the_fence_is_asked_before_the_sync(patch: Patch) -> None:
    """A leader looks at its fence first, and writes and syncs after that."""

    def write(self: Pen, block: bytes) -> None:
        try:
            self._store.check_fence(self._epoch)
        except OSError:
            pass  # the write will find out
        except Deposed as error:
            self._fail(error)
            return
        original(self, block)

    def check(self: Pen, attempt: int, block: bytes) -> None:
        self._clean, self._empty = True, False
        self._answer(attempt, block, None)

    original = Pen._try
    patch.setattr(Pen, "_try", write)
    patch.setattr(Pen, "_check", check)


def predecessors_are_not_fenced(patch: Patch) -> None:
    """A new leader reads the log without having deposed anybody."""
    patch.setattr(LogStore, "fence", lambda self, epoch, leader: self._fences.setdefault(epoch, b""))


def only_the_last_predecessor_is_fenced(patch: Patch) -> None:
    """A new leader deposes the epoch before its own, and forgets that older leaders may still sleep."""

    def fence(self: LogStore, epoch: int, leader: str) -> None:
        self._fences[epoch - 1] = b"deposed"
        self._fences.setdefault(epoch, b"")

    patch.setattr(LogStore, "fence", fence)


def an_epoch_is_claimed_twice(patch: Patch) -> None:
    """Whoever comes next goes on in the epoch that is there."""
    claim = LogStore.claim

    def again(self: LogStore) -> int:
        segments = self.segments()
        return segments[-1].epoch if segments else claim(self)

    patch.setattr(LogStore, "claim", again)


def blocks_written_in_vain_count(patch: Patch) -> None:
    """The replay takes what a deposed leader wrote after its successor had read the log."""
    belongs = Replay._belongs
    patch.setattr(Replay, "_belongs", lambda self, block, limit: belongs(self, block, None))


def a_repeated_block_counts_twice(patch: Patch) -> None:
    """The replay takes the second copy of a block that was written again after a failed sync."""
    belongs = Replay._belongs

    def both(self: Replay, block: Block, limit: int | None) -> bool:
        return block.header == self._last or belongs(self, block, limit)

    patch.setattr(Replay, "_belongs", both)


def a_torn_end_is_damage(patch: Patch) -> None:
    """The reader takes a write that was cut short for a damaged log."""

    def torn(self: SegmentReader, file: Any, place: Any, size: int, lsn: int, reason: str) -> None:
        raise CorruptedLog(reason)

    patch.setattr(SegmentReader, "_check_torn", torn)


def the_last_block_is_taken_for_torn(patch: Patch) -> None:
    """The reader drops the last block of a segment, as if it might be torn."""
    read = SegmentReader.blocks

    def all_but_the_last(self: SegmentReader, **arguments: int) -> Any:
        yield from list(read(self, **arguments))[:-1]

    patch.setattr(SegmentReader, "blocks", all_but_the_last)


def a_snapshot_does_not_wait_until_it_is_durable(patch: Patch) -> None:
    """A snapshot is stored of what another leader may never see."""
    patch.setattr(Pen, "_snapshot_due", lambda self: bool(self._snapshots))


def a_snapshot_forgets_what_is_to_run_again(patch: Patch) -> None:
    """A graph that is restored waits for no restarts."""
    restore = ExecutionGraph.restore

    def forgetful(job_graph: Any, data: bytes) -> ExecutionGraph:
        graph = restore(job_graph, data)
        graph.restart_due.clear()
        return graph

    patch.setattr(ExecutionGraph, "restore", forgetful)


def what_a_snapshot_covers_is_applied_again(patch: Patch) -> None:
    """The replay does not cut the block in whose middle a snapshot was taken."""
    decode = Replay._decode

    def whole(self: Replay, block: Block) -> list[ops.Operation]:
        decode(self, block)
        return ops.decode_operations(block.payload)

    patch.setattr(Replay, "_decode", whole)


def snapshots_are_listed_from_a_cache(patch: Patch) -> None:
    """A new leader looks for snapshots where it looked before, and does not see what has come and gone since."""
    fence = LogStore.fence

    def cached(self: LogStore, epoch: int, leader: str) -> None:
        before = self._listed.get("snapshots")
        fence(self, epoch, leader)
        if before is not None:
            self._listed["snapshots"] = before

    patch.setattr(LogStore, "fence", cached)


def a_store_that_hangs_is_waited_for(patch: Patch) -> None:
    """Nobody looks at the time for which an append has not been answered."""
    patch.setattr(Pen, "_look", lambda self: None)


# The election


def the_log_is_not_asked_in_an_outage(patch: Patch) -> None:
    """A leader that cannot renew its lease takes it for granted that there is no newer one."""
    patch.setattr(Pen, "check_fence", lambda self, answer: self._process.soon(answer, None))


def a_confirmation_is_not_believed(patch: Patch) -> None:
    """A term ends with the lease, whatever the log says of newer leaders."""
    patch.setattr(Elector, "confirmed", lambda self, *, requested_at, now: None)


def silence_counts_in_doubt(patch: Patch) -> None:
    """A leader that may be cut off gives up the TaskManagers that it cannot hear."""
    drop = Connections.drop_silent
    patch.setattr(Connections, "drop_silent", lambda self, timeout_ms, *, deaf: drop(self, timeout_ms, deaf=False))


def a_term_never_ends(patch: Patch) -> None:
    """A leader goes on although it could not renew the lease."""
    patch.setattr(Elector, "is_leader", lambda self, now: self.state is State.LEADER)


def the_lease_is_taken_too_early(patch: Patch) -> None:
    """A standby waits a quarter of the time that it should."""
    free_in = Elector._free_in

    def early(self: Elector, now: float) -> float:
        left = free_in(self, now)
        return left - 0.75 * self._times.lease_duration if left > 0 else left

    patch.setattr(Elector, "_free_in", early)


def a_term_counts_from_the_answer(patch: Patch) -> None:
    """A term is counted from when the store answered, not from when it was asked."""
    written = Elector.written

    def late(self: Elector, record: Any, *, requested_at: float, now: float) -> None:
        written(self, record, requested_at=now + self._times.renew_deadline, now=now)

    patch.setattr(Elector, "written", late)


# The graph


def _apply(patch: Patch, operation: type, changed: Callable[[ExecutionGraph, Any], None]) -> None:
    patch.setitem(executiongraph._APPLY, operation, changed)


def a_failover_renews_the_budget(patch: Patch) -> None:
    """The restart strategy begins anew with each leader."""

    def started(graph: ExecutionGraph, operation: ops.EpochStarted) -> None:
        ExecutionGraph._epoch_started(graph, operation)
        graph.restart_state = ops.RestartState()

    _apply(patch, ops.EpochStarted, started)


def a_reset_gives_the_splits_back(patch: Patch) -> None:
    """A task that runs again has lost the splits that it had."""

    def reset(graph: ExecutionGraph, operation: ops.TasksReset) -> None:
        ExecutionGraph._tasks_reset(graph, operation)
        for subtask in operation.subtasks:
            graph.vertices[operation.vertex].assigned.pop(subtask, None)

    _apply(patch, ops.TasksReset, reset)


def a_reset_keeps_the_attempt_number(patch: Patch) -> None:
    """A task runs again under the number of the attempt that failed."""

    def reset(graph: ExecutionGraph, operation: ops.TasksReset) -> None:
        ExecutionGraph._tasks_reset(graph, operation)
        for subtask in operation.subtasks:
            graph.vertices[operation.vertex].attempt[subtask] -= 1

    _apply(patch, ops.TasksReset, reset)


# The JobMaster


def _judged(patch: Patch, changed: Callable[[ExecutionState, ExecutionState | None], Verdict | None]) -> None:
    patch.setattr(master, "judge", lambda logged, reported: changed(logged, reported) or judge(logged, reported))


def a_running_task_is_a_conflict(patch: Patch) -> None:
    """What runs on both sides is restarted all the same."""
    _judged(patch, lambda log, said: Verdict.CONFLICT if log is said is _E.RUNNING else None)


def a_deployment_that_never_arrived_is_continued(patch: Patch) -> None:
    """A command that was lost with its leader is not repeated."""
    patch.setitem(verdicts._UNREPORTED, _E.DEPLOYING, Verdict.CONTINUED)


def a_task_that_is_gone_is_continued(patch: Patch) -> None:
    """What a TaskManager does not have any more is still waited for."""
    patch.setitem(verdicts._UNREPORTED, _E.RUNNING, Verdict.CONTINUED)


def a_cancelled_task_that_is_gone_is_waited_for(patch: Patch) -> None:
    """What a TaskManager does not have any more is still to be stopped."""
    patch.setitem(verdicts._UNREPORTED, _E.CANCELING, Verdict.CONTINUED)


def a_cancellation_is_not_repeated(patch: Patch) -> None:
    """A command to stop that was lost with its leader is not sent again."""
    _judged(patch, lambda log, said: Verdict.CONTINUED if log is _E.CANCELING and said and not said.terminal else None)


def a_lost_deployment_becomes_a_new_attempt(patch: Patch) -> None:
    """A command that was lost with its leader is repeated with the next attempt number, which the log does not know."""

    def reconcile(self: JobMaster, worker: Worker, task: TaskId, report: Report | None) -> None:
        if judge(self.graph.state_of(task), report.state if report else None) is Verdict.REDEPLOYED:
            attempt = self.attempt_of(task)
            self._scheduler.deploy(worker, attempt._replace(attempt=attempt.attempt + 1))
            if self.reconciliation:
                self.reconciliation.settle(task, Verdict.REDEPLOYED)
        else:
            original(self, worker, task, report)

    original = JobMaster._reconcile
    patch.setattr(JobMaster, "_reconcile", reconcile)


def an_orphan_is_left_running(patch: Patch) -> None:
    """What a TaskManager runs and the log has no use for is not cancelled."""
    unexpected = JobMaster._unexpected

    def ignore(self: JobMaster, worker: Worker, report: Report) -> None:
        if report.state.terminal:
            unexpected(self, worker, report)

    patch.setattr(JobMaster, "_unexpected", ignore)


def partitions_are_not_verified(patch: Patch) -> None:
    """A new leader believes that all partitions are still there."""
    patch.setattr(JobMaster, "_check_partitions", lambda self, tasks: None)


def a_terminal_state_is_left(patch: Patch) -> None:
    """A new leader runs a job again whose end is in the log."""
    start = JobMaster.start

    def revive(self: JobMaster, **arguments: Any) -> Decision:
        if self.graph.status.terminal:
            self.graph.status = JobStatus.RUNNING
        return start(self, **arguments)

    patch.setattr(JobMaster, "start", revive)


def consumers_go_on_with_what_was_thrown_away(patch: Patch) -> None:
    """A producer runs again, and those who have read the old partition do not."""

    def alone(graph: ExecutionGraph, failed: Collection[TaskId], lost: Collection[TaskId]) -> set[TaskId]:
        return {*failed, *lost}

    patch.setattr(master, "region_restart", alone)
    patch.setattr(deciding, "region_restart", alone)


def a_lost_input_is_not_produced_again(patch: Patch) -> None:
    """A task that cannot read its input is tried again and again."""
    patch.setattr(JobMaster, "_lost_input", lambda self, task, report: [])


def a_report_that_comes_twice_is_news(patch: Patch) -> None:
    """Whatever is reported of an active task is logged, also what the log has already."""
    patch.setattr(master, "judge", lambda logged, reported: Verdict.ADVANCED if reported else judge(logged, reported))


def a_taskmanager_is_given_up_at_once(patch: Patch) -> None:
    """A connection that breaks is taken for a TaskManager that has died."""
    left = Workers.left
    patch.setattr(Workers, "left", lambda self, worker, *, now, deadline: left(self, worker, now=now, deadline=now))


def a_silent_taskmanager_is_waited_for_for_ever(patch: Patch) -> None:
    """Nobody looks at the time-outs."""
    patch.setattr(Workers, "overdue", lambda self, now: [])
    patch.setattr(Workers, "next_deadline", lambda self: None)


def a_split_is_dealt_out_at_each_request(patch: Patch) -> None:
    """A request that is repeated after a failover gets another split than the first time."""
    requested = JobMaster._split_requested

    def another(self: JobMaster, event: SplitRequested) -> None:
        have = self.graph.vertices[event.attempt.vertex].assigned.get(event.attempt.subtask, [])
        requested(self, SplitRequested(event.id, event.attempt, len(have)))

    patch.setattr(JobMaster, "_split_requested", another)


def tasks_begin_before_their_inputs_are_there(patch: Patch) -> None:
    """The scheduler does not look at what a task reads."""
    patch.setattr(ReadyQueue, "_may_be_ready", lambda self, vertex: True)


def restarted_producers_are_not_waited_for(patch: Patch) -> None:
    """A task is deployed although what it reads is about to be produced again."""

    def may_be_ready(self: ReadyQueue, vertex: int) -> bool:
        before = [states.restarting for states in self._graph.vertices]
        for states in self._graph.vertices:
            states.restarting = 0
        try:
            return original(self, vertex)
        finally:
            for states, restarting in zip(self._graph.vertices, before, strict=True):
                states.restarting = restarting

    original = ReadyQueue._may_be_ready
    patch.setattr(ReadyQueue, "_may_be_ready", may_be_ready)


# The TaskManager


def a_deposed_leader_is_registered_with(patch: Patch) -> None:
    """A TaskManager takes any leader, also one of a lower epoch than it has seen."""

    def registered(self: TaskExecutor, message: msg.Registered, now: int, effects: list[wev.Effect]) -> None:
        self.epoch = min(self.epoch, message.epoch)
        TaskExecutor._registered(self, message, now, effects)

    patch.setitem(_HANDLERS, msg.Registered, registered)


def a_lost_connection_cancels_the_tasks(patch: Patch) -> None:
    """A TaskManager that loses its leader stops all that it runs."""

    def lost(self: TaskExecutor, event: wev.ConnectionLost, now: int, effects: list[wev.Effect]) -> None:
        TaskExecutor._connection_lost(self, event, now, effects)
        for attempt in list(self._attempts):
            self._cancel_attempt(attempt, now, effects)

    patch.setitem(_HANDLERS, wev.ConnectionLost, lost)


def an_end_is_forgotten_with_the_connection(patch: Patch) -> None:
    """A TaskManager tells an end once; if nobody was listening, it is never heard of again."""

    def lost(self: TaskExecutor, event: wev.ConnectionLost, now: int, effects: list[wev.Effect]) -> None:
        TaskExecutor._connection_lost(self, event, now, effects)
        self._ended.clear()

    patch.setitem(_HANDLERS, wev.ConnectionLost, lost)


def a_split_is_not_asked_for_again(patch: Patch) -> None:
    """A TaskManager waits for the answer of a leader that has died."""

    def registered(self: TaskExecutor, message: msg.Registered, now: int, effects: list[wev.Effect]) -> None:
        heard: list[wev.Effect] = []
        TaskExecutor._registered(self, message, now, heard)
        requests = [e for e in heard if isinstance(e, wev.Send) and isinstance(e.message, msg.SplitRequest)]
        effects += [effect for effect in heard if effect not in requests]

    patch.setitem(_HANDLERS, msg.Registered, registered)


def a_deployment_that_comes_twice_begins_twice(patch: Patch) -> None:
    """A TaskManager does not look whether it has the attempt already."""

    def deploy(self: TaskExecutor, message: msg.Deploy, now: int, effects: list[wev.Effect]) -> None:
        for deployment in message.deployments:
            known = self._attempts.pop(deployment.attempt, None)
            self._kills.pop(deployment.attempt, None)
            if known is not None and known.slot is not None:
                self.slots[known.slot] = None
                self._free.append(known.slot)
        TaskExecutor._deploy(self, message, now, effects)

    patch.setitem(_HANDLERS, msg.Deploy, deploy)


def a_split_that_comes_twice_is_given_twice(patch: Patch) -> None:
    """A TaskManager does not look whether an attempt (still) waits for the split that has come."""

    def splits(self: TaskExecutor, message: msg.Splits, now: int, effects: list[wev.Effect]) -> None:
        attempt = self._attempts.get(message.attempt)
        if attempt is not None:
            attempt.split_wanted = message.index
        TaskExecutor._splits(self, message, now, effects)

    patch.setitem(_HANDLERS, msg.Splits, splits)
