"""A JobManager process, talked to as a TaskManager does, over a real connection and a real log."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import aiohttp
import pytest

from flinkjob.api.errors import CorruptedLog, InvalidInput, InvalidOption
from flinkjob.api.flinkjob import parse_manifest
from flinkjob.election.filestore import FileLeaseStore, empty_lease
from flinkjob.election.record import LeaseRecord
from flinkjob.graph.states import ExecutionState
from flinkjob.jobmanager import connections
from flinkjob.jobmanager.job import Job
from flinkjob.jobmanager.process import JobManager, JobManagerOptions
from flinkjob.jobmanager.result import decode_result
from flinkjob.oplog.log import OperationLog
from flinkjob.oplog.storage import JobStorage
from flinkjob.rpc.codec import decode_from_jobmanager
from flinkjob.rpc.connection import TASKMANAGER_PATH, Connection, client_socket
from flinkjob.worker import protocol as msg

MANIFEST = """
apiVersion: flinkjob.io/v1alpha1
kind: FlinkJob
metadata: {name: two}
spec:
  flinkConfiguration:
    jobmanager.failover.operation-log-store: filesystem
    high-availability.kubernetes.leader-election.retry-period: 50 ms
  job:
    vertices:
      - {name: a, parallelism: 2, task: {command: ["true"]}}
"""

T = TypeVar("T", bound=msg.FromJobManager)


@dataclass
class Peer:
    """A TaskManager that does what the test says."""

    connection: Connection[msg.FromJobManager]
    batches: AsyncIterator[list[msg.FromJobManager]]
    heard: list[msg.FromJobManager]

    def register(
        self, *reports: msg.Report, name: str = "tm", job: str = "", version: int = msg.PROTOCOL_VERSION
    ) -> None:
        self.connection.send(msg.Register(version, job, name, "here", 2, reports))

    async def hears(self, kind: type[T]) -> T:
        """The next message of the kind; others before it are dropped."""
        async with asyncio.timeout(20):
            while True:
                while self.heard:
                    message = self.heard.pop(0)
                    if isinstance(message, kind):
                        return message
                self.heard.extend(await anext(self.batches))

    async def is_closed(self) -> bool:
        async with asyncio.timeout(20):
            async for batch in self.batches:
                self.heard.extend(batch)
        return True


@dataclass
class Running:
    """A JobManager that runs in this process."""

    manager: JobManager
    job: Job
    port: int
    stop: asyncio.Event
    task: asyncio.Task[None]

    async def end(self) -> None:
        """Stop it, and wait until it has."""
        self.stop.set()
        await self.task

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that the JobManager does by itself."""
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.01)

    @asynccontextmanager
    async def peer(self) -> AsyncIterator[Peer]:
        async with aiohttp.ClientSession() as session:
            ws = await client_socket(session, f"http://127.0.0.1:{self.port}{TASKMANAGER_PATH}")
            connection = Connection(ws, decode_from_jobmanager)
            try:
                yield Peer(connection, aiter(connection), [])
            finally:
                await connection.close()

    async def get(self, path: str) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.port}{path}", allow_redirects=False) as response,
        ):
            return response.status, await response.text()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


