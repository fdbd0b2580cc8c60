"""Whatever happens in whatever order: what a TaskManager never does, and what it always does."""

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flinkjob.graph.operations import InputSplit
from flinkjob.graph.states import ExecutionState
from flinkjob.worker import events as ev
from flinkjob.worker import protocol as msg
from flinkjob.worker.protocol import AttemptId, Report
from flinkjob.worker.taskexecutor import Link
from worker.executors import Bench, attempt, deploy, only, registered, reports

SUBTASKS = st.integers(0, 5)


class AnyOrder(RuleBasedStateMachine):
    """A leader, processes and time that do what they like."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(slots=2)
        self.epoch = 0
        self.linked = False
        self.busy: dict[AttemptId, int] = {}
        self.started: set[AttemptId] = set()
        self.accepted: set[AttemptId] = set()
        self.ends: dict[AttemptId, Report] = {}
        self.acknowledged: set[AttemptId] = set()
        self.cancelled: set[AttemptId] = set()
        self.numbers = [0] * 6
        self.over = False

    def tell(self, event: ev.Event) -> list[ev.Effect]:
        effects = self.bench.tell(event)
        for effect in effects:
            if isinstance(effect, ev.StartAttempt):
                self.start(effect.slot, effect.deployment.attempt)
            elif isinstance(effect, ev.Disconnect):
                self.linked = False
            elif isinstance(effect, ev.ShutDown):
                assert not self.busy, "it went while tasks were running"
                self.over = True
        for report in reports(effects):
            if report.state.terminal and report.attempt in self.accepted:
                known = self.ends.setdefault(report.attempt, report)
                assert report == known, "an attempt had two different ends"
                assert report.attempt not in self.busy, "an end was told of a running attempt"
        return effects

    def start(self, slot: int, id: AttemptId) -> None:
        assert slot not in self.busy.values(), "two attempts in one slot"
        assert id not in self.started, "an attempt started twice"
        assert id in self.accepted
        assert id not in self.cancelled, "a cancelled deployment started"
        self.started.add(id)
        self.busy[id] = slot

    @property
    def registered(self) -> bool:
        return self.linked and self.bench.executor.link is Link.REGISTERED and not self.over

    def pick(self, index: int) -> AttemptId:
        return sorted(self.busy)[index % len(self.busy)]

    @precondition(lambda self: not self.linked and not self.over)
    @rule(step=st.integers(0, 1))
    def registers(self, step: int) -> None:
        self.epoch += step
        self.linked = True
        unacknowledged = {id for id in self.ends if id not in self.acknowledged}
        effects = self.tell(ev.Connected())
        [register] = [send.message for send in only(ev.Send, effects)]
        assert isinstance(register, msg.Register)
        told = {report.attempt: report for report in register.reports}
        assert all(told.get(id) == self.ends[id] for id in unacknowledged), "an end was forgotten"
        assert all(told[id].state in (ExecutionState.RUNNING, ExecutionState.DEPLOYING) for id in self.busy)
        self.tell(registered(max(self.epoch, 1)))
        self.epoch = max(self.epoch, 1)

    @precondition(lambda self: self.linked)
    @rule()
    def loses_the_connection(self) -> None:
        self.linked = False
        self.tell(ev.ConnectionLost())

    @precondition(lambda self: self.registered)
    @rule(subtasks=st.lists(SUBTASKS, max_size=4))
    def deploys(self, subtasks: list[int]) -> None:
        attempts = [attempt(subtask, self.numbers[subtask]) for subtask in subtasks]
        # A leader that has acknowledged an attempt's end never deploys that attempt again.
        attempts = [id for id in attempts if id not in self.acknowledged]
        self.accepted.update(attempts)
        self.tell(deploy(self.epoch, *attempts))

    @precondition(lambda self: self.registered)
    @rule(subtask=SUBTASKS)
    def cancels(self, subtask: int) -> None:
        id = attempt(subtask, self.numbers[subtask])
        effects = self.tell(msg.Cancel(self.epoch, (id,)))
        if id not in self.accepted:
            assert reports(effects) == [Report(id, ExecutionState.CANCELED)]
        elif id not in self.started:
            self.cancelled.add(id)

    @precondition(lambda self: self.registered)
    @rule(subtask=SUBTASKS)
    def acknowledges(self, subtask: int) -> None:
        id = attempt(subtask, self.numbers[subtask])
        if id in self.ends:
            self.tell(msg.Acknowledge(self.epoch, (id,)))
            self.acknowledged.add(id)
            self.numbers[subtask] += 1

    @precondition(lambda self: self.registered and self.epoch > 0)
    @rule(subtask=SUBTASKS, kind=st.integers(0, 5))
    def a_deposed_leader_speaks(self, subtask: int, kind: int) -> None:
        id, old = attempt(subtask, self.numbers[subtask]), self.epoch - 1
        commands: list[ev.Event] = [
            deploy(old, id),
            msg.Cancel(old, (id,)),
            msg.Acknowledge(old, (id,)),
            msg.Splits(old, id, 0, InputSplit("x")),
            msg.JobOver(old, "FAILED"),
            msg.Alive(old),
        ]
        before = (self.bench.executor.reports, self.bench.executor.next_deadline(), list(self.bench.executor.slots))
        assert self.tell(commands[kind]) == []
        after = (self.bench.executor.reports, self.bench.executor.next_deadline(), list(self.bench.executor.slots))
        assert before == after

    @precondition(lambda self: self.busy)
    @rule(index=st.integers(0, 1), kind=st.integers(0, 6))
    def a_process_speaks(self, index: int, kind: int) -> None:
        id = self.pick(index)
        events: list[ev.Event] = [
            ev.Started(id),
            ev.SplitWanted(id, 0),
            ev.ProgressMade(id, 0.5, 1, 1),
            ev.Finished(id, accumulators={"n": 1}),
            ev.Failed(id, "why"),
            ev.Cancelled(id),
            ev.ProcessDied(id, "killed"),
        ]
        if kind > 2:
            del self.busy[id]
        self.tell(events[kind])

    @rule(milliseconds=st.sampled_from([1, 500, 1_000, 3_000, 5_000, 30_000]))
    def time_passes(self, milliseconds: int) -> None:
        self.bench.now += milliseconds
        self.tell(ev.Tick())

    @rule()
    @precondition(lambda self: len(self.started) > 3)
    def is_told_to_stop(self) -> None:
        self.tell(ev.StopRequested("SIGTERM"))

    @invariant()
    def slots_hold_what_runs(self) -> None:
        executor = self.bench.executor
        held = {id: slot for slot, id in enumerate(executor.slots) if id is not None}
        assert held == self.busy
        assert len(held) <= 2

    @invariant()
    def nothing_is_forgotten(self) -> None:
        told = [report.attempt for report in self.bench.executor.reports]
        assert len(told) == len(set(told)), "an attempt is held twice"
        assert set(told) == self.accepted - self.acknowledged, "an attempt was forgotten, or not after its acknowledge"

    @invariant()
    def no_deadline_is_left_behind(self) -> None:
        deadline = self.bench.executor.next_deadline()
        if deadline is not None and deadline <= self.bench.now:
            self.tell(ev.Tick())
            later = self.bench.executor.next_deadline()
            assert later is None or later > self.bench.now, "a Tick did not settle what was due"


AnyOrder.TestCase.settings = settings(max_examples=150, stateful_step_count=60)
TestAnyOrder = AnyOrder.TestCase
