"""A job whose log and partitions lie in a store that is no file system, through a failover."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from docs.blocks import run_by
from stores.hadoop import Hdfs
from stores.seaweed import BUCKET, S3

from .clusters import RESULT, Run, alive, check_undisturbed, eventually, kill, pids_of

Start = Callable[..., Run]

EXAMPLES = Path(__file__).parents[2] / "examples"
TUTORIAL = EXAMPLES / "tutorial" / "tutorial.yaml"
WORDCOUNT = EXAMPLES / "wordcount" / "wordcount.yaml"


@pytest.fixture(params=["s3", pytest.param("hdfs", marks=pytest.mark.hdfs)])
def storage_dir(request: pytest.FixtureRequest) -> str:
    """A storage directory on each kind of store, which processes started from now on can reach."""
    if request.param == "s3":
        request.getfixturevalue("s3_environment")
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


def test_a_job_is_finished_exactly_though_its_leader_was_killed(storage_dir: str) -> None:
    command = [sys.executable, "-m", "flinkjob", "run", str(TUTORIAL), "--kill-leader-at", "50%", "--output", "json"]
    command += ["--set", f"high-availability.storageDir={storage_dir}"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert report["outputs"]["report"][0] == "61\tthe"
    assert report["accumulators"] == {"words": 49}
    assert report["tasks"] == {"total": 13, "finished": 13, "restarted": 0}
    assert [failover["epoch"] for failover in report["failovers"]] == [2]


def test_the_pages_commands_find_the_object_store(s3_environment: dict[str, str]) -> None:
    (block,) = run_by("tests/local/test_local_stores.py")
    text = block.text.replace("http://127.0.0.1:8333", s3_environment["FSSPEC_S3_ENDPOINT_URL"])
    text = text.replace("job.yaml", str(TUTORIAL)).replace("s3://bucket/", f"s3://{BUCKET}/pages-")
    text = text.replace("flinkjob run", f"{sys.executable} -m flinkjob run")
    others = {name: value for name, value in os.environ.items() if name not in s3_environment}
    run = subprocess.run(["bash", "-euc", text], env=others, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stderr
    assert "61    the" in run.stdout


@pytest.mark.hdfs  # because it takes a minute, like those of HDFS
@pytest.mark.timeout(600)
def test_the_main_job_counts_as_a_single_process_does_though_two_leaders_were_killed(
    storage_dir: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "flinkjob", "run", str(WORDCOUNT), "--output", "json"]
    command += ["--kill-leader-at", "40%", "--kill-leader-at", "70%"]
    command += ["--set", f"high-availability.storageDir={storage_dir}"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert report["tasks"] == {"total": 17, "finished": 17, "restarted": 0}
    assert [failover["epoch"] for failover in report["failovers"]] == [2, 3]
    (tmp_path / "report.json").write_text(run.stdout)
    compare = [sys.executable, str(WORDCOUNT.with_suffix(".py")), str(tmp_path / "report.json")]
    compared = subprocess.run(compare, capture_output=True, text=True, timeout=400)
    assert compared.returncode == 0, compared.stdout + compared.stderr


def test_every_running_task_is_continued_and_the_log_can_be_looked_at(start: Start, storage_dir: str) -> None:
    run = start(high__availability_storageDir=storage_dir)
    before = run.in_second()
    dead = run.leader()
    kill(dead)
    run.leader(but=dead["id"])
    run.running("second", 4, epoch=2)
    assert all(alive(pid) for pid in pids_of(before))
    outcome = run.finish()
    check_undisturbed(run, before, outcome)
    (failover,) = outcome.report["failovers"]
    assert failover["verdicts"]["continued"] == 4
    assert sorted(path.name for path in run.state.iterdir() if path.is_dir()) == ["logs", "work"]
    uid = json.loads((run.state / "job.json").read_text())["uid"]
    command = [sys.executable, "-m", "flinkjob", "log", "verify", f"{storage_dir}/default/gated-{uid}"]
    verified = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert verified.returncode == 0, verified.stderr


@pytest.mark.usefixtures("s3_environment")
def test_an_s3_server_that_dies_and_comes_back_loses_nothing(start: Start, s3: S3, s3_url: str) -> None:
    """Nobody can read or write anything while tasks end and the leader wants to log it."""
    run = start(high__availability_storageDir=s3_url)
    before = run.in_second()
    s3.kill()
    try:
        run.job.open("second")
        s3.asked_in_vain(
            8
        )  # twice by each of them at the least, or by the leader; such attempts may fail, and run again
    finally:
        s3.start()
    outcome = run.finish()
    assert outcome.code == 0, outcome.stderr
    assert outcome.report["outputs"] == RESULT
    assert set(run.job.starts("first")) == {(0, 0), (1, 0)}, "what had finished was not run again"
    assert before.items() <= run.job.starts("second").items()


@pytest.mark.usefixtures("s3_environment")
def test_a_leader_and_the_s3_server_that_die_together_lose_nothing(start: Start, s3: S3, s3_url: str) -> None:
    """The new leader finds a log that nobody can read yet, and every task runs on meanwhile."""
    run = start(high__availability_storageDir=s3_url)
    before = run.in_second()
    dead = run.leader()
    s3.kill()
    try:
        kill(dead)
        s3.asked_in_vain(3)  # by the next leader: tasks have nothing to ask for
    finally:
        s3.start()
    run.leader(not_pid=dead["pid"])
    eventually(lambda: (run.progress() or {}).get("state") == "RUNNING", "the job goes on")
    assert all(alive(pid) for pid in pids_of(before))
    check_undisturbed(run, before, run.finish())


@pytest.mark.hdfs
def test_a_datanode_that_dies_and_comes_back_loses_nothing(start: Start, hdfs: Hdfs, hdfs_url: str) -> None:
    """Its only copy of everything is away while tasks end and the leader wants to log it."""
    run = start(high__availability_storageDir=hdfs_url)
    before = run.in_second()
    hdfs.kill_datanode()
    run.job.open("second")  # their partitions cannot be written now: such attempts fail, and are run again
    back = threading.Thread(target=hdfs.start_datanode)
    back.start()
    outcome = run.finish()
    back.join()
    assert outcome.code == 0, outcome.stderr
    assert outcome.report["outputs"] == RESULT
    assert outcome.report["job"]["state"] == "FINISHED"
    assert set(run.job.starts("first")) == {(0, 0), (1, 0)}, "what had finished was not run again"
    assert set(before) <= set(run.job.starts("second"))


@pytest.mark.hdfs
def test_a_leader_and_the_datanode_that_die_together_lose_nothing(start: Start, hdfs: Hdfs, hdfs_url: str) -> None:
    """The new leader finds a log that nobody can read yet, and every task runs on meanwhile."""
    run = start(high__availability_storageDir=hdfs_url)
    before = run.in_second()
    dead = run.leader()
    hdfs.kill_datanode()
    kill(dead)
    back = threading.Thread(target=hdfs.start_datanode)
    back.start()
    back.join()
    # The NameNode may have asked the DataNode that died to recover the log's last block; it asks again after 30 heartbeats.
    run.leader(not_pid=dead["pid"], deadline=150.0)
    eventually(lambda: (run.progress() or {}).get("state") == "RUNNING", "the job goes on")
    assert all(alive(pid) for pid in pids_of(before))
    check_undisturbed(run, before, run.finish())
