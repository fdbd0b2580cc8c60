"""The rules of the election, as a pure state machine: what one candidate does with what it sees.

Nothing here reads a clock. Times are seconds of the candidate's own steady clock, and only differences of them count.

- A lease expires when its record has not changed for the lease duration since this candidate *saw* it change. One who has
  been blind for longer than a leader leads without renewing gives the leader, who may have been so too, some time first.
- A leader's term ends the renew deadline after it *sent* the last renewal that succeeded. That is before anybody who saw
  the renewal can take the lease, as long as the clocks run at rates that differ by less than the two durations do.
- What fences a leader may stand in for the store while that is out of reach: each time it confirms that there is no newer
  leader, the term goes on for another renew deadline. Then two may hold themselves for leaders for a moment, and the fence
  decides whose word counts; so this is only for leaders that are fenced in all they do (``jobmanager.term``).
- A lease that was deleted is nobody else's: its leader writes it anew.
- A leader whose term is over steps down first and asks later. An answer that comes too late does not revive it.

One Elector serves one term: it stands by, leads, and is over. For the next term there is a new one.
"""

from dataclasses import dataclass
from enum import Enum

import msgspec

from flinkjob.api.errors import InvalidOption
from flinkjob.election.record import LeaseRecord

JITTER = 0.2
"""By how much a pause between two looks may be longer than the retry period, so that candidates do not move in step."""

_OPTION = "high-availability.kubernetes.leader-election."


@dataclass(frozen=True, slots=True)
class ElectionTimes:
    """The three durations in seconds (Flink: ``high-availability.kubernetes.leader-election.*``).

    Attributes:
        lease_duration: how long others wait for a leader that shows no sign of life.
        renew_deadline: how long a leader leads without having been able to renew.
        retry_period: the pause between two renewals, and between two looks of a standby.

    Raises:
        InvalidOption: they do not leave a leader the time to renew, or not to notice that it could not.
    """

    lease_duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0

    def __post_init__(self) -> None:
        if self.retry_period <= 0:
            raise InvalidOption(f"{_OPTION}retry-period is {self.retry_period:g} s; it must be above 0 s")
        if self.renew_deadline <= self.retry_period * (1 + JITTER):
            raise InvalidOption(
                f"{_OPTION}renew-deadline ({self.renew_deadline:g} s) must be longer than 1.2 times "
                f"{_OPTION}retry-period ({self.retry_period:g} s)"
            )
        if self.lease_duration <= self.renew_deadline:
            raise InvalidOption(
                f"{_OPTION}lease-duration ({self.lease_duration:g} s) must be longer than "
                f"{_OPTION}renew-deadline ({self.renew_deadline:g} s)"
            )


class State(Enum):
    """Where a term stands."""

    STANDBY = "standby"
    LEADER = "leader"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Look:
    """Read the record and tell ``observed``."""


@dataclass(frozen=True, slots=True)
class Acquire:
    """Write the record, if its version is still ``expected``, to become the leader; tell ``written`` or ``refused``."""

    record: LeaseRecord
    expected: str


@dataclass(frozen=True, slots=True)
class Renew:
    """Write the record, if its version is still ``expected``, to remain the leader; tell ``written`` or ``refused``."""

    record: LeaseRecord
    expected: str


@dataclass(frozen=True, slots=True)
class Release:
    """Write the record, if its version is still ``expected``, to free the lease. The term is over whatever comes of it."""

    record: LeaseRecord
    expected: str


@dataclass(frozen=True, slots=True)
class StepDown:
    """Stop acting as the leader, now. The term is over."""

    reason: str


