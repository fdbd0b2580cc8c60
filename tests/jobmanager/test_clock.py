"""The JobManager's clock goes on, and only on."""

import time

import pytest

from flinkjob.jobmanager.clock import Clock

HOUR_MS = 3_600_000


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
def test_a_step_of_the_time_of_day_does_not_reach_it(monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    clock = Clock()
    before = clock.now_ms()
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() + step)
    assert 0 <= clock.now_ms() - before < HOUR_MS / 2


def test_it_is_not_before_what_a_predecessor_has_lived_through() -> None:
    clock = Clock()
    ahead = clock.now_ms() + HOUR_MS
    clock.not_before(ahead)
    assert ahead - 1 <= clock.now_ms() < ahead + HOUR_MS
    assert clock.now_ms() <= clock.now_ms()


def test_what_has_passed_does_not_set_it_back() -> None:
    clock = Clock()
    before = clock.now_ms()
    clock.not_before(before - HOUR_MS)
    assert 0 <= clock.now_ms() - before < HOUR_MS
