"""The log on each kind of store, on a full volume, and a damaged one: what the tasks must not notice there either."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from cluster.engine import ADDRESS, OUTSIDE
from cluster.kindcluster import Cluster
from jobs import Job
from kubernetes_cluster import RESTRICTED, eventually
from stores.hadoop import HdfsMissing, hdfs_cluster
from stores.seaweed import BUCKET, KEY, SECRET, identities, weed

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


def check_outlives_its_leader(job: Job, **spec: Any) -> None:
    """The leader of a job with a log on some store is lost, and its tasks do not notice."""
    job.create(**spec, flinkConfiguration={**PATIENT, "high-availability.storageDir": job.storage})
    before = job.holding()
    job.kubectl("delete", "pod", job.leader(), "--force", "--grace-period=0")
    job.unnoticed(before, epoch=2)
    job.finish()
    assert job.starts() == job.once()
    # While its store is there.
    job.remove()


def test_a_log_on_s3_in_the_cluster_outlives_its_leader(job: Job) -> None:
    """Pods have the server's address from their environment, and the credentials from a Secret."""
    secret = {"FSSPEC_S3_KEY": KEY, "FSSPEC_S3_SECRET": SECRET}
    endpoint = [{"name": "FSSPEC_S3_ENDPOINT_URL", "value": f"http://seaweed.{job.namespace}.svc:{_S3_PORT}"}]
    job.apply(
        _named("Secret", "s3", job, stringData=secret),
        _named("ConfigMap", "seaweed", job, data={"s3.json": identities()}),
        _seaweed_pod(job, endpoint),
    )
    job.kubectl("expose", "pod/seaweed", f"--port={_S3_PORT}")
    job.kubectl("wait", "pod/seaweed", "--for=condition=ContainersReady", "--timeout=120s")
    with Path(weed()).open("rb") as program:
        job.kubernetes.send(program, job.namespace, "seaweed", "cat > /tmp/weed && chmod +x /tmp/weed && touch /tmp/go")
    eventually(lambda: job.in_pod("seaweed", "python3", "-c", _MAKE_BUCKET), "the server serves and has a bucket")
    check_outlives_its_leader(replace(job, storage=f"s3://{BUCKET}/ha"), env=endpoint, secrets=["s3"])


_S3_PORT = 8333
_SERVE = f"""
until [ -e /tmp/go ]; do sleep 0.1; done
exec /tmp/weed server -dir=/tmp -ip=127.0.0.1 -ip.bind=0.0.0.0 -filer -s3 -s3.port={_S3_PORT} -volume.max=50 \\
    -s3.config=/etc/seaweed/s3.json -s3.port.iceberg=0 -s3.port.lance=0 -master.telemetry=false
"""
_MAKE_BUCKET = f"""
import fsspec
filesystem = fsspec.filesystem("s3")
filesystem.makedirs("{BUCKET}", exist_ok=True)
filesystem.pipe_file("{BUCKET}/first", b"the server makes its volumes now")
print("made")
"""


def _seaweed_pod(job: Job, endpoint: list[dict[str, str]]) -> dict[str, Any]:
    """A server of S3 in the cluster, in the project's image; it waits for its program."""
    container = {
        "name": "seaweed",
        "image": job.kubernetes.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-ec", _SERVE],
        "env": endpoint,
        "envFrom": [{"secretRef": {"name": "s3"}}],
        "securityContext": RESTRICTED,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": "config", "mountPath": "/etc/seaweed"}],
    }
    spec = {
        "containers": [container],
        "securityContext": {"fsGroup": 10001},
        "terminationGracePeriodSeconds": 1,
        "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "config", "configMap": {"name": "seaweed"}}],
    }
    return _named("Pod", "seaweed", job, spec=spec)


