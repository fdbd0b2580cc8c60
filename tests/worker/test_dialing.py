"""Where the leader is looked for, and after how long."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from flinkjob.worker.dialing import FIRST_DELAY_MS, MAX_DELAY_MS, Dialer


def test_the_first_round_goes_through_all_addresses_without_waiting() -> None:
    dialer = Dialer(["a", "b", "c"])
    assert [dialer.next(0.5) for _ in range(3)] == [("a", 0), ("b", 0), ("c", 0)]


def test_later_rounds_wait_once_each_and_longer_up_to_a_second() -> None:
    dialer = Dialer(["a", "b"])
    calls = [dialer.next(1.0) for _ in range(40)]
    assert [address for address, _ in calls] == ["a", "b"] * 20
    assert [delay for _, delay in calls[1::2]] == [0] * 20
    delays = [delay for _, delay in calls[2::2]]
    assert delays[0] == FIRST_DELAY_MS
    assert all(later == min(2 * earlier, MAX_DELAY_MS) for earlier, later in pairwise(delays))


@given(st.floats(0, 1), st.integers(1, 100))
def test_jitter_takes_away_half_of_the_delay_at_most(jitter: float, calls: int) -> None:
    steady, jittered = Dialer(["a"]), Dialer(["a"])
    for _ in range(calls):
        _, full = steady.next(1.0)
        _, delay = jittered.next(jitter)
        assert full / 2 - 1 <= delay <= full


def test_the_leader_that_a_standby_names_is_called_next() -> None:
    dialer = Dialer(["a", "b"])
    dialer.next(0.5)
    dialer.refused("c")
    assert dialer.next(0.5) == ("c", 0)
    assert dialer.next(0.5) == ("b", 0)


def test_a_standby_that_names_nobody_changes_nothing() -> None:
    dialer = Dialer(["a", "b"])
    dialer.next(0.5)
    dialer.refused("")
    assert dialer.next(0.5) == ("b", 0)


def test_two_standbys_that_name_each_other_do_not_make_it_spin() -> None:
    dialer = Dialer(["a", "b"])
    waited = 0
    for _ in range(100):
        address, delay = dialer.next(1.0)
        waited += delay
        dialer.refused("b" if address == "a" else "a")
    assert waited > 10 * MAX_DELAY_MS


def test_after_a_registration_the_search_begins_anew_with_the_next_address() -> None:
    dialer = Dialer(["a", "b"])
    for _ in range(7):
        dialer.next(1.0)
    dialer.registered()
    assert [dialer.next(1.0) for _ in range(2)] == [("b", 0), ("a", 0)]
