"""The core of a TaskManager: which attempts it holds, and what it says of them, as a pure state machine.

Events go in together with the time, effects come out; nothing here waits, reads a clock or touches a process. Four rules
make a change of leaders harmless:

- **Tasks outlive connections.** Losing the leader changes nothing for an attempt. Only after the reconnection timeout
  without one does the TaskManager cancel what it has and go.
- **An end is kept until it is acknowledged.** The report of an ended attempt is sent when it ends and again with every
  registration, until a leader says that it is in the log.
- **Epochs only grow.** A command of a lower epoch than one has seen comes from a deposed leader and has no effect at all.
- **Every command can be repeated.** Deploying what is known is answered by the report of it, cancelling what is unknown by
  CANCELED.

Messages of one connection are taken to arrive in the order in which they were sent, as a WebSocket delivers them.
"""

import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flinkjob.graph.states import ExecutionState
from flinkjob.worker import events as ev
from flinkjob.worker import protocol as msg
from flinkjob.worker.protocol import AttemptId, Report

DEFAULT_RECONNECTION_TIMEOUT_MS = 60_000
DEFAULT_HEARTBEAT_TIMEOUT_MS = 50_000
DEFAULT_CANCELLATION_TIMEOUT_MS = 30_000

EXIT_OK = 0
EXIT_NO_LEADER = 1


class Link(enum.Enum):
    """How far the TaskManager is with a JobManager."""

    NONE = enum.auto()
    REGISTERING = enum.auto()
    REGISTERED = enum.auto()


@dataclass(slots=True)
class _Attempt:
    """An attempt that has not ended: queued (no slot), then started in a slot."""

    deployment: msg.Deployment
    slot: int | None = None
    running: bool = False
    cancelling: bool = False
    split_wanted: int | None = None
    progress: msg.Progress | None = None

    def report(self) -> Report:
        state = ExecutionState.RUNNING if self.running else ExecutionState.DEPLOYING
        return Report(self.deployment.attempt, state)


@dataclass(frozen=True, slots=True)
class _Departure:
    """Why the TaskManager is about to go, and what it says of its tasks: nothing once the job is over."""

    reason: str
    code: int
    job_over: bool = False


