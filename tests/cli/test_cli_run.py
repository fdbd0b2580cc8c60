"""``flinkjob run``: what it prints where, and how it ends."""

from pathlib import Path

import pytest

from .conftest import MANIFEST, Call

VERDICTS = {"continued", "advanced", "redeployed", "restarted", "orphaned"}


def test_the_json_report_is_all_that_standard_output_has(flinkjob: Call, job: Path) -> None:
    answer = flinkjob("run", job, "--output", "json")
    assert answer.code == 0
    report = answer.json
    assert set(report["job"]) >= {"id", "name", "state", "duration_ms"}
    assert len(report["job"]["id"]) == 32
    assert (report["job"]["name"], report["job"]["state"]) == ("small", "FINISHED")
    assert report["job"]["duration_ms"] > 0
    assert report["vertices"] == [
        {"name": "numbers", "parallelism": 2, "finished": 2, "attempts": 2},
        {"name": "sum", "parallelism": 1, "finished": 1, "attempts": 1},
    ]
    assert report["tasks"] == {"total": 3, "finished": 3, "restarted": 0}
    assert report["accumulators"] == {"numbers": 6}
    assert report["failovers"] == []
    assert report["outputs"] == {"sum": [6]}
    # What people want to know is told all the same, elsewhere.
    assert "Job small is FINISHED" in answer.err
    assert "jobmanager-0 leads" in answer.err


def test_the_text_report_has_result_and_accumulators(flinkjob: Call, job: Path) -> None:
    answer = flinkjob("run", job)
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[0].startswith("Job small is FINISHED after ")
    assert lines[0].endswith(": 3 of 3 tasks finished, 0 restarted")
    assert lines[1:] == ["Accumulators: numbers 6", "Result of sum:", "  6"]
    assert "jobmanager-0 leads" in answer.err


def test_a_killed_leader_is_part_of_both_reports(flinkjob: Call, job: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    task = f'"small:add_after_failover", args: {{lease: {state}/lease.json}}'
    job.write_text(MANIFEST.replace('"small:add"', task))
    answer = flinkjob(
        "run", job, "--jobmanagers", 2, "--kill-leader-at", "0%", "--output", "json", "--state-dir", state
    )
    assert answer.code == 0
    (failover,) = answer.json["failovers"]
    assert set(failover) >= {
        *("epoch", "leader", "cause", "detected_ms", "replayed_operations", "replay_ms", "reconcile_ms", "gap_ms"),
        *("verdicts", "restarted"),
    }
    assert set(failover["verdicts"]) == VERDICTS
    assert failover["epoch"] == 2
    assert "killing the leader" in answer.err
    assert "is gone: its process was killed by SIGKILL" in answer.err
    text = flinkjob("run", job, "--state-dir", state)
    assert "Failovers of the JobManager" in text.out
    assert failover["leader"] in text.out


def test_a_kill_that_the_job_was_too_quick_for_is_told(flinkjob: Call, job: Path) -> None:
    answer = flinkjob("run", job, "--kill-leader-at", "0%", *["--kill-leader-at", "99%"] * 2)
    assert answer.code == 0
    assert answer.err.count("the job ended before the leader could be killed at 99%") == 2


def test_an_option_that_is_set_wins_over_the_manifest(flinkjob: Call, job: Path, tmp_path: Path) -> None:
    storage = tmp_path / "elsewhere"
    answer = flinkjob("run", job, "--set", f"high-availability.storageDir={storage}", "--set", "heartbeat.timeout= 9 s")
    assert answer.code == 0
    (directory,) = (storage / "default").iterdir()
    assert directory.name.startswith("small-")
    assert (directory / "result").exists()


def test_environment_variables_stand_in_for_flags(
    flinkjob: Call, job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLINKJOB_RUN_OUTPUT", "json")
    monkeypatch.setenv("FLINKJOB_RUN_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("FLINKJOB_SET", f"heartbeat.timeout=9 s; high-availability.storageDir = {tmp_path}/elsewhere")
    answer = flinkjob("run", job)
    assert answer.json["job"]["state"] == "FINISHED"
    assert (tmp_path / "state" / "job.json").exists()
    assert (tmp_path / "elsewhere" / "default").exists()
    monkeypatch.setenv("FLINKJOB_RUN_OUTPUT", "xml")
    refused = flinkjob("run", job)
    assert refused.code == 2
    assert "xml" in refused.err


def test_without_a_state_directory_nothing_is_left(
    flinkjob: Call, job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    assert flinkjob("run", job).code == 0
    assert list(temporary.iterdir()) == []


def test_a_changed_manifest_is_another_job(flinkjob: Call, job: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert flinkjob("run", job, "--state-dir", state).code == 0
    job.write_text(MANIFEST.replace("count: 3", "count: 4"))
    answer = flinkjob("run", job, "--state-dir", state)
    assert answer.code == 2
    assert "another version of it" in answer.err
