"""The log on a remote store, and a damaged one: what the tasks must not notice there either."""

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.engine import ADDRESS, OUTSIDE
from jobs import STORAGE, Job
from kubernetes_cluster import eventually
from stores.seaweed import BUCKET, s3_server

PATIENT = {"taskmanager.reconnection.timeout": "10 min", "heartbeat.timeout": "10 s"}

# Turns a byte in the middle of the log's largest file around; done twice it is as it was.
_TURN = """
import pathlib, sys
path = max(pathlib.Path(sys.argv[1]).rglob('*'), key=lambda path: path.stat().st_size if path.is_file() else -1)
data = bytearray(path.read_bytes())
data[len(data) // 3] ^= 0xFF
with path.open('r+b') as file:
    file.write(data)
print(path.name)
"""


def test_a_log_on_s3_outlives_its_leader(job: Job, tmp_path: Path) -> None:
    """The server runs beside the cluster; pods have its credentials from a Secret, and its address from their environment."""
    nodes = job.kubernetes.nodes
    if nodes is None or nodes.engine.address != ADDRESS:
        pytest.skip("only pods of the cluster that has an engine of its own have a way to this machine")
    remote = replace(job, storage=f"s3://{BUCKET}/ha")
    with s3_server(tmp_path, bind="0.0.0.0") as s3:
        environment = dict(s3.environment)
        endpoint = environment.pop("FSSPEC_S3_ENDPOINT_URL").replace("127.0.0.1", OUTSIDE)
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "s3", "namespace": remote.namespace},
            "stringData": environment,
        }
        remote.apply(secret)
        remote.create(
            env=[{"name": "FSSPEC_S3_ENDPOINT_URL", "value": endpoint}],
            secrets=["s3"],
            flinkConfiguration={**PATIENT, "high-availability.storageDir": remote.storage},
        )
        before = remote.holding()
        dead = remote.leader()
        remote.kubectl("delete", "pod", dead, "--force", "--grace-period=0")
        assert remote.holding(epoch=2) == before
        remote.finish()
        assert remote.starts() == dict.fromkeys(range(4), 1)
        remote.remove()


def test_a_damaged_log_waits_for_a_person_and_the_tasks_go_on(job: Job) -> None:
    """The new leader says what it found and decides nothing; once the log is mended, all is as it was."""
    job.create(flinkConfiguration=PATIENT)
    before = job.holding()
    worker = before["hold", 0].pod
    uid = job.get()["metadata"]["uid"]
    turn = ("python3", "-c", _TURN, f"{STORAGE}/{job.namespace}/{job.name}-{uid}/oplog")
    damaged = job.in_pod(worker, *turn).strip()
    dead = job.leader()
    job.kubectl("delete", "pod", dead, "--force", "--grace-period=0")
    eventually(
        lambda: damaged in (job.status().get("jobStatus") or {}).get("error", ""), "the resource tells which file it is"
    )
    eventually(lambda: job.condition("Protected")["status"] == "False", "nobody claims that the job is protected")
    eventually(lambda: job.condition("Ready")["reason"] == "LogUnreadable", "the job is not ready, and why")
    assert job.state() not in ("FINISHED", "FAILED", "CANCELED")
    assert job.starts() == dict.fromkeys(range(4), 1)
    assert job.in_pod(worker, *turn).strip() == damaged
    job.kubectl("delete", "pod", job.leader(), "--force", "--grace-period=0")
    eventually(lambda: job.status()["leader"]["epoch"] > 1, "a leader goes on")
    assert job.holding(job.status()["leader"]["epoch"]) == before
    job.finish()
    assert job.starts() == dict.fromkeys(range(4), 1)
