"""A whole cluster in virtual time: JobManagers, TaskManagers, what they share, and an operator that replaces the dead.

Everything follows from the seed and the setting, which is drawn from it: the job, its options, who is there, how slow things
are and how wrong clocks go. What is to go wrong comes as a plan of faults; once the last of them is over, the job has to
end, and end well.
"""

from collections import Counter
from collections.abc import Iterable
from random import Random

from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.states import JobStatus
from flinkjob.graph.vertex import TaskId
from flinkjob.jobmaster.deciding import JobMasterOptions
from flinkjob.worker import events as wev
from flinkjob.worker.protocol import AttemptId
from jobmaster.taskmanagers import Items

from . import promises
from .candidate import LeaseStore
from .faults import CALM_FROM, Fault, apply
from .jobmanager import HEARTBEAT_TIMEOUT, JobManager
from .logstore import LogStore, Node, Truth
from .network import Network
from .scheduler import MAX_STEPS, Process, Scheduler
from .setting import Setting
from .taskmanager import TaskManager

PATIENCE = 120_000
"""Milliseconds after the last fault by which the job must be over."""


class BrokenPromise(AssertionError):
    """A promise was broken: its ``name``; ``history`` tells how it came to that."""

    def __init__(self, name: str, text: str, history: list[str]) -> None:
        super().__init__(text)
        self.name = name
        self.history = history


