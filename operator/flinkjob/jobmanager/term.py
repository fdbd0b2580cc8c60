"""One term of leadership: from the claim of an epoch to its end.

The term opens the log, replays it, and from then on turns what happens (messages, timers, requests) into events of the
pure JobMaster, its operations into the log, and its effects into action once they are durable. All of it runs on one
event loop; what blocks (storage, the user's code) runs beside it. When the term ends, for whatever reason, everything
that was not released is forgotten, and the next leader finds the rest in the log.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from flinkjob.api import options as opt
from flinkjob.api.errors import (
    CorruptedLog,
    FlinkJobError,
    IllegalOperation,
    LogUnavailable,
    ProtocolViolation,
    StorageError,
)
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.jobgraph import JobGraph
from flinkjob.graph.operations import ResultPartition
from flinkjob.graph.states import ExecutionState, JobStatus
from flinkjob.graph.vertex import TaskId
from flinkjob.jobmanager.clock import Clock
from flinkjob.jobmanager.effects import EffectQueue, Journal, NoJournal
from flinkjob.jobmanager.job import Job
from flinkjob.jobmanager.liveness import TaskManagerWatch
from flinkjob.jobmanager.predecessor import NOBODY, Predecessor
from flinkjob.jobmanager.result import encode_result, job_result
from flinkjob.jobmanager.splits import find_splits
from flinkjob.jobmaster import events as ev
from flinkjob.jobmaster.failover import inputs_of, outputs_needed, region_restart
from flinkjob.jobmaster.master import JobMaster
from flinkjob.jobmaster.preview import FailoverPreview, preview_failover
from flinkjob.jobmaster.reconciliation import Replay
from flinkjob.oplog.log import OperationLog
from flinkjob.oplog.writer import LogWriter
from flinkjob.taskmanager.exchange import verify_partition
from flinkjob.worker.protocol import FromJobManager

logger = logging.getLogger(__name__)

WATCH_INTERVAL = 0.1
"""Seconds between two looks at who has ended."""


@dataclass(frozen=True, slots=True)
class TermHooks:
    """What a term needs of the JobManager around it.

    Attributes:
        send: send a message to a TaskManager, if it is connected.
        is_leader: whether the lease is still held, as of this moment.
        over: the term cannot go on: the reason, and whether another one may help.
    """

    send: Callable[[str, FromJobManager], None]
    is_leader: Callable[[], bool]
    over: Callable[[FlinkJobError], None]


class Term:
    """Leads one job until ``close``.

    Args:
        job: what is to run, and where it is kept.
        leader: this JobManager's id.
        lease_term: the number of this term in the lease; the epoch where there is no log.
        predecessor: who held the lease before.

    Attributes:
        since: when the term began, milliseconds.
    """

    def __init__(
        self,
        *,
        job: Job,
        leader: str,
        lease_term: int,
        hooks: TermHooks,
        clock: Clock,
        watch: TaskManagerWatch,
        predecessor: Predecessor = NOBODY,
    ) -> None:
        self.job = job
        self.leader = leader
        self.predecessor = predecessor
        self.since = clock.now_ms()
        self.master: JobMaster | None = None
        self.writer: LogWriter | None = None
        self._lease_term = lease_term
        self._hooks = hooks
        self._clock = clock
        self._watch = watch
        self._effects: EffectQueue | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._snapshot_lsn = 0

    @property
    def graph(self) -> ExecutionGraph | None:
        """The graph, once it has been replayed."""
        return self.master.graph if self.master else None

    async def open(self) -> None:
        """Claim the epoch, replay, and begin to lead.

        Raises:
            FlinkJobError: the log or the JobGraph cannot be had; nobody has been told anything.
        """
        started_at = self._clock.now_ms()
        job_graph = await self.job.graph()
        if self.job.logged:
            graph, epoch, replay = await self._replay(job_graph, started_at)
            # Else a restart that a predecessor scheduled would wait until this machine's time of day has caught up.
            self._clock.not_before(graph.restart_state.last_at)
        else:
            graph, epoch, replay = ExecutionGraph(job_graph), self._lease_term, None
        if self._closed:
            # It was closed meanwhile, when there was no writer yet.
            if self.writer is not None:
                self.writer.abandon()
            return
        journal: Journal = self.writer or NoJournal()
        self._effects = EffectQueue(journal, self._release, lsn=graph.lsn)
        self._snapshot_lsn = graph.lsn
        self.master = JobMaster(graph, self.job.master_options, jitter=lambda: random.uniform(-1, 1))
        decision = self.master.start(epoch=epoch, leader=self.leader, now=self._clock.now_ms(), replay=replay)
        self._conclude(decision)
        self._background(self._watch_taskmanagers())

    async def _replay(self, job_graph: JobGraph, started_at: int) -> tuple[ExecutionGraph, int, Replay]:
        began = self._clock.now_ms()
        log = await asyncio.to_thread(OperationLog.open, self.job.storage, self.leader)
        try:
            graph, operations = await asyncio.to_thread(_fold, log, job_graph)
        except (CorruptedLog, IllegalOperation) as error:
            if not self.job.restart_on_corrupted_log:
                raise
            place = await asyncio.to_thread(log.set_aside)
            logger.error("%s; the log was set aside to %s and the job runs anew", error, place)
            graph, operations = await asyncio.to_thread(_fold, log, job_graph)
        self.writer = log.writer(
            on_durable=self._durable,
            on_failed=self._hooks.over,
            flush_interval=self.job.configuration.get(opt.OPERATION_LOG_FLUSH_INTERVAL) / 1000,
            retry_deadline=self.job.configuration.get(opt.OPERATION_LOG_WRITE_DEADLINE) / 1000,
        )
        before = self.predecessor
        cause = f"the leader {graph.leader} of epoch {graph.epoch} {before.cause}" if graph.run else ""
        took = self._clock.now_ms() - began
        return graph, log.epoch, Replay(cause, started_at, operations, took, before.seen)

    def dispatch(self, event: ev.Event) -> None:
        """Tell the JobMaster.

        Raises:
            ProtocolViolation: a TaskManager told nonsense.
        """
        if self.master is None or self._closed:
            return
        try:
            decision = self.master.handle(event, self._clock.now_ms())
        except ProtocolViolation:
            raise
        except FlinkJobError as error:
            self._hooks.over(error)
            return
        self._conclude(decision)

    def _conclude(self, decision: ev.Decision) -> None:
        assert self._effects is not None
        assert self.master is not None
        self._effects.put(decision)
        self._set_timer()
        self._maybe_snapshot(self.master.graph)

    def _durable(self, lsn: int) -> None:
        if self._effects is not None and not self._closed:
            self._effects.release(lsn)

    # Effects

    def _release(self, effect: ev.Effect) -> None:
        if self._closed or not self._hooks.is_leader():
            return
        if isinstance(effect, ev.Send):
            self._hooks.send(effect.taskmanager, effect.message)
        elif isinstance(effect, ev.EnumerateSplits):
            self._background(self._enumerate(effect.vertex))
        elif isinstance(effect, ev.CheckPartitions):
            self._background(self._check_partitions(effect))
        else:
            self._background(self._store_result(effect.status))

    async def _enumerate(self, vertex: int) -> None:
        assert self.master is not None
        spec = self.master.graph.job_graph.vertices[vertex].splits
        assert spec is not None
        try:
            splits = await find_splits(spec, self.job.module_dir)
        except (FlinkJobError, OSError) as error:
            self.dispatch(ev.EnumerationFailed(vertex, str(error)))
        else:
            self.dispatch(ev.SplitsEnumerated(vertex, splits))

    async def _check_partitions(self, effect: ev.CheckPartitions) -> None:
        self.dispatch(ev.PartitionsChecked(await self._missing(effect.partitions)))

    async def _missing(self, partitions: Iterable[tuple[TaskId, int, ResultPartition]]) -> tuple[TaskId, ...]:
        """The subtasks whose partitions are not in the storage as they should be."""
        assert self.master is not None
        url, run = self.job.storage.url, self.master.graph.run

        def missing() -> tuple[TaskId, ...]:
            return tuple(
                task
                for task, attempt, partition in partitions
                if not verify_partition(url, run, task.vertex, task.subtask, attempt, partition)
            )

        return await asyncio.to_thread(missing)

    async def preview(self) -> FailoverPreview:
        """What a failover at this moment would do. The storage is looked at as a new leader would; nothing is changed.

        Raises:
            LogUnavailable: the job has not been replayed yet, or the term is over.
        """
        if self.master is None or self._closed:
            raise LogUnavailable("this JobManager does not lead the job at the moment")
        graph, options = self.master.graph, self.job.master_options
        missing, checked = set[TaskId](), set[TaskId]()
        while self.job.logged and (todo := {*outputs_needed(graph), *_read_again(graph, missing)} - checked):
            checked |= todo
            partitions = [(task, graph.vertex_of(task)) for task in sorted(todo)]
            missing |= set(
                await self._missing([(t, v.attempt[t.subtask], v.partition(t.subtask)) for t, v in partitions])
            )
        workers = self.master.workers
        return preview_failover(
            graph,
            connected=lambda id: (worker := workers.get(id)) is not None and worker.connected,
            missing={task for task in missing if graph.state_of(task) is ExecutionState.FINISHED},
            logged=self.job.logged,
            restart_all=options.restart_all,
        )

    async def _store_result(self, status: JobStatus) -> None:
        assert self.master is not None
        result = encode_result(job_result(self.master.graph))
        await asyncio.to_thread(self.job.storage.store_result, result)
        logger.info("job %s is %s", self.job.name, status.name)

    # What happens by itself

    def _set_timer(self) -> None:
        assert self.master is not None
        if self._timer:
            self._timer.cancel()
            self._timer = None
        deadline = self.master.next_deadline()
        if deadline is not None:
            delay = max(0.0, (deadline - self._clock.now_ms()) / 1000)
            self._timer = asyncio.get_running_loop().call_later(delay, self.dispatch, ev.TimePassed())

    def _maybe_snapshot(self, graph: ExecutionGraph) -> None:
        interval = self.job.configuration.get(opt.SNAPSHOT_INTERVAL_OPERATIONS)
        if self.writer is not None and graph.lsn - self._snapshot_lsn >= interval:
            self._snapshot_lsn = graph.lsn
            self._background(self._write_snapshot(self.writer, graph.lsn, graph.snapshot()))

    async def _write_snapshot(self, writer: LogWriter, lsn: int, data: bytes) -> None:
        try:
            await writer.write_snapshot(lsn, data)
        except StorageError as error:
            # The log itself is as good as before; a writer that has failed tells so by itself.
            logger.warning("no snapshot was taken at LSN %d: %s", lsn, error)

    async def _watch_taskmanagers(self) -> None:
        while self.master is not None:
            away = [worker.id for worker in self.master.workers if not worker.connected]
            for id, cause in (self._watch.ended(away) if away else {}).items():
                self.dispatch(ev.TaskManagerGone(id, cause))
            await asyncio.sleep(WATCH_INTERVAL)

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._closed:
            logger.error("the term cannot go on: %s", error)
            self._hooks.over(error if isinstance(error, FlinkJobError) else FlinkJobError(str(error)))

    async def close(self, *, flush: bool) -> None:
        """End the term; with ``flush`` (a clean stop) what was decided is made durable first."""
        self._closed = True
        if self._timer:
            self._timer.cancel()
        if self._effects is not None:
            self._effects.clear()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.writer is not None:
            if flush:
                await self.writer.close()
            else:
                self.writer.abandon()


def _read_again(graph: ExecutionGraph, missing: Collection[TaskId]) -> set[TaskId]:
    """The finished subtasks that left something which is read again if what is missing is produced again."""
    return {
        task
        for task in inputs_of(graph, region_restart(graph, [], missing))
        if graph.state_of(task) is ExecutionState.FINISHED and graph.vertex_of(task).size[task.subtask]
    }


def _fold(log: OperationLog, job_graph: JobGraph) -> tuple[ExecutionGraph, int]:
    """The graph that the log holds, and how many operations were replayed for it."""
    replay = log.replay()
    graph = ExecutionGraph.restore(job_graph, replay.snapshot) if replay.snapshot else ExecutionGraph(job_graph)
    for operations in replay:
        graph.apply_all(operations)
    for note in replay.statistics.notes:
        logger.warning("operation log: %s", note)
    return graph, replay.statistics.operations
