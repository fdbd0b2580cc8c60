"""A TaskManager's process: the real TaskExecutor and Dialer, and tasks that take simulated time.

Tasks do what real ones do: read the partitions that their deployment names, ask for splits one by one, write a partition
under their attempt, and fail, hang or die where the world wants them to.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flinkjob.graph.operations import ResultPartition
from flinkjob.rpc.connection import GOING_AWAY
from flinkjob.worker import events as ev
from flinkjob.worker import protocol as msg
from flinkjob.worker.dialing import Dialer
from flinkjob.worker.protocol import AttemptId, Deployment
from flinkjob.worker.taskexecutor import Link, TaskExecutor
from jobmaster.taskmanagers import output_of

from . import promises
from .jobmanager import RECONNECTION_TIMEOUT, JobManager
from .network import End
from .scheduler import Process

if TYPE_CHECKING:
    from .cluster import Cluster

HANDSHAKE_TIMEOUT = 600


@dataclass(slots=True, eq=False)
class Task:
    """A process that works on an attempt.

    Attributes:
        splits: the paths of those that it got. exhausted: there are no more.
        stubborn: it does not stop when it is asked to.
    """

    slot: int
    deployment: Deployment
    stubborn: bool
    splits: list[str] = field(default_factory=list)
    exhausted: bool = False
    asked_to_stop: bool = False

    @property
    def attempt(self) -> AttemptId:
        """What it works on."""
        return self.deployment.attempt


class TaskManager(Process):
    """One TaskManager; ``number`` tells incarnations of one name apart."""

    def __init__(self, world: "Cluster", name: str, slots: int, *, rate: float) -> None:
        super().__init__(world.scheduler, name, rate=rate)
        self.world = world
        self.slots = slots
        self.executor = TaskExecutor(
            id=name, job="", address=name, slots=slots, now=self.clock(), reconnection_timeout_ms=RECONNECTION_TIMEOUT
        )
        self.tasks: dict[AttemptId, Task] = {}
        self.highest_epoch = 0
        self._dialer = Dialer(world.addresses)
        self._end: End | None = None
        self._leader = ""
        self._events: deque[ev.Event] = deque()
        self._feeding = False
        self._timer_at: int | None = None
        self._call = 0
        self._arm()
        self._dial()

    def die(self, *, told_after: int = 0) -> None:
        """The process ends with all its tasks."""
        self.alive = False
        self.world.taskmanager_died(self, told_after)

    # The core

    def feed(self, event: ev.Event) -> None:
        """Tell the core, and do what it wants done."""
        self._events.append(event)
        if self._feeding:
            return
        self._feeding = True
        self.world.holdings_changed = True
        try:
            while self._events and self.alive:
                for effect in self.executor.handle(self._events.popleft(), now=self.clock()):
                    self._perform(effect)
        finally:
            self._feeding = False
        self._arm()

    def _arm(self) -> None:
        deadline = self.executor.next_deadline()
        if deadline is not None and (self._timer_at is None or deadline < self._timer_at):
            self._timer_at = deadline
            self.after(max(0, deadline - self.clock()), self._tick)

    def _tick(self) -> None:
        self._timer_at = None
        deadline = self.executor.next_deadline()
        if deadline is not None and deadline <= self.clock():
            self.feed(ev.Tick())
        self._arm()

    def _perform(self, effect: ev.Effect) -> None:
        if isinstance(effect, ev.Send):
            if isinstance(effect.message, msg.Reports):
                self.point("reporting")
            if self._end is not None:
                self._end.send(effect.message)
                self.point("said")
        elif isinstance(effect, ev.StartAttempt):
            self._start(effect)
        elif isinstance(effect, ev.CancelAttempt):
            self._asked_to_stop(self.tasks[effect.attempt])
        elif isinstance(effect, ev.KillAttempt):
            self.soon(self._killed, self.tasks[effect.attempt])
        elif isinstance(effect, ev.GiveSplit):
            self._got_split(self.tasks[effect.attempt], effect)
        elif isinstance(effect, ev.Disconnect):
            if self._end is not None:
                self._end.close()
                self.soon(self._connection_lost, self._end)
        else:
            self._shut_down(effect)

    def _shut_down(self, effect: ev.ShutDown) -> None:
        self.point("leaving")
        if self._end is not None:
            self._end.close(GOING_AWAY)
        self.alive = False
        self.world.taskmanager_left(self, effect)

    # The connection

    def _dial(self) -> None:
        if self.executor.stopping:
            return
        address, delay = self._dialer.next(self.scheduler.random.random())
        self._call += 1
        self.after(delay, self._connect, address, self._call)

    def _connect(self, address: str, call: int) -> None:
        server = self.world.jobmanagers.get(address)
        if self.world.network.reaches(self.name, address):
            if server is None or not server.alive:
                self.soon(self._no_answer, call)
                return
            ours, theirs = self.world.network.connect(self, server)
            server.soon(self._answered, server, (ours, theirs), call)
        self.after(HANDSHAKE_TIMEOUT * 2 ** min(self._dialer.rounds, 3), self._no_answer, call)

    def _answered(self, server: JobManager, ends: tuple[End, End], call: int) -> None:
        """The JobManager has accepted: its answer is on its way."""
        ours, theirs = ends
        server.accept(theirs)
        self.soon(self._connected, ours, server.name, call)

    def _no_answer(self, call: int) -> None:
        if call == self._call and self._end is None:
            self._dial()

    def _connected(self, end: End, address: str, call: int) -> None:
        if call != self._call or self._end is not None or not end.open or self.executor.stopping:
            end.close()
            return
        self._end = end
        self.point("connected")
        end.on_message = lambda message: self._hear(message, address)
        end.on_closed = lambda: self._connection_lost(end)
        self.feed(ev.Connected(self._leader))

    def _connection_lost(self, end: End) -> None:
        if self._end is end:
            self._end = None
            self.feed(ev.ConnectionLost())
            self._dial()

    def _hear(self, message: msg.FromJobManager, address: str) -> None:
        self.point("heard")
        if isinstance(message, msg.Refused):
            self._dialer.refused(message.leader)
        known = self.executor.registered
        promises.check_command(self, message, lambda: self.feed(message))
        if self.executor.registered is not known and self.executor.link is Link.REGISTERED:
            self._dialer.registered()
            self._leader = address
        self.point("obeyed")

    # Tasks

    def _start(self, effect: ev.StartAttempt) -> None:
        self.point("starting")
        random = self.scheduler.random
        task = Task(effect.slot, effect.deployment, stubborn=random.random() < 0.1)
        promises.check_begun(self, task)
        self.tasks[task.attempt] = task
        self.soon(self._started, task)

    def holds(self, attempt: AttemptId) -> bool:
        """Whether it would report the attempt, if it were asked."""
        return attempt in self.executor._attempts or attempt in self.executor._ended

    def _present(self, task: Task) -> bool:
        return self.tasks.get(task.attempt) is task

    def _started(self, task: Task) -> None:
        if self._present(task):
            self.point("started")
            self.feed(ev.Started(task.attempt))
            self._work(task)

    def _work(self, task: Task) -> None:
        """Something is being computed: it takes its time."""
        self.after(self.world.work_time(), self._worked, task)

    def _worked(self, task: Task) -> None:
        if not self._present(task) or task.asked_to_stop:
            return
        attempt = task.attempt
        if self.world.wants_to_fail(attempt):
            del self.tasks[attempt]
            cause = "the task failed"
            dies = self.scheduler.random.random() < 0.5
            self.feed(ev.ProcessDied(attempt, cause) if dies else ev.Failed(attempt, cause))
        elif self.world.job_graph.vertices[attempt.vertex].splits is not None and not task.exhausted:
            self.feed(ev.SplitWanted(attempt, len(task.splits)))
        else:
            self._produce(task)

    def _got_split(self, task: Task, effect: ev.GiveSplit) -> None:
        if effect.split is None:
            task.exhausted = True
        else:
            task.splits.append(effect.split.path)
        self._work(task)

    def _produce(self, task: Task) -> None:
        output = output_of(self.world.job_graph, task.deployment, task.splits, self.world.read)
        if isinstance(output, msg.Report):
            del self.tasks[task.attempt]
            self.feed(ev.Failed(task.attempt, output.cause, output.lost_input))
            return
        self.world.write(task.attempt, output)
        self.point("produced")
        self.soon(self._finished, task, len(output))

    def _finished(self, task: Task, items: int) -> None:
        if self._present(task):
            del self.tasks[task.attempt]
            self.feed(ev.Finished(task.attempt, ResultPartition(items, items), {"items": items}))

    def _asked_to_stop(self, task: Task) -> None:
        self.point("cancelling")
        task.asked_to_stop = True
        if not task.stubborn:
            self.after(self.world.work_time(), self._stopped, task)

    def _stopped(self, task: Task) -> None:
        if self._present(task):
            del self.tasks[task.attempt]
            self.feed(ev.Cancelled(task.attempt))

    def _killed(self, task: Task) -> None:
        if self._present(task):
            del self.tasks[task.attempt]
            self.feed(ev.ProcessDied(task.attempt, "killed"))
