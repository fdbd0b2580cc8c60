"""A small world around a JobMaster: TaskManagers, a log, storage, and what goes wrong with them.

Everything that can happen next is an action; ``step`` lets one of them happen, chosen by a seeded random. A fault is an
action that somebody else decides on (``faults.py``, or a test). The log is a list of operations with a durable prefix, and
effects leave the leader when the log is durable up to where they were decided. A killed leader takes with it what was not
durable; its successor replays what is left. The invariants (``invariants.py``) are checked at each operation and after
each step, and whatever breaks one is told with the history that led there.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from flinkjob.api.errors import ProtocolViolation
from flinkjob.graph import operations as ops
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.jobgraph import JobGraph
from flinkjob.graph.states import JobStatus
from flinkjob.graph.vertex import TaskId
from flinkjob.jobmaster import events as ev
from flinkjob.jobmaster.deciding import JobMasterOptions
from flinkjob.jobmaster.master import JobMaster
from flinkjob.jobmaster.reconciliation import Replay
from flinkjob.jobmaster.restart import FixedDelay, RestartStrategy
from flinkjob.worker.protocol import AttemptId, Cancel, FromJobManager

from . import invariants
from .taskmanagers import Items, TaskManager

Action = tuple[Callable[..., None], tuple[Any, ...]]

FOREVER = FixedDelay(attempts=1_000_000, delay=1000)
"""A restart budget that no test exhausts."""
SPLITS = 5
"""How many splits a source with splits has."""
T0 = 1_764_000_000_000
"""When the world begins."""
MAX_STEPS = 5_000
"""More than any of the worlds here needs; who takes more goes round in circles."""


def options(
    strategy: RestartStrategy = FOREVER, *, full: bool = False, reconcile: int = 60_000, heartbeat: int = 50_000
) -> JobMasterOptions:
    """Options of a job, in milliseconds."""
    return JobMasterOptions(reconcile, heartbeat, strategy, restart_all=full)


@dataclass(slots=True)
class Leader:
    """A JobMaster and the part of its shell that dies with it.

    Attributes:
        held: effects and the position up to which the log has to be durable before they are released.
        links: for each TaskManager, the connection on which it registered.
        away_since: when the others were last seen.
        storage_jobs: what the storage has been asked.
    """

    master: JobMaster
    held: deque[tuple[int, list[ev.Effect]]] = field(default_factory=deque)
    links: dict[str, int] = field(default_factory=dict)
    away_since: dict[str, int] = field(default_factory=dict)
    storage_jobs: deque[ev.EnumerateSplits | ev.CheckPartitions] = field(default_factory=deque)


class World:
    """One job and all that it lives on.

    Attributes:
        log: the operations, of which the first ``durable`` are on disk.
        replayed: the fold of the whole log, each operation through its encoding: what a perfect replay would give.
        storage: the partitions that are there. written: all that ever were.
        starts: how often each attempt was begun. inputs_read: what it was told to read, as (vertex, subtask, attempt).
        broken: attempts that something happened to: they failed, or their process died.
        doomed: how many more times a task is to fail.
        lost: subtasks whose partition was lost once.
        gone: TaskManagers that will never come back.
    """

    def __init__(
        self,
        job_graph: JobGraph,
        *,
        taskmanagers: Iterable[tuple[str, int]] = (("tm-0", 2), ("tm-1", 2)),
        options: JobMasterOptions | None = None,
        seed: int = 0,
    ) -> None:
        self.job_graph = job_graph
        self.options = options or JobMasterOptions(60_000, 50_000, FOREVER)
        self.random = Random(seed)
        self.now = T0
        self.log: list[ops.Operation] = []
        self.durable = 0
        self.replayed = ExecutionGraph(job_graph)
        self.epoch = 0
        self.leader: Leader | None = None
        self.taskmanagers = {name: TaskManager(self, name, slots) for name, slots in taskmanagers}
        self.gone: set[str] = set()
        self.storage: set[AttemptId] = set()
        self.written: dict[AttemptId, Items] = {}
        self.inputs_read: dict[AttemptId, list[tuple[int, int, int]]] = {}
        self.starts: Counter[AttemptId] = Counter()
        self.broken: set[AttemptId] = set()
        self.doomed: Counter[TaskId] = Counter()
        self.lost: set[TaskId] = set()
        self.durable_deployments: set[tuple[int, int, int]] = set()
        self.history: list[str] = [f"seed {seed}"]

    # What a TaskManager needs

    def begun(self, taskmanager: TaskManager, attempt: AttemptId) -> None:
        """An attempt's process was started."""
        self.starts[attempt] += 1
        self.inputs_read[attempt] = [
            (edge.source, partition.subtask, partition.attempt)
            for edge, partitions in zip(
                self.job_graph.vertices[attempt.vertex].inputs,
                taskmanager.attempts[attempt].deployment.inputs,
                strict=True,
            )
            for partition in partitions
        ]
        invariants.check_begun(self, taskmanager, attempt)

    def wants_to_fail(self, attempt: AttemptId) -> bool:
        """Whether the attempt belongs to a task that is doomed to fail some more times."""
        task = TaskId(attempt.vertex, attempt.subtask)
        if not self.doomed[task]:
            return False
        self.doomed[task] -= 1
        self.broken.add(attempt)
        return True

    def read(self, attempt: AttemptId) -> Items | None:
        """What is in the attempt's partition, if that is there."""
        return self.written[attempt] if attempt in self.storage else None

    def write(self, attempt: AttemptId, items: Items) -> None:
        """The attempt's partition, from now on."""
        self.storage.add(attempt)
        self.written[attempt] = items

    # The leader and its log

    @property
    def graph(self) -> ExecutionGraph:
        """The leader's graph; without one, what a successor would replay."""
        return self.leader.master.graph if self.leader else self.replayed

    @property
    def over(self) -> bool:
        """Whether the job's end is durable."""
        return self.replayed.status.terminal and self.durable == len(self.log)

    def start_leader(self) -> None:
        """A JobManager becomes the leader: it replays, begins its epoch, and waits for TaskManagers."""
        graph = self._replay()
        self.epoch += 1
        master = JobMaster(graph, self.options, jitter=lambda: self.random.uniform(-1, 1))
        self.leader = Leader(master, away_since={info.id: self.now for info in graph.taskmanagers if not info.removed})
        replay = Replay("the leader was killed", self.now, graph.lsn, 1)
        self._take(self.leader, master.start(epoch=self.epoch, leader=f"jm-{self.epoch}", now=self.now, replay=replay))

    def _replay(self) -> ExecutionGraph:
        """From the first operation on, or from a snapshot taken anywhere."""
        graph = ExecutionGraph(self.job_graph)
        cut = self.random.randint(0, len(self.log))
        graph.apply_all(self.log[:cut])
        graph = ExecutionGraph.restore(self.job_graph, graph.snapshot())
        graph.apply_all(self.log[cut:])
        return graph

    def kill_leader(self, *, survive: int = 0, heard: int = 0) -> None:
        """The leader dies. ``survive`` operations more than those it knew to be durable reached the disk; of the messages
        to each TaskManager, the first ``heard`` still arrive."""
        self.leader = None
        self.durable = min(self.durable + survive, len(self.log))
        for taskmanager in self.taskmanagers.values():
            taskmanager.disconnect(heard=heard)
        del self.log[self.durable :]
        self._index_durable(self.log)
        self.replayed = ExecutionGraph(self.job_graph)
        self.replayed.apply_all(self.log)

    def dispatch(self, event: ev.Event) -> None:
        """Tell the leader something."""
        leader = self.leader
        assert leader is not None
        self._take(leader, leader.master.handle(event, self.now))

    def _take(self, leader: Leader, decision: ev.Decision) -> None:
        for operation in ops.decode_operations(ops.encode_operations(decision.operations)):
            invariants.check_operation(self, operation)
            self.replayed.apply(operation)
            self.log.append(operation)
        leader.held.append((len(self.log), decision.effects))
        invariants.check_decision(self)
        self._release(leader)

    def flush(self, count: int, *, release: bool = True) -> None:
        """The next operations become durable, and what waited for that is done."""
        self._index_durable(self.log[self.durable : self.durable + count])
        self.durable = min(self.durable + count, len(self.log))
        if self.leader and release:
            self._release(self.leader)

    def _index_durable(self, operations: Iterable[ops.Operation]) -> None:
        for op in operations:
            if isinstance(op, ops.TaskDeploying):
                self.durable_deployments.add((op.vertex, op.subtask, op.attempt))

    def _release(self, leader: Leader) -> None:
        while leader.held and leader.held[0][0] <= self.durable:
            for effect in leader.held.popleft()[1]:
                if isinstance(effect, ev.Send):
                    self._send(leader, effect.taskmanager, effect.message)
                elif isinstance(effect, ev.JobEnded):
                    invariants.check_ended(self, effect.status)
                else:
                    leader.storage_jobs.append(effect)

    def _send(self, leader: Leader, name: str, message: FromJobManager) -> None:
        taskmanager = self.taskmanagers.get(name)
        if isinstance(message, Cancel):
            invariants.check_cancel(self, message)
        if taskmanager and taskmanager.connected and leader.links.get(name) == taskmanager.connection:
            taskmanager.inbox.append(message)

    # Actions

    def actions(self) -> list[Action]:
        """What can happen next, without any fault."""
        found: list[Action] = []
        leader = self.leader
        if leader is None:
            found.append((self.start_leader, ()))
        else:
            if self.durable < len(self.log):
                found += [(self._flush_some, ())] * 3
            if leader.storage_jobs:
                found.append((self._storage_answers, ()))
            deadline = leader.master.next_deadline()
            if deadline is not None and deadline <= self.now:
                found.append((self.pass_time, ()))
            for name, connection in leader.links.items():
                taskmanager = self.taskmanagers.get(name)
                if not (taskmanager and taskmanager.connected) or taskmanager.connection > connection:
                    found.append((self._notice, (name,)))
            if not self.replayed.status.terminal:
                found += [(self._tell_gone, (n,)) for n in sorted(self.gone) if n in self.replayed.taskmanager_index]
        for taskmanager in self.taskmanagers.values():
            if taskmanager.outbox:
                found += [(self._deliver_up, (taskmanager,))] * 2
            if taskmanager.inbox:
                found += [(self._deliver_down, (taskmanager,))] * 2
            if leader and not taskmanager.connected and not taskmanager.silent and not self.over:
                found.append((taskmanager.connect, ()))
            for attempt, running in taskmanager.attempts.items():
                if running.can_step:
                    found.append((taskmanager.step, (attempt,)))
        return found

    def _flush_some(self) -> None:
        self.flush(self.random.randint(1, len(self.log) - self.durable))

    def _deliver_down(self, taskmanager: TaskManager) -> None:
        taskmanager.receive(taskmanager.inbox.popleft())

    def _deliver_up(self, taskmanager: TaskManager) -> None:
        leader, event = self.leader, taskmanager.outbox.popleft()
        assert leader is not None
        if isinstance(event, ev.TaskManagerConnected):
            # What was decided for an earlier connection belongs to that one: the report settles the matter.
            for _, effects in leader.held:
                effects[:] = [e for e in effects if not (isinstance(e, ev.Send) and e.taskmanager == taskmanager.id)]
            leader.links[taskmanager.id] = taskmanager.connection
            taskmanager.epoch = max(taskmanager.epoch, self.epoch)
        elif leader.links.get(taskmanager.id) != taskmanager.connection:
            return
        try:
            self.dispatch(event)
        except ProtocolViolation:
            # Only to be heard by one that was declared lost while it was connected; it has to register anew.
            assert leader.master.workers.get(taskmanager.id) is None
            taskmanager.disconnect()

    def _notice(self, name: str) -> None:
        """The leader sees that a connection is gone."""
        assert self.leader is not None
        del self.leader.links[name]
        self.leader.away_since[name] = self.now
        self.dispatch(ev.TaskManagerDisconnected(name))

    def _tell_gone(self, name: str) -> None:
        assert self.leader is not None
        self.leader.links.pop(name, None)
        self.dispatch(ev.TaskManagerGone(name, "its pod is gone"))

    def _storage_answers(self) -> None:
        assert self.leader is not None
        question = self.leader.storage_jobs.popleft()
        if isinstance(question, ev.EnumerateSplits):
            name = self.job_graph.vertices[question.vertex].name
            splits = tuple(ops.InputSplit(f"{name}/{index}", length=1) for index in range(SPLITS))
            self.dispatch(ev.SplitsEnumerated(question.vertex, splits))
        else:
            run = self.graph.run
            missing = [t for t, attempt, _ in question.partitions if AttemptId(run, *t, attempt) not in self.storage]
            self.dispatch(ev.PartitionsChecked(tuple(missing)))

    def pass_time(self) -> None:
        """The leader's timer goes off, now or when it is set to."""
        deadline = self.leader.master.next_deadline() if self.leader else None
        if deadline is not None:
            self.now = max(self.now, deadline)
            self.dispatch(ev.TimePassed())

    def cancel(self) -> None:
        """A person asks the leader to cancel the job."""
        self.dispatch(ev.CancelRequested())

    # Running it

    def act(self, action: Action) -> None:
        """Let something happen, and see that the world is still in order."""
        function, arguments = action
        texts = (getattr(argument, "id", argument) for argument in arguments)
        self.history.append(f"{len(self.log):4} {function.__name__.strip('_')} {' '.join(map(str, texts))}")
        try:
            function(*arguments)
            self.now += self.random.randint(0, 20)
            invariants.check_world(self)
        except Exception as error:
            raise AssertionError("\n".join([f"{type(error).__name__}: {error}", *self.history])) from error

    def step(self) -> bool:
        """One action; False when there is nothing left but to wait."""
        found = self.actions()
        if found:
            self.act(self.random.choice(found))
        return bool(found)

    def quiet(self) -> None:
        """Everything happens that can happen without time passing."""
        for _ in range(MAX_STEPS):
            if not self.step():
                return
        raise AssertionError("\n".join(["this does not come to rest", *self.history[-200:]]))

    def settle(self) -> JobStatus:
        """No more faults: everything comes back but what is gone, and the job must end. Returns how."""
        for taskmanager in self.taskmanagers.values():
            taskmanager.silent = False
        for _ in range(MAX_STEPS):
            self.quiet()
            if self.over:
                invariants.check_result(self)
                return self.graph.status
            if self.leader is None or self.leader.master.next_deadline() is None:
                raise AssertionError("\n".join(["the job is stuck", *self.history]))
            self.act((self.pass_time, ()))
        raise AssertionError("\n".join(["the job never ends", *self.history[-200:]]))

    def run_to(self, *, durable: int) -> bool:
        """Run with an operation at a time becoming durable, up to so many; False: the log never gets that long."""
        for _ in range(MAX_STEPS):
            if self.durable >= durable:
                return True
            if self.durable < len(self.log) and self.leader:
                self.act((self._flush_one, (durable,)))
            elif self.over:
                return False
            elif not self.step():
                self.act((self.pass_time, ()))
        raise AssertionError("\n".join(["the log does not grow", *self.history[-200:]]))

    def _flush_one(self, last: int) -> None:
        self.flush(1, release=self.durable + 1 < last)
