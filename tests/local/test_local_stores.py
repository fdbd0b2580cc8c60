"""A job whose log and partitions lie in an object store, through a failover."""

import json
import os
import subprocess
import sys
from pathlib import Path

TUTORIAL = Path(__file__).parents[2] / "examples" / "tutorial" / "tutorial.yaml"


def test_a_job_on_s3_is_continued_by_the_next_leader(s3_environment: dict[str, str], s3_url: str) -> None:
    command = [sys.executable, "-m", "flinkjob", "run", str(TUTORIAL), "--kill-leader-at", "50%", "--output", "json"]
    command += ["--set", f"high-availability.storageDir={s3_url}"]
    run = subprocess.run(command, env={**os.environ, **s3_environment}, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert report["outputs"]["report"][0] == "61\tthe"
    assert report["tasks"] == {"total": 13, "finished": 13, "restarted": 0}
    assert [failover["epoch"] for failover in report["failovers"]] == [2]