Action = Look | Acquire | Renew | StepDown


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now (None: nothing) and in how many seconds after that to poll again."""

    action: Action | None
    again_in: float


class Elector:
    """One candidate's term.

    Attributes:
        state: where the term stands; whether a leader's term is still running at a moment is ``is_leader``'s to say.
        record: the record as last seen or written; None where there was none.
    """

    def __init__(
        self, identity: str, times: ElectionTimes, *, address: str = "", rest: str = "", predecessors: str = ""
    ) -> None:
        """Stand as a candidate.

        Args:
            identity: unique to this process. A record of this holder is one's own, and taken without waiting.
            address, rest: where a leader is reached, for the record.
            predecessors: holders whose names begin so are known to be dead, and not waited for either; "": none.
        """
        self._identity = identity
        self._times = times
        self._address = address
        self._rest = rest
        self._predecessors = predecessors
        self.state = State.STANDBY
        self.record: LeaseRecord | None = None
        self._must_look = True
        self._changed_at = 0.0
        self._seen_at: float | None = None
        self._last_known = LeaseRecord()
        self._term_ends = 0.0
        self._renewed_at = 0.0
        self._next_try = 0.0

    # What has happened

    def observed(self, record: LeaseRecord | None, *, now: float) -> None:
        """The record has been read."""
        self._must_look = False
        if self._seen_at is None or record != self.record:
            self._changed_at, self.record = now, record
            self._last_known = record or self._last_known
        elif now - self._seen_at > self._times.renew_deadline:
            self._changed_at = max(self._changed_at, now - self._times.renew_deadline)
        self._seen_at = now

    def written(self, record: LeaseRecord, *, requested_at: float, now: float) -> None:
        """An Acquire or a Renew that was sent at ``requested_at`` has succeeded; ``record`` is what the store holds since."""
        self.observed(record, now=now)
        self._renewed_at = requested_at
        ends = requested_at + self._times.renew_deadline
        if self.state is State.LEADER and now < self._term_ends:
            self._term_ends = max(ends, self._term_ends)
        elif self.state is State.STANDBY and now < ends:
            self.state, self._term_ends = State.LEADER, ends
        self._next_try = requested_at + self._times.retry_period

    def confirmed(self, *, requested_at: float, now: float) -> None:
        """What fences this leader was asked at ``requested_at`` and knows of no newer one: the term goes on."""
        if self.is_leader(now):
            self._term_ends = max(requested_at + self._times.renew_deadline, self._term_ends)

    def stirred(self) -> None:
        """The store says that the record has changed: look at once."""
        self._must_look, self._next_try = True, 0.0

    def refused(self, *, now: float, jitter: float) -> None:
        """A write has found another version in the store: look again, soon, and not in step with the others."""
        self._must_look = True
        self._next_try = now + self._times.retry_period * jitter * JITTER

    def failed(self, *, now: float, jitter: float) -> None:
        """The store has failed or not answered. A write may have been done all the same, so look before the next one."""
        self._must_look = True
        self._next_try = now + self._pause(jitter)

    # What to do

    def is_leader(self, now: float) -> bool:
        """Whether the candidate leads at this moment."""
        return self.state is State.LEADER and now < self._term_ends

    def in_doubt(self, now: float) -> bool:
        """Whether a leader has tried in vain to renew, and cannot know yet whether it is the store or itself that is cut off.

        It is settled when others have had the time to take the lease: by then this one is deposed, or nobody can do better.
        """
        times = self._times
        silence = now - self._renewed_at
        return self.is_leader(now) and 2 * self._pause(1.0) < silence < times.lease_duration + times.renew_deadline

    def term_left(self, now: float) -> float:
        """Seconds until the term ends unless it is renewed; 0 for one who does not lead."""
        return max(0.0, self._term_ends - now) if self.state is State.LEADER else 0.0

    def poll(self, *, now: float, jitter: float, timestamp: str) -> Step:
        """The action due now.

        Args:
            jitter: a random number from 0 to 1.
            timestamp: the time of day as text, for the record.
        """
        if self.state is State.OVER:
            return Step(None, self._times.retry_period)
        if self.state is State.LEADER:
            return self._lead(now, jitter, timestamp)
        return self._stand_by(now, jitter, timestamp)

    def release(self, timestamp: str = "") -> Release | None:
        """End the term of one's own will; None where, as far as has been seen, the lease is not one's own to free.

        Args:
            timestamp: the time of day as text, for the record.
        """
        self.state = State.OVER
        if self.record is None or self.record.holder != self._identity:
            return None
        return Release(self.record.released(timestamp), self.record.version)

    def _lead(self, now: float, jitter: float, timestamp: str) -> Step:
        if now >= self._term_ends:
            return self._step_down(f"the lease could not be renewed for {self._times.renew_deadline:g} s")
        record = self.record
        if not self._must_look and record is not None and record.holder != self._identity:
            return self._step_down(
                f"the lease is held by {record.holder!r}" if record.holder else "the lease was taken away"
            )
        if now < self._next_try:
            return Step(None, min(self._next_try, self._term_ends) - now)
        if self._must_look:
            return Step(Look(), 0.0)
        self._next_try = now + self._pause(jitter)
        # Where the leader is reached is its own to say: it corrects what somebody else has made of it.
        places = {"address": self._address, "rest": self._rest}
        new = msgspec.structs.replace(record or self._last_known, renew_time=timestamp, **places)
        return Step(Renew(new, record.version if record else ""), 0.0)

    def _step_down(self, reason: str) -> Step:
        self.state = State.OVER
        return Step(StepDown(reason), 0.0)

    def _stand_by(self, now: float, jitter: float, timestamp: str) -> Step:
        if self._must_look:
            return Step(None, self._next_try - now) if now < self._next_try else Step(Look(), 0.0)
        # What was seen serves for one decision; the next one needs another look.
        self._must_look = True
        free_in = self._free_in(now)
        if free_in > 0:
            self._next_try = now + min(self._pause(jitter), free_in)
            return Step(None, self._next_try - now)
        self._next_try = now + self._pause(jitter)
        return Step(Acquire(self._mine(timestamp), self.record.version if self.record else ""), 0.0)

    def _free_in(self, now: float) -> float:
        """Seconds until the lease may be taken as far as has been seen; 0 or less: now."""
        if self.record is None or self.record.holder in ("", self._identity) or self._is_dead(self.record.holder):
            return 0.0
        # Whoever set the longer duration is to be waited for.
        return self._changed_at + max(self._times.lease_duration, self.record.lease_duration) - now

    def _is_dead(self, holder: str) -> bool:
        return bool(self._predecessors) and holder.startswith(self._predecessors)

    def _mine(self, timestamp: str) -> LeaseRecord:
        old = self._last_known
        kept = old.holder == self._identity
        return LeaseRecord(
            holder=self._identity,
            address=self._address,
            rest=self._rest,
            lease_duration=self._times.lease_duration,
            acquire_time=old.acquire_time if kept else timestamp,
            renew_time=timestamp,
            transitions=old.transitions + (not kept),
        )

    def _pause(self, jitter: float) -> float:
        return self._times.retry_period * (1 + JITTER * jitter)
