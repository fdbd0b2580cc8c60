"""Restart strategies: budgets, windows and backoffs, as functions of what the log remembers."""

from hypothesis import given
from hypothesis import strategies as st

from flinkjob.graph.operations import RestartState
from flinkjob.jobmaster.restart import ExponentialDelay, FailureRate, FixedDelay, NoRestart, RestartStrategy

gaps = st.lists(st.integers(0, 5_000), min_size=1, max_size=40)
jitters = st.floats(-1, 1)


def exponential(
    *, initial: int = 100, most: int = 10_000, multiplier: float = 2.0, quiet: int = 60_000, jitter: float = 0.0,
    attempts: int = 1_000_000,
) -> ExponentialDelay:  # fmt: skip
    """With defaults that are easy to calculate with."""
    return ExponentialDelay(initial, most, multiplier, quiet, jitter, attempts)


def delays(strategy: RestartStrategy, *failures: int, jitter: float = 0.0) -> list[int | None]:
    """The delay after each failure; None: the job failed."""
    state, answers = RestartState(), list[int | None]()
    for at in failures:
        answer = strategy.on_failure(state, at, jitter)
        if answer is None:
            return [*answers, None]
        state, delay = answer
        answers.append(delay)
    return answers


def times(gaps: list[int]) -> list[int]:
    """When the failures are, one gap after the other."""
    return [1_000_000 + sum(gaps[: number + 1]) for number in range(len(gaps))]


def test_disable_allows_nothing() -> None:
    assert delays(NoRestart(), 0) == [None]


@given(st.integers(0, 20), st.integers(0, 10_000), gaps)
def test_fixed_delay_allows_so_many_restarts_whatever_their_times(attempts: int, delay: int, gaps: list[int]) -> None:
    expected = [delay] * min(attempts, len(gaps)) + [None] * (len(gaps) > attempts)
    assert delays(FixedDelay(attempts, delay), *times(gaps)) == expected


@given(st.integers(1, 5), st.integers(1, 10_000), gaps)
def test_failure_rate_fails_exactly_when_a_window_holds_too_many(most: int, interval: int, gaps: list[int]) -> None:
    failures = times(gaps)
    answers = delays(FailureRate(most, interval, 7), *failures)
    for number, answer in enumerate(answers):
        window = [at for at in failures[: number + 1] if failures[number] - at < interval]
        assert (answer is None) == (len(window) > most)


@given(st.integers(1, 5), st.integers(1, 10_000), gaps)
def test_failure_rate_remembers_no_more_than_its_window(most: int, interval: int, gaps: list[int]) -> None:
    state = RestartState()
    for at in times(gaps):
        answer = FailureRate(most, interval, 7).on_failure(state, at, 0.0)
        if answer is None:
            return
        state, _ = answer
        assert len(state.failures) <= most


def test_failure_rate_restarts_for_ever_if_failures_are_rare() -> None:
    assert delays(FailureRate(1, 1000, 7), *range(0, 50_000, 1000)) == [7] * 50


def test_exponential_delay_grows_to_its_maximum_and_stays_there() -> None:
    failures = [0, 101, 302, 703, 1504, 2505, 3506]
    assert delays(exponential(most=1000), *failures) == [100, 200, 400, 800, 1000, 1000, 1000]


def test_exponential_delay_falls_back_after_a_quiet_time_and_not_before() -> None:
    due = 100 + 200 + 200  # the second failure at 200 is waited for until 400
    assert delays(exponential(quiet=5000), 0, 200, 400 + 4999) == [100, 200, 400]
    assert delays(exponential(quiet=5000), 0, 200, 400 + 5000) == [100, 200, 100]
    assert due == 500


def test_exponential_delay_begins_its_budget_anew_after_a_quiet_time() -> None:
    strategy = exponential(attempts=2, quiet=1000)
    assert delays(strategy, 0, 200, 600) == [100, 200, None]
    assert delays(strategy, 0, 200, 1400, 1600) == [100, 200, 100, 200]


def test_failures_while_a_restart_is_waited_for_are_the_same_trouble() -> None:
    assert delays(exponential(attempts=1), 0, 30, 99) == [100, 70, 1]
    assert delays(exponential(attempts=1), 0, 30, 100) == [100, 70, None]


@given(gaps, st.floats(0, 1), st.lists(jitters, min_size=40, max_size=40))
def test_jitter_stays_in_its_bounds_and_does_not_grow_the_backoff(
    gaps: list[int], factor: float, jitters: list[float]
) -> None:
    strategy, state = exponential(jitter=factor), RestartState()
    for at, jitter in zip(times(gaps), jitters, strict=False):
        waiting = bool(state.restarts) and at < state.due_at
        answer = strategy.on_failure(state, at, jitter)
        assert answer is not None
        after, delay = answer
        if waiting:
            assert after == state
            assert delay == state.due_at - at
        else:
            assert after.backoff_ms in {100 * 2**power for power in range(7)} | {10_000}
            assert abs(delay - after.backoff_ms) <= factor * after.backoff_ms + 1
            assert after.due_at == at + delay
            assert after.backoff_ms >= state.backoff_ms
            assert after.restarts == state.restarts + 1
        state = after


def test_a_restart_that_jitter_brought_forward_is_not_waited_for_any_longer() -> None:
    assert delays(exponential(jitter=0.5, attempts=2), 0, 60, 170, jitter=-1.0) == [50, 100, None]


@given(st.integers(1, 10**9))
def test_a_successor_whose_clock_is_behind_does_not_wait_for_the_difference(behind: int) -> None:
    strategy = exponential()
    state = RestartState(restarts=3, backoff_ms=400, last_at=10**10, due_at=10**10 + 400)
    answer = strategy.on_failure(state, 10**10 - behind, 0.0)
    assert answer is not None
    assert answer[1] == 800


@given(gaps, st.integers(1, 30))
def test_exponential_delay_never_exceeds_its_budget_between_quiet_times(gaps: list[int], attempts: int) -> None:
    strategy, state = exponential(attempts=attempts, quiet=10**9), RestartState()
    for at in times(gaps):
        answer = strategy.on_failure(state, at, 0.0)
        if answer is None:
            assert state.restarts == attempts
            return
        state, _ = answer
        assert state.restarts <= attempts


def test_a_delay_of_nothing_is_allowed() -> None:
    assert delays(exponential(initial=0, most=0), 0, 1, 2) == [0, 0, 0]
    assert delays(exponential(jitter=5.0), 0, jitter=-1.0) == [0]
