"""A job in the middle of its life, and a backend that serves it: what the tests of the REST API ask about."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from flinkjob.api.errors import LogUnavailable
from flinkjob.api.job import InputSpec, Partitioner, TaskSpec, VertexSpec
from flinkjob.api.options import Configuration
from flinkjob.graph import operations as ops
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.jobgraph import JobGraph
from flinkjob.graph.states import ExecutionState, JobStatus
from flinkjob.jobmanager.rest import RestBackend, add_rest_routes
from flinkjob.jobmanager.rest_values import ConnectedTaskManager
from flinkjob.jobmaster.preview import FailoverPreview, preview_failover
from flinkjob.worker.protocol import AttemptId, Progress

T = 1_764_000_000_000
"""When the sample job began; it is asked about 60 s later."""

Client = TestClient[web.Request, web.Application]


def _vertex(name: str, parallelism: int, **inputs: Partitioner) -> VertexSpec:
    return VertexSpec(
        name=name,
        parallelism=parallelism,
        task=TaskSpec(command=("true",)),
        inputs=tuple(InputSpec(source=source, partitioner=partitioner) for source, partitioner in inputs.items()),
    )


@pytest.fixture
def graph() -> ExecutionGraph:
    """``read`` has a subtask that finished, one in its second attempt and one running; a failover lies behind."""
    vertices = (
        _vertex("read", 3),
        _vertex("count", 2, read=Partitioner.HASH),
        _vertex("report", 1, count=Partitioner.REBALANCE, read=Partitioner.BROADCAST),
    )
    graph = ExecutionGraph(JobGraph.build(job_id="0123456789abcdef" * 2, name="word count <1>", vertices=vertices))
    running = ExecutionState.RUNNING
    graph.apply_all(
        [
            ops.EpochStarted(1, "jobmanager-0", T),
            ops.TaskManagerRegistered("tm-1", "10.0.0.1:6122", 2, T + 10),
            ops.TaskManagerRegistered("tm-2", "10.0.0.2:6122", 2, T + 20),
            ops.JobStatusChanged(JobStatus.RUNNING, T + 30),
            *(ops.TaskDeploying(0, subtask, 0, subtask // 2, T + 100) for subtask in range(3)),
            *(ops.TaskStateChanged(0, subtask, 0, running, T + 300) for subtask in range(3)),
            ops.TaskFinished(0, 0, 0, T + 5_000, ops.ResultPartition(1_000, 10, 7), {"words": 9, "ratio": 0.5}),
            ops.TaskFailed(0, 1, 0, T + 6_000, "ValueError: no such word\n  in line 3"),
            ops.RestartScheduled(((0, 1),), T + 7_000, "ValueError", ops.RestartState(restarts=1), T + 6_000),
            ops.TasksReset(0, (1,), T + 7_000),
            ops.TaskDeploying(0, 1, 1, 0, T + 7_100),
            ops.TaskStateChanged(0, 1, 1, running, T + 7_500),
            ops.EpochStarted(2, "jobmanager-1", T + 20_000),
            ops.JobStatusChanged(JobStatus.RECONCILING, T + 20_001, "the leader changed"),
            ops.FailoverCompleted(
                epoch=2, leader="jobmanager-1", cause="jobmanager-0 was lost", started_at=T + 19_900, replayed_operations=18,
                replay_ms=1.5, reconcile_ms=80.0, decided_at=T + 20_090, verdicts={"continued": 1, "restarted": 1},
                restarted=(ops.RestartedTask(1, 1, "not reported"),),
            ),
            ops.JobStatusChanged(JobStatus.RUNNING, T + 20_100),
        ]
    )  # fmt: skip
    return graph


@dataclass(kw_only=True)
class Backend:
    """A JobManager of which only the REST API is real."""

    served: ExecutionGraph | None
    leader: str
    calls: list[str]
    is_ready: bool = True
    storage_works: bool = True
    id: str = "jobmanager-1"
    address: str = "127.0.0.1:8081"
    version: str = "0.1.0"
    configuration: Configuration = field(
        default_factory=lambda: Configuration(
            {"restart-strategy.type": "fixed-delay", "high-availability.storageDir": "s3://me:pass/word@store/jobs"}
        )
    )

    def graph(self) -> ExecutionGraph | None:
        return self.served

    def leader_address(self) -> str:
        return self.leader

    def ready(self) -> bool:
        return self.is_ready

    def problem(self) -> str:
        return ""

    def now_ms(self) -> int:
        return T + 60_000

    def connected(self) -> Mapping[str, ConnectedTaskManager]:
        return {
            "tm-1": ConnectedTaskManager(last_heartbeat=T + 59_000, free_slots=1),
            "tm-2": ConnectedTaskManager(last_heartbeat=T + 58_000, free_slots=1),
        }

    def progress(self) -> Mapping[AttemptId, Progress]:
        said = [
            Progress(AttemptId(1, 0, 1, 1), 0.5, 20, 2_000),
            Progress(AttemptId(1, 0, 1, 0), 0.9, 999, 999),  # a former attempt
            Progress(AttemptId(9, 0, 2, 0), 0.9, 999, 999),  # of another run
        ]
        return {progress.attempt: progress for progress in said}

    async def preview(self) -> FailoverPreview:
        assert self.served is not None
        return preview_failover(self.served, connected=lambda id: id == "tm-1")

    async def cancel(self) -> None:
        if not self.storage_works:
            raise LogUnavailable("cannot write oplog/2: No space left on device")
        self.calls.append("cancel")


@pytest.fixture
def calls() -> list[str]:
    """What the backend was told to do."""
    return []


@pytest.fixture
def make_backend(graph: ExecutionGraph, calls: list[str]) -> Callable[..., RestBackend]:
    """Makes a leader, unless told otherwise by the fields of `Backend`."""

    def make(**fields: Any) -> RestBackend:
        usual: dict[str, Any] = {"served": graph, "leader": "127.0.0.1:8081", "calls": calls}
        return Backend(**(usual | fields))

    return make


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[RestBackend], Awaitable[Client]]]:
    """Serves a backend over a real socket."""
    clients: list[Client] = []

    async def start(backend: RestBackend) -> Client:
        app = web.Application()
        add_rest_routes(app, backend)
        client = TestClient(TestServer(app))
        clients.append(client)
        await client.start_server()
        return client

    yield start
    for client in clients:
        await client.close()


@pytest.fixture
async def client(serve: Callable[[RestBackend], Awaitable[Client]], make_backend: Callable[..., RestBackend]) -> Client:
    """Speaks to a leader that serves the sample job."""
    return await serve(make_backend())