def _named(kind: str, name: str, job: Job, **fields: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": job.namespace, "labels": {"app": name}}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **fields}


def test_a_log_on_hdfs_outlives_its_leader(job: Job, nodes: Cluster, tmp_path: Path) -> None:
    """A NameNode and a DataNode beside the cluster."""
    if nodes.engine.address != ADDRESS:
        pytest.skip("only pods of the cluster that has an engine of its own have a way to this machine")
    try:
        with hdfs_cluster(tmp_path, address=OUTSIDE) as hdfs:
            check_outlives_its_leader(replace(job, storage=f"{hdfs.url}/ha"))
    except HdfsMissing as error:
        pytest.skip(str(error))


def test_a_full_volume_holds_back_what_is_decided_and_no_task(job: Job, nodes: Cluster) -> None:
    """Nothing new is decided while the log cannot grow, and nobody can follow the leader; then all goes on as it was."""
    node = nodes.workers()[0]
    pinned = {"podTemplate": {"spec": {"nodeSelector": {"kubernetes.io/hostname": node}}}}
    with _small_volume(nodes, node, job) as volume:
        job = replace(job, directory=volume.directory)
        job.create(
            # With a snapshot after each, the newest file of the log is empty, and the next operation needs room.
            flinkConfiguration={
                **PATIENT,
                "jobmanager.failover.operation-log-write-deadline": "10 min",
                "jobmanager.failover.snapshot-interval-operations": 1,
            },
            jobManager={"replicas": 2, **pinned},
            taskManager={"replicas": 2, "taskSlots": 2, **pinned},
        )
        before = job.holding()
        eventually(lambda: volume.newest_segment_is_empty(), "the last snapshot is taken")
        volume.fill()
        job.kubectl("scale", "flinkjob", job.name, "--replicas=3")
        eventually(lambda: job.condition("Protected")["reason"] == "LogNotWritable", "the resource says so")
        assert "No space left on device" in job.condition("Protected")["message"]
        assert job.holding(protected=False) == before
        volume.free()
        eventually(lambda: job.condition("Protected")["status"] == "True", "the job is protected again")
        eventually(lambda: job.status()["taskManagers"] == {"wanted": 3, "ready": 3}, "three TaskManagers are ready")
        job.unnoticed(before)

        job.kubectl("scale", "flinkjob", job.name, "--replicas=2")
        eventually(lambda: job.status()["taskManagers"] == {"wanted": 2, "ready": 2}, "two TaskManagers are ready")
        places = job.kubernetes.places(job.namespace, job.name)
        assert {(task.container, task.processes) for task in before.values()} == set(places.values())
        volume.fill()
        job.kubectl("delete", "pod", job.leader(), "--force", "--grace-period=0")
        eventually(lambda: len(volume.claims()) > 3, "several have tried to lead")
        assert job.condition("Protected")["status"] == job.condition("Ready")["status"] == "False"
        assert not job.status().get("failoverHistory"), "nobody leads"
        assert job.kubernetes.places(job.namespace, job.name) == places
        volume.free()
        eventually(lambda: job.status()["leader"]["epoch"] > 1, "somebody leads")
        job.unnoticed(before, job.status()["leader"]["epoch"])
        job.finish()
        assert job.starts() == job.once()
        job.remove()


@dataclass(frozen=True, slots=True)
class _Volume:
    """A volume of 16 MiB on a node."""

    nodes: Cluster
    node: str
    directory: str

    def fill(self) -> None:
        """Leave not a page of it."""
        self._sh("! dd if=/dev/zero of=ballast bs=64k 2> /dev/null")

    def free(self) -> None:
        """Take away what it was filled with."""
        self._sh("rm ballast")

    def claims(self) -> list[str]:
        """The epochs that somebody has claimed in the log."""
        return self._sh("ls */*/oplog | grep 000000.log || true").split()

    def newest_segment_is_empty(self) -> bool:
        """Whether the newest file of the log is."""
        return bool(self._sh("test -s $(ls -d */*/oplog/*.log | tail -n 1) || echo empty"))

    def _sh(self, script: str) -> str:
        return self.nodes.on_node(self.node, "sh", "-ec", f"cd {self.directory} && {script}")


@contextlib.contextmanager
def _small_volume(nodes: Cluster, node: str, job: Job) -> Iterator[_Volume]:
    directory = f"/var/local/{job.namespace}"
    nodes.on_node(node, "mkdir", directory)
    nodes.on_node(node, "mount", "-t", "tmpfs", "-o", "size=16m,mode=1777", "tmpfs", directory)
    try:
        yield _Volume(nodes, node, directory)
    finally:
        nodes.on_node(node, "umount", directory)
        nodes.on_node(node, "rmdir", directory)


def test_a_damaged_log_is_set_aside_and_the_job_runs_anew_where_it_is_told_to(job: Job) -> None:
    """The tasks that run are nobody's then: they end, and each task begins once more. The result is exact all the same."""
    job.create(flinkConfiguration={**PATIENT, "jobmanager.failover.on-corrupted-log": "restart"})
    before = job.holding()
    damaged = _turn(job, before["hold", 0].pod)
    job.kubectl("delete", "pod", job.leader(), "--force", "--grace-period=0")
    after = job.holding(epoch=2)
    assert set(job.starts().values()) == {2}, "each task has begun once more"
    assert all(task.attempt == before[key].attempt for key, task in after.items()), "as the first attempt of a new run"
    aside = job.in_pod(after["hold", 0].pod, "ls", f"{job.data()}/damaged-1/oplog")
    assert damaged in aside.split()
    job.finish()


def test_a_damaged_log_waits_for_a_person_and_the_tasks_go_on(job: Job) -> None:
    """The new leader says what it found and decides nothing; once the log is mended, all is as it was."""
    job.create(flinkConfiguration=PATIENT)
    before = job.holding()
    worker = before["hold", 0].pod
    damaged = _turn(job, worker)
    dead = job.leader()
    job.kubectl("delete", "pod", dead, "--force", "--grace-period=0")
    eventually(
        lambda: damaged in (job.status().get("jobStatus") or {}).get("error", ""), "the resource tells which file it is"
    )
    eventually(lambda: job.condition("Protected")["status"] == "False", "nobody claims that the job is protected")
    eventually(lambda: job.condition("Ready")["reason"] == "LogUnreadable", "the job is not ready, and why")
    assert job.state() not in ("FINISHED", "FAILED", "CANCELED")
    assert job.starts() == job.once()
    assert _turn(job, worker) == damaged
    job.kubectl("delete", "pod", job.leader(), "--force", "--grace-period=0")
    eventually(lambda: job.status()["leader"]["epoch"] > 1, "a leader goes on")
    job.unnoticed(before, job.status()["leader"]["epoch"])
    job.finish()
    assert job.starts() == job.once()


def _turn(job: Job, pod: str) -> str:
    """Damage the log from within a pod, or mend it; the name of the file."""
    return job.in_pod(pod, "python3", "-c", _TURN, f"{job.data()}/oplog").strip()
