"""How the leader before came to its end, as its successor reads it off the lease."""

import msgspec
import pytest

from flinkjob.election.record import LeaseRecord
from flinkjob.jobmanager.predecessor import NOBODY, Predecessor, predecessor_of

HELD = LeaseRecord(
    holder="job-jobmanager-0_uid-0_aaaa", transitions=3, renew_time="2026-11-24T16:00:01.500000Z", lease_duration=15.0
)
SEEN = 1_795_536_001_500
"""What the record's renewal is in milliseconds."""


def of(*, own: str = "job-jobmanager-1_uid-1_", since: int = SEEN - 60_000, **changed: object) -> Predecessor:
    return predecessor_of(msgspec.structs.replace(HELD, **changed), own=own, since=since)


def test_one_that_still_held_the_lease_did_not_renew_it_in_time() -> None:
    assert of() == Predecessor(
        end="expired",
        name="job-jobmanager-0",
        cause="is gone: it has not renewed its lease for 15 s",
        seen=SEEN,
    )


def test_an_earlier_process_of_the_same_pod_is_known_by_its_name() -> None:
    assert of(own="job-jobmanager-0_uid-0_").end == "replaced"


def test_one_that_was_seen_to_die_has_its_cause_from_who_saw_it() -> None:
    told = of(holder="", ended="the pod job-jobmanager-0 is gone")
    assert (told.end, told.cause, told.seen) == ("dead", "is gone: the pod job-jobmanager-0 is gone", SEEN)


def test_one_that_released_the_lease_has_handed_over() -> None:
    assert (of(holder="").end, of(holder="").seen) == ("released", SEEN)


def test_a_stop_that_left_nobody_to_take_over_is_no_gap() -> None:
    assert of(holder="", since=SEEN + 1).seen == 0
    assert of(since=SEEN + 1).seen == SEEN, "one that died was missed all the time"


@pytest.mark.parametrize("record", [None, LeaseRecord(), LeaseRecord(transitions=7)])
def test_of_the_first_leader_and_of_a_lease_made_again_there_is_no_predecessor(record: LeaseRecord | None) -> None:
    assert predecessor_of(record, own="", since=0) is NOBODY


def test_a_time_that_cannot_be_read_is_not_known() -> None:
    assert of(renew_time="yesterday").seen == 0