Start = Callable[..., Awaitable[Running]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    async with AsyncExitStack() as ends:

        async def started(name: str = "jm-0", *, leads: bool = True, **overrides: str) -> Running:
            settings = {"high-availability.storageDir": str(tmp_path / "ha"), **overrides}
            job = Job(parse_manifest(MANIFEST), overrides=settings, module_dir=tmp_path)
            port, stop = free_port(), asyncio.Event()
            manager = JobManager(job, JobManagerOptions(name, "127.0.0.1", port, f"127.0.0.1:{port}"))
            task = asyncio.create_task(manager.run(stop))
            running = Running(manager, job, port, stop, task)
            ends.push_async_callback(running.end)
            if leads:
                await running.until(lambda: manager.graph() is not None)
            return running

        yield started


def finished(deployment: msg.Deployment) -> msg.Report:
    return msg.Report(deployment.attempt, ExecutionState.FINISHED)


async def test_a_job_runs_to_its_end_over_the_connection(start: Start) -> None:
    running = await start()
    async with running.peer() as peer:
        peer.register()
        assert (await peer.hears(msg.Registered)).epoch == 1
        deploy = await peer.hears(msg.Deploy)
        peer.connection.send(msg.Reports(tuple(finished(d) for d in deploy.deployments)))
        assert len((await peer.hears(msg.Acknowledge)).attempts) == 2
        assert (await peer.hears(msg.JobOver)).status == "FINISHED"
    await running.until(lambda: running.job.storage.read_result() is not None)
    result = decode_result(running.job.storage.read_result() or b"")
    assert (result.state, [v.finished for v in result.vertices]) == ("FINISHED", [2])


async def test_ends_that_are_reported_together_are_acknowledged_together(start: Start) -> None:
    running = await start()
    async with running.peer() as peer:
        peer.register()
        attempts = [deployment.attempt for deployment in (await peer.hears(msg.Deploy)).deployments]
        assert len(attempts) == 2
        for attempt in attempts:  # one frame takes them both
            peer.connection.send(msg.Reports((msg.Report(attempt, ExecutionState.FINISHED),)))
        assert (await peer.hears(msg.Acknowledge)).attempts == tuple(attempts)


async def test_one_that_hangs_up_before_it_is_answered_is_no_error(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def gone(*_: object) -> None:
        raise ConnectionResetError("Cannot write to closing transport")

    running = await start()
    with monkeypatch.context() as patch:
        patch.setattr(aiohttp.web.WebSocketResponse, "prepare", gone)
        assert await running.get(TASKMANAGER_PATH) == (200, "")
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_running_task_is_continued_by_the_next_leader_without_a_word_to_it(start: Start) -> None:
    first = await start("jm-0")
    async with first.peer() as peer:
        peer.register()
        deploy = await peer.hears(msg.Deploy)
        running = [msg.Report(d.attempt, ExecutionState.RUNNING) for d in deploy.deployments]
        peer.connection.send(msg.Reports(tuple(running)))
        await first.until(lambda: (g := first.manager.graph()) is not None and g.count(ExecutionState.RUNNING) == 2)
    await first.end()
    second = await start("jm-1")
    async with second.peer() as peer:
        peer.register(*running)
        assert (await peer.hears(msg.Registered)).epoch == 2
        peer.connection.send(msg.Reports((finished(deploy.deployments[0]),)))
        assert await peer.hears(msg.Acknowledge)
        assert not [m for m in peer.heard if isinstance(m, msg.Deploy | msg.Cancel)]
    graph = second.manager.graph()
    assert graph is not None
    assert graph.failovers[-1].verdicts == {"continued": 2}


async def test_a_standby_refuses_and_names_the_leader(start: Start) -> None:
    leader = await start("jm-0")
    standby = await start("jm-1", leads=False)
    await standby.until(lambda: bool(standby.manager.leader_address()))
    async with standby.peer() as peer:
        peer.register()
        assert (await peer.hears(msg.Refused)).leader == f"127.0.0.1:{leader.port}"
    assert (await standby.get("/jobs"))[0] == 307
    assert (await standby.get("/readyz"))[0] == 200


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"job": "0" * 32}, "not " + "0" * 32), ({"version": 99}, "protocol version 99")],
    ids=["another job", "another protocol"],
)
async def test_a_taskmanager_that_does_not_fit_is_refused(start: Start, change: dict[str, object], reason: str) -> None:
    running = await start()
    async with running.peer() as peer:
        peer.register(**change)  # type: ignore[arg-type]  # one of two keywords of different types
        assert reason in (await peer.hears(msg.Refused)).reason


async def test_nonsense_closes_the_connection_and_nothing_else(start: Start) -> None:
    running = await start()
    async with running.peer() as good, running.peer() as bad:
        good.register(name="good")
        await good.hears(msg.Deploy)
        bad.register(name="bad")
        await bad.hears(msg.Registered)
        bad.register(name="bad")
        assert await bad.is_closed()
        good.connection.send(msg.Heartbeat())
        assert (await good.hears(msg.Alive)).epoch == 1


async def test_a_first_word_that_is_no_registration_closes_the_connection(start: Start) -> None:
    running = await start()
    async with running.peer() as peer:
        peer.connection.send(msg.Heartbeat())
        assert await peer.is_closed()
    graph = running.manager.graph()
    assert graph is not None
    assert graph.taskmanagers == []


