"""The job of the soak: splits, a hash exchange, snapshots every few operations; its tasks fail where they are told to."""

from pathlib import Path

from local.clusters import GatedJob

LEASE = 2
"""Seconds."""

SPLITS = 120
KEYS = 7

MODULE = """
import json
import os
import time
from pathlib import Path

from flinkjob import Split


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def begin(context):
    path = Path(context.args["dir"]) / f"{context.vertex}-{context.subtask}-{context.attempt}.mark"
    # It has been forked by the fork server, whose parent is the TaskManager.
    mark = {"pid": os.getpid(), "taskmanager": parent_of(os.getppid()), "began": ""}
    with path.open("a") as file:
        file.write(json.dumps(mark) + "\\n")


def numbers(args):
    for number in range(args["splits"]):
        yield Split(payload=number)


def obey(context):
    if (Path(context.args["dir"]) / f"{context.vertex}-{context.subtask}-{context.attempt}.fail").exists():
        raise RuntimeError("told to fail")


def read(context):
    begin(context)
    for split in context.splits():
        obey(context)
        time.sleep(0.15)
        context.emit((split.payload % context.args["keys"], split.payload))
        context.add("splits", 1)


def add(context):
    begin(context)
    sums = {}
    for key, number in context.read():
        sums[key] = sums.get(key, 0) + number
    for _ in range(40):
        obey(context)
        time.sleep(0.1)
    for key, total in sums.items():
        context.emit((key, total))


def collect(context):
    begin(context)
    for item in sorted(context.read()):
        context.emit(item)
"""

MANIFEST = """
apiVersion: flinkjob.io/v1alpha1
kind: FlinkJob
metadata: {{name: soak, uid: chaos}}
spec:
  flinkConfiguration:
    restart-strategy.type: fixed-delay
    restart-strategy.fixed-delay.attempts: 1000
    restart-strategy.fixed-delay.delay: 1 ms
    heartbeat.timeout: 15 s
    high-availability.kubernetes.leader-election.lease-duration: {lease} s
    high-availability.kubernetes.leader-election.renew-deadline: 1500 ms
    high-availability.kubernetes.leader-election.retry-period: 300 ms
    jobmanager.failover.snapshot-interval-operations: 40
  jobManager: {{replicas: 2}}
  taskManager: {{replicas: 2, taskSlots: 2}}
  job:
    vertices:
      - name: read
        parallelism: 8
        task: {{python: "soak:read", args: {{dir: "{dir}", keys: {keys}}}}}
        splits: {{python: "soak:numbers", args: {{splits: {splits}}}}}
      - name: add
        parallelism: 6
        task: {{python: "soak:add", args: {{dir: "{dir}"}}}}
        inputs: [{{from: read, partitioner: hash}}]
      - {{name: collect, task: {{python: "soak:collect", args: {{dir: "{dir}"}}}}, inputs: [{{from: add}}]}}
"""

VERTICES = ("read", "add", "collect")

RESULT = {"collect": [[key, sum(range(key, SPLITS, KEYS))] for key in range(KEYS)]}


class SoakJob(GatedJob):
    """A job of three vertices with splits and a hash exchange; its tasks tell of their starts as gated ones do."""

    @classmethod
    def create(cls, path: Path) -> "SoakJob":
        """Write the files."""
        path.mkdir()
        (path / "soak.py").write_text(MODULE)
        job = cls(path)
        job.manifest.write_text(MANIFEST.format(dir=path, lease=LEASE, splits=SPLITS, keys=KEYS))
        return job

    def fail(self, vertex: str, subtask: int, attempt: int) -> None:
        """Have an attempt fail, unless it ends before it looks."""
        (self.path / f"{vertex}-{subtask}-{attempt}.fail").touch()


def log_of(state: Path) -> Path:
    """Where the job's log is."""
    return state / "storage" / "default" / "soak-chaos" / "oplog"
