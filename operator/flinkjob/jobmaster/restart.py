"""Restart strategies: whether a failed job may go on, and after how long.

A strategy has no memory of its own: it is a function of the RestartState that the log holds, so that a failover neither
renews nor forgets the budget. Names, options and rules are Flink's (``restart-strategy.type``).
"""

from dataclasses import dataclass
from typing import Protocol

from flinkjob.graph.operations import RestartState


class RestartStrategy(Protocol):
    """Decides on each failure of the job."""

    def on_failure(self, state: RestartState, now: int, jitter: float) -> tuple[RestartState, int] | None:
        """The new state and the delay in milliseconds before the restart, or None: the job fails.

        Args:
            state: as the log has it.
            now: milliseconds.
            jitter: a random number in [-1, 1].
        """
        ...


@dataclass(frozen=True, slots=True)
class NoRestart:
    """``disable``: the first failure fails the job."""

    def on_failure(self, state: RestartState, now: int, jitter: float) -> tuple[RestartState, int] | None:
        """None, always."""
        return None


@dataclass(frozen=True, slots=True)
class FixedDelay:
    """``fixed-delay``: at most ``attempts`` restarts in the job's life, each after ``delay`` ms."""

    attempts: int
    delay: int

    def on_failure(self, state: RestartState, now: int, jitter: float) -> tuple[RestartState, int] | None:
        """One restart less in the budget."""
        if state.restarts >= self.attempts:
            return None
        return RestartState(restarts=state.restarts + 1, last_at=now), self.delay


@dataclass(frozen=True, slots=True)
class FailureRate:
    """``failure-rate``: the job fails when more than ``max_failures`` failures happen within ``interval`` ms."""

    max_failures: int
    interval: int
    delay: int

    def on_failure(self, state: RestartState, now: int, jitter: float) -> tuple[RestartState, int] | None:
        """Count the failures of the last interval, this one included."""
        failures = (*(at for at in state.failures if now - at < self.interval), now)
        if len(failures) > self.max_failures:
            return None
        return RestartState(state.restarts + 1, last_at=now, failures=failures), self.delay


@dataclass(frozen=True, slots=True)
class ExponentialDelay:
    """``exponential-delay``: the delay grows with each failure and falls back after a quiet time.

    A failure that comes while a restart is still being waited for is the same trouble, not a further one: it does not
    count against ``attempts`` and does not let the delay grow.
    """

    initial_backoff: int
    max_backoff: int
    multiplier: float
    reset_threshold: int
    jitter_factor: float
    attempts: int

    def on_failure(self, state: RestartState, now: int, jitter: float) -> tuple[RestartState, int] | None:
        """Grow the delay, or begin anew after ``reset_threshold`` ms without a failure."""
        if state.restarts and state.last_at <= now < state.due_at:
            return state, state.due_at - now
        if not state.restarts or now - state.due_at >= self.reset_threshold:
            restarts, backoff = 1, self.initial_backoff
        else:
            restarts, backoff = state.restarts + 1, min(self.max_backoff, round(state.backoff_ms * self.multiplier))
        if restarts > self.attempts:
            return None
        delay = max(round(backoff * (1 + self.jitter_factor * jitter)), 0)
        return RestartState(restarts, backoff_ms=max(backoff, 1), last_at=now, due_at=now + delay), delay
