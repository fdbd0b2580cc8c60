"""One term of leadership, taken apart into steps: claim, fence, replay, and then decide, log, act.

What a thread does in the product is done here, too, when the term has been closed meanwhile: a log that is being opened is
claimed, fenced and read to the end, and then nobody leads.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from flinkjob.api.errors import Deposed, FlinkJobError, LogUnavailable
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.operations import InputSplit
from flinkjob.graph.states import ExecutionState, JobStatus
from flinkjob.graph.vertex import TaskId
from flinkjob.jobmanager.effects import EffectQueue
from flinkjob.jobmaster import events as ev
from flinkjob.jobmaster import reconciliation
from flinkjob.jobmaster.master import JobMaster
from flinkjob.oplog.replay import Replay
from flinkjob.worker.protocol import AttemptId, FromJobManager

from . import promises
from .journal import Pen, ask_store
from .logstore import LogStore, Node

if TYPE_CHECKING:
    from .cluster import Cluster
    from .jobmanager import JobManager

SNAPSHOT_INTERVAL = 15
"""Operations between two snapshots."""
SPLITS = 4
"""How many splits a source with splits has."""


class Term:
    """Leads the job until it is closed.

    Args:
        store: the log's, as it is seen from the JobManager's machine.
        is_leader: whether the lease is still held, as of this moment.
        send: send a message to a TaskManager, if it is connected.
        opened: the log has been replayed, and the job is led.
        over: the term cannot go on.

    Attributes:
        opening: the log is being opened. writer: None until it has been.
        master: None until the log has been replayed.
        shadow: what a successor would replay if all that was decided became durable.
        heard: when each TaskManager was last heard of, or the term began, by the JobManager's clock.
        replayed_at: when the log was read, in the world's time. finished_before: the attempts that had finished by then.
    """

    def __init__(
        self,
        process: "JobManager",
        world: "Cluster",
        store: LogStore,
        *,
        is_leader: Callable[[], bool],
        send: Callable[[str, FromJobManager], None],
        opened: Callable[[], None],
        over: Callable[[FlinkJobError], None],
    ) -> None:
        self.process = process
        self.job = process.job
        self.world = world
        self.epoch = 0
        self.opening = True
        self.writer: Pen | None = None
        self.master: JobMaster | None = None
        self.shadow = ExecutionGraph(world.job_graph)
        self.heard: dict[str, int] = {}
        self.began_at = 0
        self.replayed_at = 0
        self.finished_before: set[AttemptId] = set()
        self._store = store
        self._is_leader = is_leader
        self._send = send
        self._opened = opened
        self._over = over
        self._effects: EffectQueue | None = None
        self._closed = False
        self._timer_at: int | None = None
        self._snapshot_lsn = 0
        self.began_at = self.now()
        self._next(self._claim)

    def now(self) -> int:
        """The time of day, as the JobManager knows it."""
        return self.process.now_ms()

    @property
    def durable_lsn(self) -> int:
        """Up to where what was decided is in the log."""
        return self.writer.durable_lsn if self.writer is not None else 0

    # Opening the log

    def _next(self, step: Callable[[], None]) -> None:
        ask_store(self.process, self._store, self._guarded, step)

    def _guarded(self, step: Callable[[], None]) -> None:
        """Do a step of the opening; where the store fails, or somebody else leads, the term is over before it began."""
        try:
            step()
        except OSError as error:
            self._cannot_open(LogUnavailable(f"the log cannot be opened: {error}"))
        except (Deposed, LogUnavailable) as error:
            self._cannot_open(error)

    def _cannot_open(self, error: FlinkJobError) -> None:
        self.opening = False
        if not self._closed:
            self._over(error)

    def _claim(self) -> None:
        self.epoch = self._store.claim()
        self.process.point("claimed")
        self._next(self._fence)

    def _fence(self) -> None:
        self._store.fence(self.epoch, self.process.name)
        self.process.point("fenced")
        self._next(self._look)

    def _look(self) -> None:
        if max(segment.epoch for segment in self._store.segments()) > self.epoch:
            raise Deposed(f"epoch {self.epoch} is over")
        self.process.point("looked")
        self._next(self._replay)

    def _replay(self) -> None:
        store = self._store
        replay = Replay.newest(store, below_epoch=self.epoch, check_fence=lambda: store.check_fence(self.epoch))
        graph = ExecutionGraph(self.world.job_graph)
        if replay.snapshot:
            graph = ExecutionGraph.restore(self.world.job_graph, replay.snapshot)
        for operations in replay:
            graph.apply_all(operations)
        node, self.shadow = promises.check_replay(self.world, self.epoch, graph, replay)
        self.replayed_at = self.world.scheduler.now
        for task in graph.tasks_in(ExecutionState.FINISHED):
            attempt = graph.vertices[task.vertex].attempt[task.subtask]
            self.finished_before.add(AttemptId(graph.run, *task, attempt))
        self.process.point("replayed")
        self._next(lambda: self._settle(graph, node, replay))

    def _settle(self, graph: ExecutionGraph, node: Node, replay: Replay) -> None:
        self._store.settle(self.epoch)
        self.process.point("settled")
        self.process.not_before(graph.restart_state.last_at)
        self.opening = False
        if self._closed:
            return
        assert replay.end is not None
        self.writer = Pen(
            self.process,
            self._store,
            self.epoch,
            replay.end,
            node,
            on_written=self.world.written_block,
            on_durable=self._durable,
            on_failed=self._over,
        )
        self._effects = EffectQueue(self.writer, self._release, lsn=graph.lsn)
        self._snapshot_lsn = graph.lsn
        random = self.world.scheduler.random
        self.master = JobMaster(graph, self.world.options, jitter=lambda: random.uniform(-1, 1))
        told = reconciliation.Replay("the leader is gone", self.began_at, replay.statistics.operations)
        leader = self.process.signature(self.epoch)
        self._conclude(self.master.start(epoch=self.epoch, leader=leader, now=self.now(), replay=told))
        self.process.point("opened")
        self._opened()

    # Deciding

    def dispatch(self, event: ev.Event) -> None:
        """Tell the JobMaster."""
        if self.master is not None and not self._closed:
            decision = self.master.handle(event, self.now())
            self._conclude(decision)
            if isinstance(event, ev.TaskManagerConnected):
                promises.orphans_are_stopped(self, event, decision)

    def _conclude(self, decision: ev.Decision) -> None:
        assert self._effects is not None
        assert self.master is not None
        self.process.point("decided")
        promises.check_decision(self, decision)
        self._effects.put(decision)
        self._set_timer()
        graph = self.master.graph
        if self.writer is not None and graph.lsn - self._snapshot_lsn >= SNAPSHOT_INTERVAL:
            self._snapshot_lsn = graph.lsn
            self.writer.take_snapshot(graph.lsn, graph.snapshot())

    def _set_timer(self) -> None:
        assert self.master is not None
        deadline = self.master.next_deadline()
        if deadline is not None and (self._timer_at is None or deadline < self._timer_at):
            self._timer_at = deadline
            self.process.after(max(0, deadline - self.now()), self._timer)

    def _timer(self) -> None:
        self._timer_at = None
        if self.master is None or self._closed:
            return
        deadline = self.master.next_deadline()
        if deadline is not None and deadline <= self.now():
            self.dispatch(ev.TimePassed())
        else:
            self._set_timer()

    # Acting

    def _durable(self, node: Node) -> None:
        if self._effects is not None and not self._closed:
            promises.check_acknowledged(self.world, self.process.name, node)
            self._effects.release(node.lsn)

    def _release(self, effect: ev.Effect) -> None:
        if self._closed or not self._is_leader():
            return
        if isinstance(effect, ev.Send):
            self._send(effect.taskmanager, effect.message)
        elif isinstance(effect, ev.EnumerateSplits):
            self.process.soon(self._enumerated, effect.vertex)
        elif isinstance(effect, ev.CheckPartitions):
            self.process.soon(self._checked, effect)
        else:
            ask_store(self.process, self._store, self._store_result, effect.status)
        self.process.point("released")

    def _store_result(self, status: JobStatus) -> None:
        if self._store.trouble.failing:
            if not self._closed:
                self._over(LogUnavailable("the result cannot be stored"))
            return
        self.world.store_result(status)
        self.process.point("result stored")

    def _enumerated(self, vertex: int) -> None:
        name = self.world.job_graph.vertices[vertex].name
        self.process.point("splits found")
        splits = tuple(InputSplit(f"{name}/{number}", length=1) for number in range(SPLITS))
        self.dispatch(ev.SplitsEnumerated(vertex, splits))

    def _checked(self, effect: ev.CheckPartitions) -> None:
        missing: list[TaskId] = []
        if self.master is not None:
            run = self.master.graph.run
            storage = self.world.storage
            missing = [task for task, attempt, _ in effect.partitions if AttemptId(run, *task, attempt) not in storage]
        self.process.point("partitions checked")
        self.dispatch(ev.PartitionsChecked(tuple(missing)))

    def close(self, flushed: Callable[[], None] | None = None) -> None:
        """End the term: what was not released is forgotten.

        Args:
            flushed: a clean stop: what was decided is made durable first, if that is possible, and this called then.
        """
        self._closed = True
        if self._effects is not None:
            self._effects.clear()
        if self.writer is not None and flushed is not None:
            self.writer.close(flushed)
        elif self.writer is not None:
            self.writer.abandon()
        elif flushed is not None:
            flushed()
