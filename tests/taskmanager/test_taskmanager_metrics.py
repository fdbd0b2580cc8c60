"""What a TaskManager tells of itself over HTTP."""

import socket

import aiohttp
import pytest

from flinkjob.api.errors import InvalidInput
from flinkjob.taskmanager.metrics import serving_metrics, taskmanager_registry
from flinkjob.worker import events as ev
from flinkjob.worker import protocol as msg
from flinkjob.worker.taskexecutor import TaskExecutor


@pytest.fixture
def executor() -> TaskExecutor:
    return TaskExecutor(id="tm", job="", address="here", slots=2, now=0)


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
    return found


def register(executor: TaskExecutor) -> None:
    executor.handle(ev.Connected(""), now=1)
    executor.handle(msg.Registered(7, b"", "", 1000, 5000, 60_000, 1000), now=2)


def test_the_metrics_are_those_of_the_moment(executor: TaskExecutor) -> None:
    registry = taskmanager_registry(executor)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"flinkjob_taskmanager_{name}", labels)

    assert (value("registered"), value("epoch"), value("slots", state="free")) == (0, 0, 2)
    register(executor)
    deployments = tuple(msg.Deployment(msg.AttemptId(1, 0, subtask, 0)) for subtask in range(3))
    executor.handle(msg.Deploy(7, deployments), now=3)
    executor.handle(ev.Started(deployments[0].attempt), now=4)
    assert (value("registered"), value("epoch")) == (1, 7)
    assert (value("slots", state="used"), value("slots", state="free")) == (2, 0)
    assert (value("attempts", state="RUNNING"), value("attempts", state="DEPLOYING")) == (1, 2)
    assert value("queued_attempts") == 1
    executor.handle(ev.ConnectionLost(), now=5)
    assert (value("registered"), value("attempts", state="RUNNING")) == (0, 1)


async def test_it_is_ready_once_a_leader_has_taken_it_in_and_stays_so(executor: TaskExecutor, port: int) -> None:
    async with (
        serving_metrics(executor, host="127.0.0.1", port=port),
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        assert (await session.get("/healthz")).status == 200
        assert (await session.get("/readyz")).status == 503
        register(executor)
        assert (await session.get("/readyz")).status == 200
        executor.handle(ev.ConnectionLost(), now=5)
        assert (await session.get("/readyz")).status == 200
        answer = await session.get("/metrics")
        assert "flinkjob_taskmanager_epoch 7.0" in await answer.text()
        assert answer.headers["Content-Type"].startswith("text/plain")


async def test_a_port_that_is_taken_is_told(executor: TaskExecutor) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InvalidInput, match=f"127.0.0.1:{port} cannot be listened on"):
            async with serving_metrics(executor, host="127.0.0.1", port=port):
                pass
