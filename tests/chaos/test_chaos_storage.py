"""A log that cannot be written: nothing that follows from unwritten operations happens, and nothing is lost."""

from pathlib import Path
from typing import Any

import pytest

from local.clusters import (
    RESULT,
    GatedJob,
    Run,
    begun_once,
    check_nobody_is_left,
    check_undisturbed,
    eventually,
    everybody,
    operations,
)

from .conftest import Start
from .faults import FullDisk, ReadOnly
from .unruly import unruly

Outage = FullDisk | ReadOnly

LOOKS = 20
"""How often the leader is asked again before what it holds back is taken to be held."""


@pytest.fixture
def job(job: GatedJob) -> GatedJob:
    """The gated job under a uid that the test knows; what its second vertex reports is longer than a page."""
    unruly(job, "counts_much")
    job.manifest.write_text(job.manifest.read_text().replace("name: gated}", "name: gated, uid: chaos}"))
    return job


def tasks_of(view: Any, vertex: str) -> dict[str, int]:
    """The vertex's tasks, counted by state."""
    (found,) = (v["tasks"] for v in view["vertices"] if v["name"] == vertex)
    return {state: count for state, count in found.items() if count}


def partitions_of(run: Run, vertex: int) -> list[Path]:
    """What the tasks of a vertex have written."""
    return list((run.state / "storage").rglob(f"partitions/*/{vertex}-*-*"))


def test_what_is_not_in_the_log_has_no_effect_until_it_can_be_written(
    start: Start, oplog: Path, outage: Outage
) -> None:
    run = start()
    before = run.in_second()
    outage.begin()
    try:
        run.job.open("second")
        view = eventually(
            lambda: (view := run.progress()) and tasks_of(view, "second") == {"FINISHED": 4} and view,
            "the leader knows that all tasks have finished",
        )
        # It has decided to deploy the last task, too; but nobody is told.
        for _ in range(LOOKS):
            assert tasks_of(view, "total") == {"DEPLOYING": 1}
            assert partitions_of(run, 2) == []
            view = run.progress()
            assert view["epoch"] == 1
    finally:
        outage.end()
    pids = everybody(run)
    outcome = run.end()
    check_undisturbed(run, before, outcome)
    assert outcome.report["failovers"] == []
    assert {operation["epoch"] for operation in operations(run)} == {1}
    check_nobody_is_left(pids)


def test_a_leader_that_cannot_write_for_too_long_steps_down_and_the_job_goes_on_later(
    start: Start, oplog: Path, outage: Outage
) -> None:
    run = start(jobmanager_failover_operation__log__write__deadline="1 s")
    before = run.in_second()
    leader, standby = ((run.state / "logs" / f"{entry['id']}.log") for entry in (run.leader(), run.standby()))
    outage.begin()
    try:
        run.job.open("second")
        eventually(lambda: "could not be written" in leader.read_text(), "the leader says that it cannot write")
        eventually(lambda: "the term is over" in standby.read_text(), "the next one cannot write either")
        eventually(lambda: len(partitions_of(run, 1)) == 4, "all tasks have finished")
    finally:
        outage.end()
    assert "the term is over: the operation log at" in leader.read_text()
    pids = everybody(run)
    outcome = run.end()
    assert "Traceback" not in leader.read_text() + standby.read_text()
    check_undisturbed(run, before, outcome)
    failover = outcome.report["failovers"][-1]
    assert failover["epoch"] > 1
    assert failover["verdicts"]["restarted"] == 0
    check_nobody_is_left(pids)


def test_a_disk_that_is_full_for_everybody_costs_only_what_could_not_be_kept(start: Start, tmp_path: Path) -> None:
    disk = FullDisk(tmp_path / "state" / "storage")
    disk.path.mkdir(parents=True)
    if reason := disk.prepare():
        pytest.skip(reason)
    try:
        # A pause and a budget that outlast the fault, as anybody would choose who expects such faults.
        fixed = "restart__strategy_fixed__delay_"
        run = start(**{fixed + "delay": "1 s", fixed + "attempts": "100"})
        before = run.in_second()
        disk.begin()
        run.job.open("second")
        eventually(
            lambda: (view := run.progress()) and "No space left on device" in view["last-failure"],
            "a task has failed for want of space",
        )
        disk.end()
        pids = everybody(run)
        outcome = run.end()
        assert outcome.code == 0, outcome.stderr
        assert outcome.report["outputs"] == RESULT
        assert begun_once(run.job.starts("first"))
        after = run.job.starts("second")
        assert before.items() <= after.items()
        assert begun_once(after, attempts=tuple(range(101)))
        finished = [op for op in operations(run) if op["operation"] == "TaskFinished"]
        assert len({(op["vertex"], op["subtask"]) for op in finished}) == len(finished) == 7
        check_nobody_is_left(pids)
    finally:
        disk.remove()
