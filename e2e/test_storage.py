"""The log on a remote store: what the tasks must not notice there either."""

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.engine import ADDRESS, OUTSIDE
from jobs import Job
from stores.seaweed import BUCKET, s3_server

PATIENT = {"taskmanager.reconnection.timeout": "10 min", "heartbeat.timeout": "10 s"}


def test_a_log_on_s3_outlives_its_leader(job: Job, tmp_path: Path) -> None:
    """The server runs beside the cluster; pods have its credentials from a Secret, and its address from their environment."""
    nodes = job.kubernetes.nodes
    if nodes is None or nodes.engine.address != ADDRESS:
        pytest.skip("only pods of the cluster that has an engine of its own have a way to this machine")
    remote = replace(job, storage=f"s3://{BUCKET}/ha")
    with s3_server(tmp_path, bind="0.0.0.0") as environment:
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
