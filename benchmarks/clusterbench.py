"""Speed of whole JobManagers: failovers with a thousand running tasks, and ten thousand TaskManagers at once.

Two JobManager processes, a real log and a real lease; the TaskManagers are simulated (`simulated.py`). What the local
cluster does when a process dies is done here, too: the dead leader's lease is emptied.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from flinkjob.api.errors import StorageError
from flinkjob.api.flinkjob import parse_manifest
from flinkjob.election.filestore import empty_lease, read_lease
from flinkjob.graph import operations as ops
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.jobgraph import JobGraph
from flinkjob.graph.states import ExecutionState, JobStatus
from flinkjob.jobmanager.job import Job
from flinkjob.local.processes import Process, start
from flinkjob.oplog.log import OperationLog

HERE = Path(__file__).parent
MAX_PARALLELISM = 32_768
DEADLINE = 120.0


def manifest_of(past: int, held: int) -> str:
    """A job with ``past`` tasks that have finished already and ``held`` tasks that run on."""
    vertices = [{"name": "hold", "parallelism": held, "task": {"command": ["true"]}}]
    while past:
        parallelism = min(past, MAX_PARALLELISM)
        vertices.append({"name": f"past{len(vertices)}", "parallelism": parallelism, "task": {"command": ["true"]}})
        past -= parallelism
    return yaml.safe_dump(
        {
            "apiVersion": "flinkjob.io/v1alpha1",
            "kind": "FlinkJob",
            "metadata": {"name": "bench"},
            "spec": {
                "flinkConfiguration": {"jobmanager.failover.operation-log-store": "filesystem"},
                "job": {"vertices": vertices},
            },
        }
    )


def past_of(job: JobGraph) -> Iterator[ops.Operation]:
    """What happened before the benchmark: every task but the held ones has finished, on a TaskManager that is gone."""
    now = int(time.time() * 1000)
    yield ops.EpochStarted(1, "past", now)
    yield ops.JobStatusChanged(JobStatus.RUNNING, now)
    yield ops.TaskManagerRegistered("past", "here", 8, now)
    for vertex in job.vertices[1:]:
        for subtask in range(vertex.parallelism):
            yield ops.TaskDeploying(vertex.index, subtask, 0, 0, now)
            yield ops.TaskStateChanged(vertex.index, subtask, 0, ExecutionState.RUNNING, now)
            yield ops.TaskFinished(vertex.index, subtask, 0, now)
    yield ops.TaskManagerRemoved(0, "it belongs to the past", now)


async def write_past(job: Job, *, snapshot: bool) -> int:
    """Write that into the job's log, with a snapshot near its end if wanted; returns how many operations it is."""
    graph = ExecutionGraph(await job.graph())
    opened = OperationLog.open(job.storage, "past")
    for _ in opened.replay():
        pass

    def failed(error: StorageError) -> None:
        raise error

    writer = opened.writer(on_durable=lambda lsn: None, on_failed=failed)
    written = list(past_of(graph.job_graph))
    early = len(written) - min(1_000, len(written) // 2)
    graph.apply_all(written[:early])
    writer.append(written[:early])
    if snapshot:
        await writer.write_snapshot(graph.lsn, graph.snapshot())
    writer.append(written[early:])
    await writer.close()
    return len(written)


@dataclass
class Cluster:
    """Two JobManagers and their simulated TaskManagers."""

    directory: Path
    job: Job
    session: aiohttp.ClientSession
    jobmanagers: dict[str, Process] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    simulated: list[asyncio.subprocess.Process] = field(default_factory=list)

    @property
    def lease(self) -> Path:
        """The election's record."""
        return self.directory / "lease.json"

    async def start_jobmanager(self, name: str) -> None:
        """Start it, or start it again."""
        arguments = ["jobmanager", str(self.directory / "bench.yaml"), "--id", name, "--port", str(self.ports[name])]
        arguments += ["--lease-file", str(self.lease), "--set", f"high-availability.storageDir={self.directory / 'ha'}"]
        self.jobmanagers[name] = await start(name, arguments, log_file=self.directory / f"{name}.log")

    async def start_taskmanagers(self, count: int, slots: int, *, processes: int = 1) -> None:
        """Start simulated TaskManagers."""
        addresses = ",".join(f"127.0.0.1:{port}" for port in self.ports.values())
        for number in range(processes):
            command = [sys.executable, str(HERE / "simulated.py"), addresses, "--prefix", f"sim-{number}-"]
            command += ["--count", str(count // processes), "--slots", str(slots)]
            process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            self.simulated.append(process)

    async def get(self, path: str) -> Any:
        """Ask the leader; None while nobody answers."""
        record = read_lease(self.lease)
        if record is None or not record.address:
            return None
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            url = f"http://{record.address}/jobs/{self.job.id}{path}"
            async with self.session.get(url, allow_redirects=False) as answer:
                return await answer.json() if answer.status == 200 else None
        return None

    async def until_running(self, tasks: int) -> None:
        """Wait until so many tasks are RUNNING."""
        async with asyncio.timeout(DEADLINE):
            while True:
                job = await self.get("/progress")
                if job and sum(v["tasks"]["RUNNING"] for v in job["vertices"]) == tasks and job["state"] == "RUNNING":
                    return
                await asyncio.sleep(0.05)

    async def kill_leader(self) -> tuple[str, float, float]:
        """kill -9 of the leader; its name, when it was dead, and when its lease had been emptied (milliseconds)."""
        record = read_lease(self.lease)
        assert record is not None
        leader = self.jobmanagers[record.holder]
        leader.send(signal.SIGKILL)
        await leader.ended()
        died = time.time() * 1000
        await asyncio.to_thread(empty_lease, self.lease, leader.id)
        return leader.id, died, time.time() * 1000

    async def failover(self, *, running: int) -> dict[str, float]:
        """Kill the leader and take the time, in milliseconds, of what follows; then have a standby again."""
        before = (await self.get("/failovers"))["failover-count"]
        leader, died, emptied = await self.kill_leader()
        async with asyncio.timeout(DEADLINE):
            while (told := await self.get("/failovers")) is None or told["failover-count"] <= before:
                await asyncio.sleep(0.02)
        latest = told["failovers"][-1]
        await self.start_jobmanager(leader)
        return {
            "gap": latest["decided-at"] - died,
            "detect": emptied - died,
            "elect": latest["started-at"] - emptied,
            "replay": latest["replay-ms"],
            "reconnect_and_reconcile": latest["reconcile-ms"],
            "replayed_operations": latest["replayed-operations"],
            "continued": latest["verdicts"]["continued"],
            "running": running,
        }

    async def stop(self) -> None:
        """End everything."""
        for process in self.simulated:
            if process.returncode is None:
                process.kill()
            await process.wait()
        for jobmanager in self.jobmanagers.values():
            await jobmanager.stop(5.0)


@contextlib.asynccontextmanager
async def cluster(*, past: int, held: int, snapshot: bool) -> AsyncIterator[Cluster]:
    """A cluster with a past."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        text = manifest_of(past, held)
        (directory / "bench.yaml").write_text(text)
        overrides = {"high-availability.storageDir": str(directory / "ha")}
        job = Job(parse_manifest(text), overrides=overrides, module_dir=directory)
        await write_past(job, snapshot=snapshot)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
            made = Cluster(directory, job, session, ports={"jobmanager-0": _free_port(), "jobmanager-1": _free_port()})
            try:
                for jobmanager in made.ports:
                    await made.start_jobmanager(jobmanager)
                yield made
            finally:
                await made.stop()


async def _failovers(*, operations: int, snapshot: bool, kills: int, running: int = 1_000) -> dict[str, Any]:
    async with cluster(past=operations // 3, held=running, snapshot=snapshot) as made:
        await made.start_taskmanagers(50, running // 50, processes=2)
        await made.until_running(running)
        seen = []
        for _ in range(kills):
            seen.append(await made.failover(running=running))
            await made.until_running(running)
            await asyncio.sleep(2.0)  # the next standby has to be up before it is needed
    return {
        "kills": kills,
        "gaps_ms": [round(one["gap"]) for one in seen],
        **{name: round(statistics.median(one[name] for one in seen), 1) for name in seen[0]},
        "continued_least": min(one["continued"] for one in seen),
    }


def failover(kills: int = 7) -> dict[str, Any]:
    """The gap of a failover with 1,000 running tasks: 100,000 operations in the log; and 1,000,000 with a snapshot."""
    plain = asyncio.run(_failovers(operations=100_000, snapshot=False, kills=kills))
    large = asyncio.run(_failovers(operations=1_000_000, snapshot=True, kills=kills))
    return {
        "failover_gap_ms": plain["gap"],
        "failover_continued_of": [plain["continued_least"], plain["running"]],
        "failover": plain,
        "failover_1m_with_snapshot_gap_ms": large["gap"],
        "failover_1m_with_snapshot": large,
    }


async def _storm(taskmanagers: int) -> dict[str, Any]:
    async with cluster(past=0, held=taskmanagers, snapshot=False) as made:
        async with asyncio.timeout(DEADLINE):
            while await made.get("/progress") is None:
                await asyncio.sleep(0.05)
        record = read_lease(made.lease)
        assert record is not None
        empty = _rss_mb(made.jobmanagers[record.holder].pid)
        await made.start_taskmanagers(taskmanagers, 1, processes=2)
        await made.until_running(taskmanagers)
        full = _rss_mb(made.jobmanagers[record.holder].pid)
        seen = await made.failover(running=taskmanagers)
    return {
        "storm_taskmanagers": taskmanagers,
        "storm_settled_s": seen["gap"] / 1000,
        "storm_continued": seen["continued"],
        "memory_per_taskmanager_kb": (full - empty) * 1024 / taskmanagers,
    }


def storm() -> dict[str, Any]:
    """10,000 TaskManagers on one JobManager: how long until all have reconnected and reconciled after a failover."""
    return asyncio.run(_storm(10_000))


def _rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


BENCHMARKS = {"failover": failover, "storm": storm}

if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    print(json.dumps({name: BENCHMARKS[name]() for name in sys.argv[1:] or BENCHMARKS}, indent=2))