async def test_a_new_connection_of_the_same_taskmanager_takes_the_place_of_the_old(start: Start) -> None:
    running = await start()
    async with running.peer() as old, running.peer() as new:
        old.register()
        deploy = await old.hears(msg.Deploy)
        new.register(*(msg.Report(d.attempt, ExecutionState.RUNNING) for d in deploy.deployments))
        await new.hears(msg.Registered)
        assert await old.is_closed()
        await running.until(lambda: (g := running.manager.graph()) is not None and g.count(ExecutionState.RUNNING) == 2)
    graph = running.manager.graph()
    assert graph is not None
    assert len(graph.taskmanagers) == 1


async def test_a_taskmanager_without_heartbeats_is_lost(start: Start) -> None:
    running = await start(**{"heartbeat.timeout": "300 ms", "heartbeat.interval": "100 ms"})
    async with running.peer() as peer:
        peer.register()
        await peer.hears(msg.Deploy)
        assert await peer.is_closed()
        await running.until(lambda: bool((g := running.manager.graph()) and g.taskmanagers[0].removed))
    graph = running.manager.graph()
    assert graph is not None
    assert "no heartbeat" in graph.taskmanagers[0].removed


async def test_one_that_waits_for_a_leader_is_let_go_by_a_jobmanager_that_stops(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a TaskManager is that calls again the leader which has just handed over."""
    monkeypatch.setattr(connections, "HOLD_TIMEOUT", 3600.0)
    running = await start("jm-0")
    store = FileLeaseStore(Path(running.job.storage.url) / "lease.json")
    held = await store.read()
    assert held is not None
    await store.compare_and_swap(held.version, LeaseRecord(holder="somebody", lease_duration=3600.0))
    await running.until(lambda: running.manager.leading() is None)
    async with running.peer() as peer:
        peer.register()
        running.stop.set()
        assert await peer.is_closed()


async def test_a_damaged_log_makes_the_leader_wait_for_a_person(start: Start) -> None:
    """What Blink and FLIP-383 did at once, to begin the job anew, is left to a person."""
    first = await start("jm-0")
    await first.end()
    segment = sorted((Path(first.job.storage.url) / "oplog").glob("*.log"))[0]
    segment.write_bytes(b"\0" * 20 + segment.read_bytes())
    second = await start("jm-1", leads=False)
    await second.until(lambda: bool(second.manager.problem()))
    assert segment.name in second.manager.problem()
    assert (await second.get("/readyz"))[0] == 503
    assert segment.name in (await second.get("/leader"))[1]
    assert segment.exists()


async def test_why_the_log_cannot_be_opened_is_told_and_another_try_mends_it(start: Start) -> None:
    first = await start("jm-0")
    await first.end()
    oplog = Path(first.job.storage.url) / "oplog"
    away = oplog.rename(oplog.with_name("away"))
    oplog.touch()
    manager = (second := await start("jm-1", leads=False)).manager
    await second.until(lambda: bool((leading := manager.leading()) and leading.problem))
    leading = manager.leading()
    assert leading is not None
    assert (leading.reason, leading.graph) == ("LogUnavailable", None)
    assert f"the operation log at {oplog.parent} cannot be opened" in leading.problem
    assert manager.problem() == "", "nobody has to come"
    assert (await second.get("/readyz"))[0] == 503
    oplog.unlink()
    away.rename(oplog)
    await second.until(lambda: bool((leading := manager.leading()) and leading.graph and not leading.problem))
    assert (await second.get("/readyz"))[0] == 200


async def test_a_trouble_does_not_outlast_its_term(start: Start) -> None:
    first = await start("jm-0")
    await first.end()
    segment = sorted((Path(first.job.storage.url) / "oplog").glob("*.log"))[0]
    sound = segment.read_bytes()
    segment.write_bytes(b"\0" * 20 + sound)
    second = await start("jm-1", leads=False)
    await second.until(lambda: bool(second.manager.problem()))
    segment.write_bytes(sound)
    assert empty_lease(Path(second.job.storage.url) / "lease.json", "jm-1")
    await second.until(lambda: second.manager.graph() is not None)
    assert second.manager.problem() == ""
    assert (await second.get("/readyz"))[0] == 200


async def test_a_term_that_fails_to_begin_after_the_next_one_has_says_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, hanging, go_on = OperationLog.open, threading.Event(), threading.Event()

    def fails_late(storage: JobStorage, leader: str) -> OperationLog:
        if hanging.is_set():
            return real(storage, leader)
        hanging.set()
        go_on.wait()
        raise CorruptedLog("the log cannot be read")

    monkeypatch.setattr(OperationLog, "open", fails_late)
    running = await start(leads=False)
    manager = running.manager
    await asyncio.to_thread(hanging.wait)
    late = manager._opening
    assert late is not None
    assert empty_lease(Path(running.job.storage.url) / "lease.json", "jm-0")
    await running.until(lambda: manager.graph() is not None)
    go_on.set()
    await asyncio.wait([late])
    leading = manager.leading()
    assert leading is not None
    assert leading.graph is not None
    assert leading.problem == manager.problem() == ""


async def test_fail_to_replay_log_will_fall_back_to_start_a_new_job(start: Start) -> None:
    """Blink ``JobMasterFailoverTest.testFailToReplayLogWillFallBackToStartANewJob`` and FLIP-383
    ``BatchJobRecoveryTest.testReplayEventFailed``; here only where that is wanted. The damaged log is set aside, and what
    still runs of the old run is stopped.
    """
    first = await start("jm-0")
    async with first.peer() as peer:
        peer.register()
        old = (await peer.hears(msg.Deploy)).deployments[0].attempt
    await first.end()
    segment = sorted((Path(first.job.storage.url) / "oplog").glob("*.log"))[0]
    segment.write_bytes(b"\0" * 20 + segment.read_bytes())
    second = await start("jm-1", **{"jobmanager.failover.on-corrupted-log": "restart"})
    graph = second.manager.graph()
    assert graph is not None
    assert (graph.epoch, graph.run) == (2, 2)
    assert list(Path(second.job.storage.url).glob("damaged-*/**/*.log"))
    async with second.peer() as peer:
        peer.register(msg.Report(old, ExecutionState.RUNNING))
        assert (await peer.hears(msg.Cancel)).attempts == (old,)
        peer.connection.send(msg.Reports((msg.Report(old, ExecutionState.CANCELED),)))
        await second.until(lambda: graph.count(ExecutionState.DEPLOYING) == 2)
    assert graph.failovers == []


async def test_a_leader_whose_epoch_is_over_gives_way(start: Start) -> None:
    running = await start()
    log = await asyncio.to_thread(OperationLog.open, running.job.storage, "usurper")
    assert log.epoch == 2
    async with running.peer() as peer:
        peer.register()
        assert await peer.is_closed()
        assert not [m for m in peer.heard if isinstance(m, msg.Deploy)]
    await running.until(lambda: (g := running.manager.graph()) is not None and g.epoch == 3)


async def test_connection_after_regaining_leadership(start: Start) -> None:
    """Blink ``JobMasterTest.testResourceManagerConnectionAfterRegainingLeadership``: there is no ResourceManager here, so
    it is the TaskManagers' connections that the same process takes up in its second term, and their tasks.
    """
    again = await start()
    async with again.peer() as peer:
        peer.register()
        deploy = await peer.hears(msg.Deploy)
        running = [msg.Report(d.attempt, ExecutionState.RUNNING) for d in deploy.deployments]
        peer.connection.send(msg.Reports(tuple(running)))
        await again.until(lambda: (g := again.manager.graph()) is not None and g.count(ExecutionState.RUNNING) == 2)
        await asyncio.to_thread(OperationLog.open, again.job.storage, "usurper")
        async with again.peer() as other:
            other.register(name="other")  # which is to be logged, and cannot
            assert await other.is_closed()
        assert await peer.is_closed()
    await again.until(lambda: (g := again.manager.graph()) is not None and g.epoch == 3)
    async with again.peer() as peer:
        peer.register(*running)
        assert (await peer.hears(msg.Registered)).epoch == 3
        graph = again.manager.graph()
        assert graph is not None
        await again.until(lambda: bool(graph.failovers))
    assert graph.failovers[-1].verdicts == {"continued": 2}


async def test_an_address_in_use_is_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = {"high-availability.storageDir": str(tmp_path)}
        job = Job(parse_manifest(MANIFEST), overrides=settings, module_dir=tmp_path)
        manager = JobManager(job, JobManagerOptions("jm", "127.0.0.1", port, ""))
        with pytest.raises(InvalidInput, match=f"127.0.0.1:{port} cannot be listened on"):
            await manager.run(asyncio.Event())


def test_a_job_needs_a_storage_directory_whatever_the_log_store(tmp_path: Path) -> None:
    none = {"jobmanager.failover.operation-log-store": "none"}
    with pytest.raises(InvalidOption, match=r"high-availability\.storageDir is not set"):
        Job(parse_manifest(MANIFEST), overrides=none, module_dir=tmp_path)
