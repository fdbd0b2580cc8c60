"""The rules of the election, one candidate at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flinkjob.api.errors import InvalidOption
from flinkjob.election.elector import Acquire, ElectionTimes, Elector, Look, Release, Renew, State, Step, StepDown
from flinkjob.election.record import LeaseRecord

TIMES = ElectionTimes()
OTHERS = LeaseRecord(holder="other", lease_duration=15.0, transitions=3, version="7", acquire_time="then")


def poll(elector: Elector, now: float, jitter: float = 0.0) -> Step:
    return elector.poll(now=now, jitter=jitter, timestamp=f"time {now:g}")


def leader(at: float = 100.0) -> Elector:
    """An elector that has acquired the lease by a request sent at that time."""
    elector = Elector("me", TIMES, address="host:1")
    assert poll(elector, at).action == Look()
    elector.observed(None, now=at)
    action = poll(elector, at).action
    assert isinstance(action, Acquire)
    elector.written(stored(action.record, "1"), requested_at=at, now=at)
    return elector


def stored(record: LeaseRecord, version: str) -> LeaseRecord:
    return LeaseRecord(
        record.holder,
        record.address,
        record.lease_duration,
        record.acquire_time,
        record.renew_time,
        record.transitions,
        version,
    )


# The durations


def test_the_defaults_are_those_of_kubernetes() -> None:
    assert (TIMES.lease_duration, TIMES.renew_deadline, TIMES.retry_period) == (15.0, 10.0, 2.0)


@pytest.mark.parametrize(
    ("lease", "renew", "retry", "message"),
    [
        (10.0, 10.0, 2.0, r"leader-election\.lease-duration \(10 s\) must be longer than .*renew-deadline \(10 s\)"),
        (15.0, 2.4, 2.0, r"renew-deadline \(2\.4 s\) must be longer than 1\.2 times .*retry-period \(2 s\)"),
        (15.0, 10.0, 0.0, r"retry-period is 0 s; it must be above 0 s"),
    ],
)
def test_durations_that_cannot_work_are_refused_by_flinks_names(
    lease: float, renew: float, retry: float, message: str
) -> None:
    with pytest.raises(InvalidOption, match=f"high-availability.kubernetes.*{message}"):
        ElectionTimes(lease_duration=lease, renew_deadline=renew, retry_period=retry)


# Standing by


def test_a_candidate_looks_before_it_does_anything() -> None:
    assert poll(Elector("me", TIMES), 5.0).action == Look()


def test_a_lease_that_nobody_has_is_taken_at_once() -> None:
    for record, transitions in ((None, 1), (stored(OTHERS.released(), "8"), 4)):
        elector = Elector("me", TIMES, address="host:1")
        elector.observed(record, now=5.0)
        action = poll(elector, 5.0).action
        assert action == Acquire(
            LeaseRecord("me", "host:1", 15.0, "time 5", "time 5", transitions), record.version if record else ""
        )


def test_a_held_lease_is_waited_for_from_when_its_record_was_seen_to_change() -> None:
    elector = Elector("me", TIMES)
    elector.observed(OTHERS, now=0.0)
    elector.observed(stored(OTHERS, "8"), now=10.0)
    elector.observed(stored(OTHERS, "8"), now=20.0)
    elector.observed(stored(OTHERS, "8"), now=24.0)
    assert poll(elector, 24.0).action is None
    elector.observed(stored(OTHERS, "8"), now=25.0)
    assert isinstance(poll(elector, 25.0).action, Acquire)


def test_the_times_in_the_record_decide_nothing() -> None:
    ancient = LeaseRecord("other", "", 15.0, "1970-01-01", "1970-01-01", 1, "1")
    elector = Elector("me", TIMES)
    elector.observed(ancient, now=1e9)
    assert poll(elector, 1e9).action is None


def test_the_longer_of_two_lease_durations_is_waited_for() -> None:
    for own, theirs, wait in ((15.0, 40.0, 40.0), (40.0, 15.0, 40.0)):
        elector = Elector("me", ElectionTimes(lease_duration=own))
        elector.observed(LeaseRecord("other", lease_duration=theirs, version="1"), now=0.0)
        assert poll(elector, wait - 0.1).action is None
        for seen_at in range(int(wait)):
            elector.observed(LeaseRecord("other", lease_duration=theirs, version="1"), now=float(seen_at))
        elector.observed(LeaseRecord("other", lease_duration=theirs, version="1"), now=wait)
        assert isinstance(poll(elector, wait).action, Acquire)


@given(st.floats(0.0, 1.0))
def test_a_standby_looks_once_a_retry_period_and_not_in_step(jitter: float) -> None:
    elector = Elector("me", TIMES)
    elector.observed(OTHERS, now=0.0)
    step = poll(elector, 0.0, jitter)
    assert step.action is None
    assert step.again_in == pytest.approx(2.0 * (1 + 0.2 * jitter))
    assert poll(elector, step.again_in).action == Look()


def test_a_standby_does_not_look_later_than_the_lease_expires() -> None:
    elector = Elector("me", TIMES)
    elector.observed(OTHERS, now=0.0)
    elector.observed(OTHERS, now=8.0)
    elector.observed(OTHERS, now=14.5)
    assert poll(elector, 14.5).again_in == pytest.approx(0.5)


def test_a_standby_that_is_told_of_a_change_looks_at_once() -> None:
    elector = Elector("me", TIMES)
    elector.observed(OTHERS, now=0.0)
    poll(elector, 0.0)
    elector.stirred()
    assert poll(elector, 0.1).action == Look()


def test_a_lost_race_is_followed_by_a_look_with_jitter() -> None:
    elector = Elector("me", TIMES)
    elector.observed(None, now=0.0)
    assert isinstance(poll(elector, 0.0).action, Acquire)
    elector.refused(now=0.0, jitter=1.0)
    step = poll(elector, 0.0)
    assert step.action is None
    assert step.again_in == pytest.approx(0.4)
    assert poll(elector, 0.4).action == Look()
    assert elector.state is State.STANDBY


def test_a_store_that_fails_is_asked_again_after_a_retry_period() -> None:
    elector = Elector("me", TIMES)
    assert poll(elector, 0.0).action == Look()
    elector.failed(now=1.0, jitter=0.0)
    assert poll(elector, 1.0) == Step(None, 2.0)
    assert poll(elector, 3.0).action == Look()


def test_an_acquisition_that_is_answered_too_late_makes_no_leader() -> None:
    elector = Elector("me", TIMES)
    elector.observed(None, now=0.0)
    action = poll(elector, 0.0).action
    assert isinstance(action, Acquire)
    elector.written(stored(action.record, "1"), requested_at=0.0, now=10.0)
    assert elector.state is State.STANDBY
    assert not elector.is_leader(10.0)


def test_a_record_of_ones_own_is_taken_without_waiting_and_is_no_transition() -> None:
    elector = Elector("me", TIMES)
    elector.observed(LeaseRecord("me", acquire_time="then", transitions=3, version="5"), now=0.0)
    action = poll(elector, 0.0).action
    assert isinstance(action, Acquire)
    assert (action.record.transitions, action.record.acquire_time, action.expected) == (3, "then", "5")


def test_a_predecessor_that_is_known_to_be_dead_is_not_waited_for() -> None:
    elector = Elector("pod-0_uid-1_b", TIMES, predecessors="pod-0_uid-1_")
    elector.observed(LeaseRecord("pod-0_uid-1_a", transitions=3, version="5"), now=0.0)
    action = poll(elector, 0.0).action
    assert isinstance(action, Acquire)
    assert action.record.transitions == 4
    elector.observed(LeaseRecord("pod-0_uid-2_a", transitions=3, version="6"), now=0.1)
    assert poll(elector, 0.1).action is None


def test_a_standby_that_was_blind_gives_the_leader_time_to_renew() -> None:
    elector = Elector("me", TIMES)
    elector.observed(OTHERS, now=0.0)
    for blind in range(20, 300, 20):
        elector.failed(now=float(blind), jitter=0.0)
    elector.observed(OTHERS, now=300.0)
    assert poll(elector, 300.0).action is None
    elector.observed(OTHERS, now=304.9)
    assert poll(elector, 304.9).action is None
    elector.observed(OTHERS, now=305.0)
    assert isinstance(poll(elector, 305.0).action, Acquire)


def test_a_lease_that_was_deleted_is_taken_with_its_transitions_counted_on() -> None:
    elector = Elector("me", TIMES)
    elector.observed(OTHERS, now=0.0)
    elector.observed(None, now=1.0)
    action = poll(elector, 1.0).action
    assert isinstance(action, Acquire)
    assert (action.expected, action.record.transitions) == ("", 4)


# Leading


def test_a_term_ends_the_renew_deadline_after_the_last_request_that_succeeded() -> None:
    elector = leader(100.0)
    assert elector.is_leader(109.9)
    assert not elector.is_leader(110.0)
    action = poll(elector, 102.0).action
    assert isinstance(action, Renew)
    elector.written(stored(action.record, "2"), requested_at=102.0, now=105.0)
    assert elector.term_left(105.0) == pytest.approx(7.0)
    assert elector.is_leader(111.9)
    assert not elector.is_leader(112.0)


def test_a_leader_renews_once_a_retry_period_and_changes_the_time_only() -> None:
    elector = leader(100.0)
    step = poll(elector, 100.5)
    assert step.action is None
    assert step.again_in == pytest.approx(1.5)
    action = poll(elector, 102.0).action
    assert action == Renew(LeaseRecord("me", "host:1", 15.0, "time 100", "time 102", 1, "1"), "1")


def test_a_leader_that_could_not_renew_steps_down_and_does_not_come_back() -> None:
    elector = leader(100.0)
    action = poll(elector, 102.0).action
    assert isinstance(action, Renew)
    step = poll(elector, 110.0)
    assert step.action == StepDown("the lease could not be renewed for 10 s")
    elector.written(stored(action.record, "2"), requested_at=102.0, now=110.0)
    assert elector.state is State.OVER
    assert not elector.is_leader(110.0)
    assert poll(elector, 111.0).action is None


def test_an_answer_after_the_end_of_the_term_does_not_revive_it() -> None:
    elector = leader(100.0)
    action = poll(elector, 109.0).action
    assert isinstance(action, Renew)
    elector.written(stored(action.record, "2"), requested_at=109.0, now=110.5)
    assert not elector.is_leader(110.5)
    assert isinstance(poll(elector, 110.5).action, StepDown)


def test_a_leader_whose_renewal_failed_looks_before_it_renews_again() -> None:
    elector = leader(100.0)
    assert isinstance(poll(elector, 102.0).action, Renew)
    elector.failed(now=104.0, jitter=0.0)
    assert poll(elector, 104.0) == Step(None, 2.0)
    assert poll(elector, 106.0).action == Look()
    elector.observed(LeaseRecord("me", version="2"), now=106.0)
    action = poll(elector, 106.0).action
    assert isinstance(action, Renew)
    assert action.expected == "2"
    assert elector.term_left(106.0) == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (stored(OTHERS, "9"), "the lease is held by 'other'"),
        (OTHERS.released(), "the lease was taken away"),
    ],
)
def test_a_leader_that_sees_the_lease_gone_steps_down(record: LeaseRecord, reason: str) -> None:
    elector = leader(100.0)
    assert isinstance(poll(elector, 102.0).action, Renew)
    elector.refused(now=102.0, jitter=0.0)
    assert elector.is_leader(102.0)
    assert poll(elector, 102.0).action == Look()
    elector.observed(record, now=102.1)
    assert poll(elector, 102.1).action == StepDown(reason)


def test_a_leader_polls_in_time_to_step_down() -> None:
    elector = leader(100.0)
    poll(elector, 109.0)
    elector.failed(now=109.5, jitter=1.0)
    step = poll(elector, 109.5)
    assert step.action is None
    assert step.again_in == pytest.approx(0.5)


def test_a_leader_whose_lease_was_deleted_writes_it_anew() -> None:
    elector = leader(100.0)
    assert isinstance(poll(elector, 102.0).action, Renew)
    elector.refused(now=102.0, jitter=0.0)
    assert poll(elector, 102.0).action == Look()
    elector.observed(None, now=102.1)
    action = poll(elector, 104.0).action
    assert isinstance(action, Renew)
    assert (action.expected, action.record.holder, action.record.transitions) == ("", "me", 1)
    elector.written(stored(action.record, "20"), requested_at=104.0, now=104.1)
    assert elector.term_left(104.1) == pytest.approx(9.9)


def test_a_fence_that_confirms_carries_a_term_over_an_outage_of_the_store() -> None:
    elector = leader(100.0)
    assert isinstance(poll(elector, 108.0).action, Renew)
    elector.failed(now=109.0, jitter=0.0)
    elector.confirmed(requested_at=109.0, now=109.5)
    assert elector.is_leader(118.9)
    assert not elector.is_leader(119.0)


def test_a_fence_that_confirms_too_late_does_not_revive_a_term() -> None:
    elector = leader(100.0)
    elector.confirmed(requested_at=109.0, now=110.0)
    assert not elector.is_leader(110.0)
    standby = Elector("me", TIMES)
    standby.observed(OTHERS, now=0.0)
    standby.confirmed(requested_at=1.0, now=1.0)
    assert not standby.is_leader(1.0)


def test_a_leader_that_cannot_renew_is_in_doubt_until_others_have_had_their_chance() -> None:
    elector = leader(100.0)
    assert not elector.in_doubt(104.8)  # two tries
    for asked_at in (106.0, 115.0, 124.0):
        assert elector.in_doubt(asked_at)
        elector.confirmed(requested_at=asked_at, now=asked_at)
    assert not elector.in_doubt(125.0)  # the lease duration and the renew deadline
    action = poll(elector, 126.0).action
    assert isinstance(action, Renew)
    elector.written(stored(action.record, "2"), requested_at=126.0, now=126.1)
    assert not elector.in_doubt(130.0)
    assert elector.in_doubt(131.0)


def test_one_who_does_not_lead_is_in_no_doubt() -> None:
    standby = Elector("me", TIMES)
    standby.observed(OTHERS, now=0.0)
    assert not standby.in_doubt(6.0)
    assert not leader(100.0).in_doubt(110.0)


# Releasing


def test_a_released_lease_is_free_and_the_term_over() -> None:
    elector = leader(100.0)
    release = elector.release()
    assert release == Release(LeaseRecord("", "", 15.0, "time 100", "time 100", 1, "1"), "1")
    assert not elector.is_leader(100.0)
    assert poll(elector, 101.0).action is None


def test_what_belongs_to_others_is_not_released() -> None:
    elector = Elector("me", TIMES)
    assert elector.release() is None
    elector = Elector("me", TIMES)
    elector.observed(OTHERS, now=0.0)
    assert elector.release() is None