class TaskExecutor:
    """A TaskManager without its processes, sockets and clock. Times are milliseconds of any clock that only grows.

    Attributes:
        epoch: the highest epoch seen.
        link: whether a leader has taken the TaskManager in.
        registered: the latest leader's answer, with the JobGraph and the job's storage; None before the first.
    """

    def __init__(
        self,
        *,
        id: str,
        job: str,
        address: str,
        slots: int,
        now: int,
        reconnection_timeout_ms: int = DEFAULT_RECONNECTION_TIMEOUT_MS,
    ) -> None:
        self.id = id
        self.job = job
        self.address = address
        self.slots: list[AttemptId | None] = [None] * slots
        self.epoch = 0
        self.link = Link.NONE
        self.registered: msg.Registered | None = None
        self._reconnection_timeout_ms = reconnection_timeout_ms
        self._free = list(reversed(range(slots)))
        self._attempts: dict[AttemptId, _Attempt] = {}
        self._kills: dict[AttemptId, int] = {}
        """When those that were told to stop are to be killed."""
        self._queue: deque[AttemptId] = deque()
        self._ended: dict[AttemptId, Report] = {}
        # What changed between our Register and its answer: the leader learns of it once it has taken us in.
        self._untold: set[AttemptId] = set()
        self._departure: _Departure | None = None
        self._gone = False
        self._leaderless_since = now
        self._heard_at = now
        self._heartbeat_at = now

    def handle(self, event: ev.Event, *, now: int) -> list[ev.Effect]:
        """What is to be done about the event, in this order."""
        effects: list[ev.Effect] = []
        if not self._gone:
            _HANDLERS[type(event)](self, event, now, effects)
        return effects

    def next_deadline(self) -> int | None:
        """When a Tick is due next, if nothing happens before; None when no time-out runs."""
        if self._gone:
            return None
        due: list[int] = []
        if self.link is Link.REGISTERED:
            due.append(self._heartbeat_at)
        elif self._departure is None:
            due.append(self._leaderless_since + self._reconnection_timeout_ms)
        if self.link is not Link.NONE:
            due.append(self._heard_at + self._heartbeat_timeout_ms)
        due.extend(self._kills.values())
        return min(due, default=None)

    @property
    def stopping(self) -> bool:
        """Whether it is on its way out: it takes no new task and looks for no new leader."""
        return self._departure is not None

    @property
    def queued(self) -> int:
        """How many accepted attempts wait for a slot."""
        return len(self._attempts) - sum(attempt is not None for attempt in self.slots)

    @property
    def reports(self) -> tuple[Report, ...]:
        """All that it has: attempts that wait or run, and ended ones that nobody has acknowledged."""
        return (*(attempt.report() for attempt in self._attempts.values()), *self._ended.values())

    @property
    def _heartbeat_timeout_ms(self) -> int:
        return self.registered.heartbeat_timeout_ms if self.registered else DEFAULT_HEARTBEAT_TIMEOUT_MS

    # The connection

    def _connected(self, event: ev.Connected, now: int, effects: list[ev.Effect]) -> None:
        self.link = Link.REGISTERING
        self._heard_at = now
        self._untold.clear()
        slots = len(self.slots)
        register = msg.Register(
            msg.PROTOCOL_VERSION, self.job, self.id, self.address, slots, self.reports, lost=event.lost
        )
        effects.append(ev.Send(register))

    def _connection_lost(self, _: ev.ConnectionLost, now: int, effects: list[ev.Effect]) -> None:
        if self.link is Link.REGISTERED:
            self._leaderless_since = now
        self.link = Link.NONE

    def _disconnect(self, reason: str, now: int, effects: list[ev.Effect]) -> None:
        self._connection_lost(ev.ConnectionLost(), now, effects)
        effects.append(ev.Disconnect(reason))

    def _registered(self, message: msg.Registered, now: int, effects: list[ev.Effect]) -> None:
        if self.link is not Link.REGISTERING:
            return
        if message.epoch < self.epoch:
            self._disconnect(f"it leads epoch {message.epoch}, and epoch {self.epoch} has begun", now, effects)
            return
        self.link = Link.REGISTERED
        self.epoch = message.epoch
        self.registered = message
        self._reconnection_timeout_ms = message.reconnection_timeout_ms
        self._heard_at = now
        self._heartbeat_at = now + message.heartbeat_interval_ms
        untold = tuple(report for report in self.reports if report.attempt in self._untold)
        if untold and not self.stopping:
            effects.append(ev.Send(msg.Reports(untold)))
        for id, attempt in self._attempts.items():
            if attempt.split_wanted is not None:
                effects.append(ev.Send(msg.SplitRequest(id, attempt.split_wanted)))

    def _refused(self, message: msg.Refused, now: int, effects: list[ev.Effect]) -> None:
        if self.link is Link.REGISTERING:
            self._disconnect(message.reason, now, effects)

    # Commands

    def _obeys(self, epoch: int, now: int) -> bool:
        """Whether the command counts: it comes from a leader that took us in, and from no deposed one."""
        if self.link is not Link.REGISTERED or epoch < self.epoch:
            return False
        self.epoch = epoch
        self._heard_at = now
        return True

    def _deploy(self, message: msg.Deploy, now: int, effects: list[ev.Effect]) -> None:
        if not self._obeys(message.epoch, now):
            return
        answers: list[Report] = []
        for deployment in message.deployments:
            id = deployment.attempt
            known = self._report_of(id)
            if known is not None:
                answers.append(known)
            elif self._departure is None:
                self._attempts[id] = _Attempt(deployment)
                self._queue.append(id)
            elif not self._departure.job_over:
                self._ended[id] = Report(id, ExecutionState.CANCELED)
        if answers:
            effects.append(ev.Send(msg.Reports(tuple(answers))))
        self._fill_slots(effects)

    def _cancel(self, message: msg.Cancel, now: int, effects: list[ev.Effect]) -> None:
        if not self._obeys(message.epoch, now):
            return
        answers: list[Report] = []
        for id in message.attempts:
            if id in self._attempts:
                self._cancel_attempt(id, now, effects)
            else:
                answers.append(self._ended.get(id) or Report(id, ExecutionState.CANCELED))
        if answers:
            effects.append(ev.Send(msg.Reports(tuple(answers))))

    def _acknowledge(self, message: msg.Acknowledge, now: int, effects: list[ev.Effect]) -> None:
        if self._obeys(message.epoch, now):
            for id in message.attempts:
                self._ended.pop(id, None)

    def _splits(self, message: msg.Splits, now: int, effects: list[ev.Effect]) -> None:
        if not self._obeys(message.epoch, now):
            return
        attempt = self._attempts.get(message.attempt)
        # An answer can come twice: the request was repeated to a new leader while the old one's answer was on its way.
        if attempt is not None and attempt.slot is not None and attempt.split_wanted == message.index:
            attempt.split_wanted = None
            effects.append(ev.GiveSplit(attempt.slot, message.attempt, message.index, message.split))

    def _job_over(self, message: msg.JobOver, now: int, effects: list[ev.Effect]) -> None:
        if self._obeys(message.epoch, now):
            self._ended.clear()
            self._depart(_Departure(f"the job is {message.status}", EXIT_OK, job_over=True), now, effects)

    def _alive(self, message: msg.Alive, now: int, effects: list[ev.Effect]) -> None:
        self._obeys(message.epoch, now)

    # The worker processes

    def _held(self, id: AttemptId) -> _Attempt | None:
        """The attempt, if it is in a slot: only then can a process have anything to say of it."""
        attempt = self._attempts.get(id)
        return attempt if attempt is not None and attempt.slot is not None else None

    def _started(self, event: ev.Started, now: int, effects: list[ev.Effect]) -> None:
        attempt = self._held(event.attempt)
        if attempt is not None and not attempt.running:
            attempt.running = True
            self._tell(attempt.report(), effects)

    def _split_wanted(self, event: ev.SplitWanted, now: int, effects: list[ev.Effect]) -> None:
        attempt = self._held(event.attempt)
        if attempt is not None:
            attempt.split_wanted = event.index
            if self.link is Link.REGISTERED:
                effects.append(ev.Send(msg.SplitRequest(event.attempt, event.index)))

    def _progress_made(self, event: ev.ProgressMade, now: int, effects: list[ev.Effect]) -> None:
        attempt = self._held(event.attempt)
        if attempt is not None:
            attempt.progress = msg.Progress(event.attempt, event.fraction, event.records, event.size)

    def _finished(self, event: ev.Finished, now: int, effects: list[ev.Effect]) -> None:
        report = Report(event.attempt, ExecutionState.FINISHED, event.partition, event.accumulators)
        self._end(report, effects)

    def _failed(self, event: ev.Failed, now: int, effects: list[ev.Effect]) -> None:
        report = Report(event.attempt, ExecutionState.FAILED, cause=event.cause, lost_input=event.lost_input)
        self._end(report, effects)

    def _cancelled(self, event: ev.Cancelled, now: int, effects: list[ev.Effect]) -> None:
        self._end(Report(event.attempt, ExecutionState.CANCELED), effects)

    def _process_died(self, event: ev.ProcessDied, now: int, effects: list[ev.Effect]) -> None:
        self._end(Report(event.attempt, ExecutionState.FAILED, cause=event.cause), effects)

    # Time, and the end

    def _tick(self, _: ev.Tick, now: int, effects: list[ev.Effect]) -> None:
        for id in [id for id, kill_at in self._kills.items() if now >= kill_at]:
            del self._kills[id]
            slot = self._attempts[id].slot
            assert slot is not None, "what waits for a slot is not killed but forgotten"
            effects.append(ev.KillAttempt(slot, id))
        if self.link is not Link.NONE and now >= self._heard_at + self._heartbeat_timeout_ms:
            self._disconnect(f"it has been silent for {now - self._heard_at} ms", now, effects)
        elif self.link is Link.REGISTERED and now >= self._heartbeat_at and self.registered is not None:
            self._heartbeat_at = now + self.registered.heartbeat_interval_ms
            effects.append(ev.Send(msg.Heartbeat(self._progress())))
        if self.link is not Link.REGISTERED and now >= self._leaderless_since + self._reconnection_timeout_ms:
            reason = f"no leader for {now - self._leaderless_since} ms"
            self._depart(_Departure(reason, EXIT_NO_LEADER), now, effects)

    def _stop_requested(self, event: ev.StopRequested, now: int, effects: list[ev.Effect]) -> None:
        self._depart(_Departure(event.reason, EXIT_OK), now, effects)

    def _depart(self, departure: _Departure, now: int, effects: list[ev.Effect]) -> None:
        if self._departure is None or departure.job_over:
            self._departure = departure
            for id in list(self._attempts):
                self._cancel_attempt(id, now, effects)
            self._leave_if_empty(effects)

    def _leave_if_empty(self, effects: list[ev.Effect]) -> None:
        if self._departure is None or self._attempts or self._gone:
            return
        # All reports go together and last: a leader that hears of one free slot while others still stop would use it.
        if self.link is Link.REGISTERED and self._ended:
            effects.append(ev.Send(msg.Reports(tuple(self._ended.values()))))
        effects.append(ev.ShutDown(self._departure.reason, self._departure.code))
        self._gone = True

    # What several of them need

    def _report_of(self, id: AttemptId) -> Report | None:
        attempt = self._attempts.get(id)
        return attempt.report() if attempt is not None else self._ended.get(id)

    def _tell(self, report: Report, effects: list[ev.Effect]) -> None:
        if self.link is not Link.REGISTERED:
            self._untold.add(report.attempt)
        elif self._departure is None:
            effects.append(ev.Send(msg.Reports((report,))))

    def _cancel_attempt(self, id: AttemptId, now: int, effects: list[ev.Effect]) -> None:
        attempt = self._attempts[id]
        if attempt.slot is None:
            self._end(Report(id, ExecutionState.CANCELED), effects)
        elif not attempt.cancelling:
            grace = self.registered.cancellation_timeout_ms if self.registered else DEFAULT_CANCELLATION_TIMEOUT_MS
            attempt.cancelling = True
            attempt.split_wanted = None
            self._kills[id] = now + grace
            effects.append(ev.CancelAttempt(attempt.slot, id))

    def _end(self, report: Report, effects: list[ev.Effect]) -> None:
        attempt = self._attempts.pop(report.attempt, None)
        if attempt is None:
            return
        self._kills.pop(report.attempt, None)
        # However a cancelled attempt came to its end, nobody wants its result.
        if attempt.cancelling:
            report = Report(report.attempt, ExecutionState.CANCELED)
        if self._departure is None or not self._departure.job_over:
            self._ended[report.attempt] = report
            self._tell(report, effects)
        if attempt.slot is not None:
            self.slots[attempt.slot] = None
            self._free.append(attempt.slot)
            self._fill_slots(effects)
        self._leave_if_empty(effects)

    def _fill_slots(self, effects: list[ev.Effect]) -> None:
        while self._free and self._queue:
            id = self._queue.popleft()
            attempt = self._attempts.get(id)
            # A queued attempt that was cancelled left its place in the queue behind.
            if attempt is not None:
                attempt.slot = self._free.pop()
                self.slots[attempt.slot] = id
                effects.append(ev.StartAttempt(attempt.slot, attempt.deployment))

    def _progress(self) -> tuple[msg.Progress, ...]:
        """What running attempts have last said of how far they are."""
        attempts = (self._attempts[id] for id in self.slots if id is not None)
        return tuple(attempt.progress for attempt in attempts if attempt.progress is not None)


_HANDLERS: dict[type, Callable[[TaskExecutor, Any, int, list[ev.Effect]], None]] = {
    ev.Connected: TaskExecutor._connected,
    ev.ConnectionLost: TaskExecutor._connection_lost,
    ev.Started: TaskExecutor._started,
    ev.SplitWanted: TaskExecutor._split_wanted,
    ev.ProgressMade: TaskExecutor._progress_made,
    ev.Finished: TaskExecutor._finished,
    ev.Failed: TaskExecutor._failed,
    ev.Cancelled: TaskExecutor._cancelled,
    ev.ProcessDied: TaskExecutor._process_died,
    ev.StopRequested: TaskExecutor._stop_requested,
    ev.Tick: TaskExecutor._tick,
    msg.Registered: TaskExecutor._registered,
    msg.Refused: TaskExecutor._refused,
    msg.Deploy: TaskExecutor._deploy,
    msg.Cancel: TaskExecutor._cancel,
    msg.Acknowledge: TaskExecutor._acknowledge,
    msg.Splits: TaskExecutor._splits,
    msg.JobOver: TaskExecutor._job_over,
    msg.Alive: TaskExecutor._alive,
}
