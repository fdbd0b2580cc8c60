"""Speed and memory of the core without processes: the log, the replay, the graph, the JobMaster's decisions."""

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from flinkjob.api.errors import StorageError
from flinkjob.api.job import TaskSpec, VertexSpec
from flinkjob.graph import operations as ops
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.jobgraph import JobGraph
from flinkjob.graph.states import ExecutionState, JobStatus
from flinkjob.jobmaster import events as ev
from flinkjob.jobmaster.deciding import JobMasterOptions
from flinkjob.jobmaster.master import JobMaster
from flinkjob.jobmaster.restart import NoRestart
from flinkjob.oplog.log import OperationLog
from flinkjob.oplog.storage import JobStorage
from flinkjob.worker.protocol import Deploy, Report

MAX_PARALLELISM = 32_768
NOW = 1_764_000_000_000


def job_of(tasks: int) -> JobGraph:
    """A job of that many independent tasks."""
    vertices: list[VertexSpec] = []
    while tasks:
        parallelism = min(tasks, MAX_PARALLELISM)
        name = f"v{len(vertices)}"
        vertices.append(VertexSpec(name=name, parallelism=parallelism, task=TaskSpec(command=("true",))))
        tasks -= parallelism
    return JobGraph.build(job_id="0" * 32, name="bench", vertices=vertices)


def life(job: JobGraph) -> Iterator[ops.Operation]:
    """The operations of a job in which every task is deployed, runs and finishes."""
    yield ops.EpochStarted(1, "bench", NOW)
    yield ops.JobStatusChanged(JobStatus.RUNNING, NOW)
    yield ops.TaskManagerRegistered("tm", "here", 8, NOW)
    partition = ops.ResultPartition(65_536, 1_000, 0xCAFEBABE)
    for vertex in job.vertices:
        for subtask in range(vertex.parallelism):
            at = NOW + subtask
            yield ops.TaskDeploying(vertex.index, subtask, 0, 0, at)
            yield ops.TaskStateChanged(vertex.index, subtask, 0, ExecutionState.RUNNING, at)
            yield ops.TaskFinished(vertex.index, subtask, 0, at, partition)


def log(operations: int, *, runs: int = 5) -> dict[str, float]:
    """The medians of several runs of `_log`."""
    taken = [_log(operations) for _ in range(runs)]
    return {name: statistics.median(one[name] for one in taken) for name in taken[0]}


def _log(operations: int) -> dict[str, float]:
    """Append real operations to a log on local disk until they are durable, then replay them into a graph."""
    job = job_of(operations // 3)
    written = list(life(job))
    with tempfile.TemporaryDirectory() as directory:
        storage = JobStorage(directory)
        append_s = asyncio.run(_append(storage, written))
        size = sum(path.stat().st_size for path in Path(directory).glob("oplog/*.log"))
        began = time.perf_counter()
        replay = OperationLog.open(storage, "successor").replay()
        graph = ExecutionGraph(job)
        for block in replay:
            graph.apply_all(block)
        replay_s = time.perf_counter() - began
    if graph.count(ExecutionState.FINISHED) != job.total_tasks:
        raise RuntimeError("the replayed graph is not the one that was logged")
    return {
        "log_append_ops_per_s": len(written) / append_s,
        "replay_ops_per_s": len(written) / replay_s,
        "log_bytes_per_task": size / job.total_tasks,
    }


async def _append(storage: JobStorage, written: list[ops.Operation]) -> float:
    opened = OperationLog.open(storage, "bench")
    for _ in opened.replay():
        pass

    def failed(error: StorageError) -> None:
        raise error

    writer = opened.writer(on_durable=lambda lsn: None, on_failed=failed)
    began = time.perf_counter()
    for start in range(0, len(written), 1000):
        writer.append(written[start : start + 1000])
        if writer.lag > 50_000:
            await writer.wait_durable(writer.last_lsn - 25_000)
    await writer.wait_durable(writer.last_lsn)
    elapsed = time.perf_counter() - began
    await writer.close()
    return elapsed


def decide(tasks: int, *, slots: int = 64) -> float:
    """Seconds in which a JobMaster takes a job from its start to its end, with a TaskManager that ends every task at once."""
    job = job_of(tasks)
    master = JobMaster(ExecutionGraph(job), JobMasterOptions(60_000, 50_000, NoRestart()))
    began = time.perf_counter()
    decision = master.start(epoch=1, leader="bench", now=NOW)
    decision = master.handle(ev.TaskManagerConnected("tm", "here", slots, ()), NOW)
    while not master.graph.status.terminal:
        deployed = [
            deployment.attempt
            for effect in decision.effects
            if isinstance(effect, ev.Send) and isinstance(effect.message, Deploy)
            for deployment in effect.message.deployments
        ]
        running = tuple(Report(attempt, ExecutionState.RUNNING) for attempt in deployed)
        finished = tuple(Report(attempt, ExecutionState.FINISHED) for attempt in deployed)
        ops.encode_operations(master.handle(ev.TasksReported("tm", running), NOW).operations)
        decision = master.handle(ev.TasksReported("tm", finished), NOW)
        ops.encode_operations(decision.operations)
    return time.perf_counter() - began


def scaling() -> dict[str, float]:
    """What a task costs the JobMaster in a job of 100,000 tasks, against one of 1,000."""
    small = statistics.median(decide(1_000) for _ in range(15)) / 1_000
    large = statistics.median(decide(100_000) for _ in range(5)) / 100_000
    return {
        "cost_per_task_us_1k": small * 1e6,
        "cost_per_task_us_100k": large * 1e6,
        "cost_per_task_100k_over_1k": large / small,
    }


def memory(*, runs: int = 3) -> dict[str, float]:
    """Peak memory of a process with a JobManager's modules that takes a million subtasks through their lives."""
    command = [sys.executable, __file__]
    taken = [
        float(subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent).stdout)
        for _ in range(runs)
    ]
    return {"graph_1m_rss_mb": statistics.median(taken)}


def _memory() -> float:
    import flinkjob.jobmanager.process  # noqa: F401  # its weight counts

    decide(1_000_000, slots=1024)
    # Not getrusage's maximum, which begins with that of the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


BENCHMARKS: dict[str, Callable[[], dict[str, float]]] = {
    "log": lambda: log(1_000_000),
    "scaling": scaling,
    "memory": memory,
}

if __name__ == "__main__":
    print(_memory())