class Cluster:
    """One run.

    Attributes:
        truth: what has been acknowledged. beginning: the log before its first block.
        result: the job's end, once it has been stored.
        storage: the partitions that are there. written: all that ever were. lost: subtasks that ever lost one.
        lost_attempts: when each partition was lost, for those that were.
        starts: how often each attempt was begun. inputs_read: what it was told to read, as (vertex, subtask, attempt).
        broken: attempts that something happened to. doomed: how often a task is still to fail.
        ended: TaskManagers that are known to have ended, and why.
        happened: the kinds of faults that have happened. holdings_changed: what TaskManagers hold, or the log has them hold.
        clocks_are_wrong: they run at rates that differ by more than the election allows.
        patience: milliseconds after the last fault by which the run must be over. max_steps: by when it goes in circles.
    """

    patience = PATIENCE
    max_steps = MAX_STEPS

    def __init__(self, seed: int, plan: Iterable[Fault], setting: Setting | None = None) -> None:
        self.seed = seed
        random = Random(seed)
        self.setting = setting or Setting.drawn(random)
        self.scheduler = Scheduler(Random(seed + 0.125), slowness=self.setting.slowness)
        self.network = Network(self.scheduler)
        self.lease = LeaseStore()
        self.store = LogStore(lambda: self.scheduler.now)
        self._stores: dict[str, LogStore] = {}
        self.epoch_of_time = 1_764_000_000_000
        self.job_graph = self.setting.job_graph
        self.options = JobMasterOptions(
            self.setting.reconcile_timeout, HEARTBEAT_TIMEOUT, self.setting.strategy, self.setting.restart_all
        )
        self.possible_ends = {JobStatus.FINISHED}
        if self.setting.may_fail:
            self.possible_ends.add(JobStatus.FAILED)
        self.truth = Truth(ExecutionGraph(self.job_graph))
        self.beginning = self.truth.node
        self.result: JobStatus | None = None
        self.storage: set[AttemptId] = set()
        self.written: dict[AttemptId, Items] = {}
        self.lost: set[TaskId] = set()
        self.lost_attempts: dict[AttemptId, int] = {}
        self.starts: Counter[AttemptId] = Counter()
        self.inputs_read: dict[AttemptId, list[tuple[int, int, int]]] = {}
        self.broken: set[AttemptId] = set()
        self.doomed: Counter[TaskId] = Counter()
        self.ended: dict[str, str] = {}
        self.clocks_are_wrong = self.setting.wrong_clocks
        self._calm = False
        self._operator = self.setting.operator
        self.happened: set[str] = set()
        self.holdings_changed = False
        self._number = 0
        self.addresses = [f"jm-{number}" for number in range(self.setting.jobmanagers)]
        self.jobmanagers: dict[str, JobManager] = {}
        self.taskmanagers: dict[str, TaskManager] = {}
        self._populate(random)
        self.plan = tuple(plan)
        for fault in self.plan:
            self.scheduler.at(fault.at, None, self.strike, fault)
        self.scheduler.at(CALM_FROM, None, self.calm_down)

    def _populate(self, random: Random) -> None:
        for address in self.addresses:
            self.start_jobmanager(address)
        for slots in self.setting.slots:
            self.start_taskmanager(self.new_name(), slots)

    # Running it

    def run(self) -> JobStatus:
        """Run to the job's end, with every promise kept.

        Raises:
            BrokenPromise: one was not.
        """
        try:
            scheduler, end = self.scheduler, CALM_FROM + self.patience
            while self.result is None or not self.over:
                going = scheduler.step()
                self.check_step()
                if not going or scheduler.now >= end or scheduler.steps >= self.max_steps:
                    promises.it_comes_to_an_end(self)
            self.check_end()
        except Exception as error:
            text = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            raise BrokenPromise(promises.name_of(error), text, self.tell()) from error
        return self.graph.status

    def strike(self, fault: Fault) -> None:
        """Something goes wrong."""
        apply(self, fault)

    def check_step(self) -> None:
        """What must be true at any time, as far as it may have changed; the rest is looked at where it can be broken."""
        if self.holdings_changed:
            self.holdings_changed = False
            promises.one_live_attempt_is_accepted(self)

    def check_end(self) -> None:
        """What must be true when the run is over."""
        promises.check_end(self)

    @property
    def over(self) -> bool:
        """Whether the job's end is known, and every TaskManager has gone home."""
        return self.result is not None and not any(tm.alive for tm in self.taskmanagers.values())

    @property
    def graph(self) -> ExecutionGraph:
        """What has become of the job, as far as it was acknowledged."""
        return self.truth.graph

    def note(self, process: Process, what: object) -> None:
        """Write something into the history."""
        self.scheduler.note(process.name, what)

    def tell(self) -> list[str]:
        """The history, to be read."""
        lines = [f"seed {self.seed}, {self.setting}"]
        for moment, who, what in self.scheduler.history:
            items = what if isinstance(what, list) else [what]
            lines += [f"{moment:7} {who:8} {item}" for item in items]
        return lines

    def calm_down(self) -> None:
        """No more faults: everything that was out of order works again."""
        self._calm = self._operator = True
        self.store.trouble.end()
        self.lease.failing = False
        self.network.doubling = self.network.swapping = 0.0
        self.doomed.clear()
        for process in (*self.jobmanagers.values(), *self.taskmanagers.values()):
            process.trap = None
            process.set_right()

    # JobManagers

    def start_jobmanager(self, name: str) -> None:
        """A JobManager's process begins."""
        skew = 2.0 if self.clocks_are_wrong else 1.1
        rate = 1.0 if self._calm else skew ** self.scheduler.random.uniform(-1, 1)
        self.jobmanagers[name] = JobManager(self, name, rate=rate, offset=self.scheduler.below(2000))

    def jobmanager_died(self, jobmanager: JobManager, told_after: int) -> None:
        """Its peers notice, and sooner or later another one takes its place."""
        scheduler = self.scheduler
        self.lease.watchers.pop(jobmanager.name, None)
        if jobmanager.term is not None and scheduler.random.random() < 0.3:
            self.store.forget(jobmanager.term.epoch, scheduler.random.random())
        self.network.buried(jobmanager, told_after or scheduler.step_time())
        seen = scheduler.now + 50 + scheduler.below(400)
        if self._operator:
            scheduler.at(seen, None, self.lease.empty, jobmanager.name)
        scheduler.at(seen + 50 + scheduler.below(2000), None, self.start_jobmanager, jobmanager.name)

    def store_of(self, jobmanager: str) -> LogStore:
        """The log's store, as it is seen from the machine of a JobManager."""
        if jobmanager not in self._stores:
            self._stores[jobmanager] = self.store.seen_elsewhere()
        return self._stores[jobmanager]

    def jobmanager_left(self, jobmanager: JobManager) -> None:
        """It has stopped as it was told to; another one takes its place."""
        self.lease.watchers.pop(jobmanager.name, None)
        self.scheduler.at(
            self.scheduler.now + 50 + self.scheduler.below(2000), None, self.start_jobmanager, jobmanager.name
        )

    def store_result(self, status: JobStatus) -> None:
        """A leader writes the job's end down; the first one's counts, and all must write the same."""
        assert self.result in (None, status), f"the job is {status.name}, after it was {self.result}"
        assert self.truth.graph.status is status, "an end is told that is not in the log"
        self.result = status

    def written_block(self, node: Node) -> None:
        """A block is being written: a successor may find it."""
        self.truth.blocks[node.epoch, node.lsn] = node

    # TaskManagers

    def new_name(self) -> str:
        """A name that no TaskManager has had."""
        self._number += 1
        return f"tm-{self._number}"

    def start_taskmanager(self, name: str, slots: int) -> None:
        """A TaskManager's process begins."""
        rate = 1.0 if self._calm else 1.1 ** self.scheduler.random.uniform(-1, 1)
        self.taskmanagers[name] = TaskManager(self, name, slots, rate=rate)

    def taskmanager_died(self, taskmanager: TaskManager, told_after: int) -> None:
        """Its tasks die with it; another one takes its place, under its name or (the pod was replaced) under a new one."""
        scheduler = self.scheduler
        self._broken(taskmanager)
        self.network.buried(taskmanager, told_after or scheduler.step_time())
        again = scheduler.now + 100 + scheduler.below(1500)
        if scheduler.random.random() < 0.4:
            slots = taskmanager.slots if scheduler.random.random() < 0.7 else 3 - min(taskmanager.slots, 2)
            scheduler.at(again, None, self.start_taskmanager, taskmanager.name, slots)
        else:
            scheduler.at(again, None, self._replace, taskmanager, "its pod is gone")

    def taskmanager_left(self, taskmanager: TaskManager, effect: wev.ShutDown) -> None:
        """It has shut itself down; unless the job is over, there is to be another one."""
        self.note(taskmanager, effect)
        self._broken(taskmanager)
        if not self.graph.status.terminal:
            self.scheduler.at(self.scheduler.now + 100, None, self._replace, taskmanager, effect.reason)

    def _broken(self, taskmanager: TaskManager) -> None:
        self.holdings_changed = True
        self.broken.update(report.attempt for report in taskmanager.executor.reports)
        taskmanager.tasks.clear()

    def _replace(self, taskmanager: TaskManager, reason: str) -> None:
        if self._operator:
            self.ended[taskmanager.name] = reason
        self.start_taskmanager(self.new_name(), taskmanager.slots)

    # What tasks need

    def work_time(self) -> int:
        """How long a task takes for its next step, milliseconds."""
        chance = self.scheduler.random.random()
        return int(chance * 400) if chance < 0.97 else 2500

    def wants_to_fail(self, attempt: AttemptId) -> bool:
        """Whether the attempt's task is doomed to fail some more times."""
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
