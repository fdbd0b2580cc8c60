"""A JobManager whose storage is no path: what it needs to be told, and what it does where the store is not good enough."""

import asyncio
from pathlib import Path

import pytest

from flinkjob.api.errors import InvalidOption, UnsupportedStorage
from flinkjob.api.flinkjob import parse_manifest
from flinkjob.jobmanager.job import Job
from flinkjob.jobmanager.process import JobManager, JobManagerOptions
from flinkjob.oplog import object as medium
from flinkjob.oplog.objectstore import ObjectStore

MANIFEST = """
apiVersion: flinkjob.io/v1alpha1
kind: FlinkJob
metadata: {name: job}
spec:
  flinkConfiguration: {jobmanager.failover.operation-log-store: filesystem}
  job:
    vertices: [{name: only, task: {command: ["true"]}}]
"""


def job(storage_dir: str, directory: Path) -> Job:
    overrides = {"high-availability.storageDir": storage_dir}
    return Job(parse_manifest(MANIFEST), overrides=overrides, module_dir=directory)


def test_an_election_by_file_needs_a_path_where_the_storage_is_none(tmp_path: Path) -> None:
    told = r"--lease-file is needed: high-availability\.storageDir is 's3://bucket/ha.*', and the leader is elected by a file"
    with pytest.raises(InvalidOption, match=told):
        JobManager(job("s3://bucket/ha", tmp_path), JobManagerOptions("jm", "127.0.0.1", 1, ""))
    JobManager(
        job("s3://bucket/ha", tmp_path),
        JobManagerOptions("jm", "127.0.0.1", 1, "", lease_file=tmp_path / "lease.json"),
    )


def test_a_storage_that_one_process_sees_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidOption, match=r"high-availability\.storageDir: 'memory://ha' is seen by one process only"
    ):
        job("memory://ha", tmp_path)


async def test_a_store_that_cannot_keep_a_log_is_a_problem_that_is_shown_and_not_tried_again(
    s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(store: ObjectStore) -> None:
        asked.append(store)
        raise UnsupportedStorage(f"{store.location} cannot keep an operation log")

    monkeypatch.setattr(medium, "check_exclusive_creation", refuse)
    options = JobManagerOptions("jm", "127.0.0.1", 0, "", lease_file=tmp_path / "lease.json")
    manager, stop = JobManager(job(s3_url, tmp_path), options), asyncio.Event()
    running = asyncio.create_task(manager.run(stop))
    async with asyncio.timeout(30):
        while not manager.problem():
            await asyncio.sleep(0.01)
    assert "cannot keep an operation log" in manager.problem()
    assert not manager.ready()
    stop.set()
    await running
    assert len(asked) == 1
