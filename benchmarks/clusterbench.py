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
TASKMANAGERS = 50
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
    heard: list[tuple[str, float]] = field(default_factory=list)
    """What the simulated TaskManagers have told, and when it happened (milliseconds)."""
    hearing: list["asyncio.Task[None]"] = field(default_factory=list)

    @property
    def lease(self) -> Path:
        """The election's record."""
        return self.directory / "lease.json"

    async def start_jobmanager(self, name: str) -> None:
        """Start it, or start it again."""
        arguments = ["jobmanager", str(self.directory / "bench.yaml"), "--id", name, "--port", str(self.ports[name])]
        arguments += ["--lease-file", str(self.lease), "--set", f"high-availability.storageDir={self.directory / 'ha'}"]
        self.jobmanagers[name] = await start(name, arguments, log_file=self.directory / f"{name}.log")

    async def start_taskmanagers(self, count: int, slots: int, *, processes: int = 1, tell: bool = False) -> None:
        """Start simulated TaskManagers."""
        addresses = ",".join(f"127.0.0.1:{port}" for port in self.ports.values())
        for _ in range(processes):
            prefix = f"sim-{len(self.simulated)}-"
            command = [sys.executable, str(HERE / "simulated.py"), addresses, "--prefix", prefix]
            command += ["--count", str(count // processes), "--slots", str(slots), *(["--tell"] if tell else [])]
            process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            self.simulated.append(process)
            self.hearing.append(asyncio.create_task(self._hear(process)))

    async def _hear(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            told = json.loads(line)
            if "what" in told:
                self.heard.append((told["what"], told["at"]))

    async def told_since(self, at: float, what: str, count: int = 1) -> list[float]:
        """When this has happened after that moment, once it has happened so often."""
        async with asyncio.timeout(DEADLINE):
            while len(times := sorted(when for told, when in self.heard if told == what and when > at)) < count:
                await asyncio.sleep(0.01)
        return times

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
        """kill -9 of the leader; its name, when it was dead, and when its lease had been emptied (milliseconds).

        A task of the TaskManagers that were started first ends while nobody leads.
        """
        record = read_lease(self.lease)
        assert record is not None
        leader = self.jobmanagers[record.holder]
        leader.send(signal.SIGKILL)
        await leader.ended()
        died = time.time() * 1000
        self.simulated[0].send_signal(signal.SIGUSR1)
        await asyncio.to_thread(empty_lease, self.lease, leader.id)
        return leader.id, died, time.time() * 1000

    async def fail_over(self) -> tuple[float, float, dict[str, Any]]:
        """Kill the leader, and have a standby again once another has decided.

        Returns: when the leader was dead, when its lease had been emptied (milliseconds), and what its successor says.
        """
        before = (await self.get("/failovers"))["failover-count"]
        leader, died, emptied = await self.kill_leader()
        async with asyncio.timeout(DEADLINE):
            while (told := await self.get("/failovers")) is None or told["failover-count"] <= before:
                await asyncio.sleep(0.02)
        await self.start_jobmanager(leader)
        return died, emptied, told["failovers"][-1]

    async def stop(self) -> None:
        """End everything."""
        for process in self.simulated:
            if process.returncode is None:
                process.kill()
            await process.wait()
        for task in self.hearing:
            await task
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
    """In each, one task more than those ends while nobody leads, and one waits for its slot: the first to be deployed."""
    async with cluster(past=operations // 3, held=running + 1 + kills, snapshot=snapshot) as made:
        await made.start_taskmanagers(1, 1, tell=True)
        await made.start_taskmanagers(TASKMANAGERS, running // TASKMANAGERS, processes=2, tell=True)
        await made.until_running(running + 1)
        seen = []
        for _ in range(kills):
            seen.append(await _one_failover(made))
            await made.until_running(running + 1)
            await asyncio.sleep(2.0)  # the next standby has to be up before it is needed
    return {
        "kills": kills,
        "running": running,
        "runs": seen,
        **{name: round(statistics.median(one[name] for one in seen), 1) for name in seen[0]},
        "continued_least": min(one["continued"] for one in seen),
    }


async def _one_failover(made: Cluster) -> dict[str, float]:
    """What became of the tasks, and the phases in milliseconds."""
    died, emptied, told = await made.fail_over()
    replayed = told["started-at"] + told["replay-ms"]
    registered = (await made.told_since(died, "registered", TASKMANAGERS + 1))[-1]
    # The leader has a TaskManager's report before that one has the answer.
    registered = min(registered, told["decided-at"])
    deployed = (await made.told_since(died, "deployed"))[0]
    return {
        "gap": deployed - died,
        "detect": emptied - died,
        "elect": told["started-at"] - emptied,
        "replay": told["replay-ms"],
        "reconnect": registered - replayed,
        "reconcile": told["decided-at"] - registered,
        "first_decision": deployed - told["decided-at"],
        "replayed_operations": told["replayed-operations"],
        "continued": told["verdicts"]["continued"],
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


async def _storm(taskmanagers: int, *, kills: int = 3) -> dict[str, Any]:
    async with cluster(past=0, held=taskmanagers + kills, snapshot=False) as made:
        async with asyncio.timeout(DEADLINE):
            while await made.get("/progress") is None:
                await asyncio.sleep(0.05)
        record = read_lease(made.lease)
        assert record is not None
        empty = _rss_mb(made.jobmanagers[record.holder].pid)
        await made.start_taskmanagers(taskmanagers, 1, processes=2)
        await made.until_running(taskmanagers)
        full = _rss_mb(made.jobmanagers[record.holder].pid)
        settled = []
        for _ in range(kills):
            died, _, told = await made.fail_over()
            settled.append((told["decided-at"] - died) / 1000)
            await made.until_running(taskmanagers)
            await asyncio.sleep(2.0)
    return {
        "storm_taskmanagers": taskmanagers,
        "storm_settled_s": round(statistics.median(settled), 2),
        "storm_settled_s_runs": [round(one, 2) for one in settled],
        "storm_continued": told["verdicts"]["continued"],
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
