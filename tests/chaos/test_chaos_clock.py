"""Steps of the time of day. Nothing but what is shown to people goes by it.

The machine's clock is everybody's, so the processes of the cluster get one of their own: a ``sitecustomize`` on PYTHONPATH
adds to their ``time.time`` the seconds that a file holds.
"""

from pathlib import Path

import pytest

from local.clusters import GatedJob, begun_once, check_undisturbed, eventually, kill

from .conftest import Start
from .unruly import unruly

SHIM = """
import os
import time

_true_time = time.time


def _seconds():
    try:
        with open(os.environ["CHAOS_CLOCK_STEP"]) as file:
            return float(file.read() or 0)
    except OSError:
        return 0.0


time.time = lambda: _true_time() + _seconds()
time.time_ns = lambda: int(time.time() * 1e9)
"""

HOUR = 3600


class Clock:
    """The time of day of all processes that are started from now on."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        directory.mkdir()
        (directory / "sitecustomize.py").write_text(SHIM)
        self._step = directory / "step"
        monkeypatch.setenv("PYTHONPATH", str(directory))
        monkeypatch.setenv("CHAOS_CLOCK_STEP", str(self._step))

    def step(self, seconds: float) -> None:
        """Set it to the true time and so many seconds."""
        beside = self._step.with_suffix(".new")
        beside.write_text(str(seconds))
        beside.replace(self._step)


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock of the cluster's own."""
    return Clock(tmp_path / "clock", monkeypatch)


@pytest.mark.parametrize("seconds", [-HOUR, HOUR])
def test_a_step_changes_nothing_now_or_for_later_leaders(start: Start, clock: Clock, seconds: float) -> None:
    run = start(heartbeat_timeout="10 s")
    before = run.in_second()
    clock.step(seconds)
    # The standby began before the step; the one that replaces the first leader, after it.
    for epoch in (2, 3):
        kill(run.leader())
        run.running("second", 4, epoch=epoch)
    outcome = run.finish()
    check_undisturbed(run, before, outcome)
    assert [failover["verdicts"]["continued"] for failover in outcome.report["failovers"]] == [4, 4]


def test_a_restart_that_is_due_does_not_wait_for_the_clock_to_catch_up(
    start: Start, job: GatedJob, clock: Clock
) -> None:
    unruly(job, "fails")
    run = start(restart__strategy_fixed__delay_delay="8 s")
    run.in_second()
    run.job.open("deed")
    eventually(lambda: (view := run.progress()) and view["last-failure"], "the task has failed")
    clock.step(-HOUR)
    for _ in range(2):
        leader = run.leader()
        kill(leader)
        run.leader(not_pid=leader["pid"])
    eventually(lambda: (0, 1) in run.job.starts("second"), "the task runs again")
    outcome = run.finish()
    assert outcome.code == 0, outcome.stderr
    assert begun_once(run.job.starts("second"), attempts=(0, 1))
