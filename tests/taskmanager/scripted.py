"""A JobManager that does as the test says, and a TaskManager process for it to talk to."""

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from aiohttp import web

from flinkjob.api.errors import ProtocolViolation
from flinkjob.api.job import VertexSpec
from flinkjob.graph.jobgraph import JobGraph
from flinkjob.graph.states import ExecutionState
from flinkjob.rpc.codec import decode_from_taskmanager
from flinkjob.rpc.connection import TASKMANAGER_PATH, Connection, server_socket
from flinkjob.worker import protocol as msg
from flinkjob.worker.protocol import AttemptId, Report

RUN = 1

M = TypeVar("M")

START = """
import asyncio, json, sys
from flinkjob.rpc.tls import TlsFiles
from flinkjob.taskmanager.main import TaskManagerOptions, run_taskmanager
values = json.loads(sys.argv[1])
tls = TlsFiles(**values.pop("tls")) if "tls" in values else None
sys.exit(asyncio.run(run_taskmanager(TaskManagerOptions(**values, tls=tls))))
"""


def graph_of(*vertices: VertexSpec) -> JobGraph:
    """A JobGraph of these vertices."""
    return JobGraph.build(job_id="0" * 32, name="job", vertices=vertices)


def attempt(vertex: int = 0, subtask: int = 0, number: int = 0) -> AttemptId:
    """An attempt of the run."""
    return AttemptId(RUN, vertex, subtask, number)


@dataclass(eq=False)
class Peer:
    """A TaskManager's connection, seen from the JobManager."""

    connection: Connection[msg.FromTaskManager]
    websocket: web.WebSocketResponse
    inbox: list[msg.FromTaskManager] = field(default_factory=list)
    closed: bool = False
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    epoch: int = 0
    silent: bool = False

    async def serve(self) -> None:
        """Read to the end; heartbeats are answered."""
        try:
            async for batch in self.connection:
                for message in batch:
                    if isinstance(message, msg.Heartbeat) and self.epoch and not self.silent:
                        self.connection.send(msg.Alive(self.epoch))
                    self.inbox.append(message)
                async with self.changed:
                    self.changed.notify_all()
        except ProtocolViolation:
            await self.connection.close()
        self.closed = True
        async with self.changed:
            self.changed.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until what has arrived fulfils the condition."""
        async with self.changed:
            await self.changed.wait_for(condition)

    async def first(self, kind: type[M]) -> M:
        """The first message of this type; it is taken out of the inbox."""
        await self.until(lambda: self.closed or any(isinstance(message, kind) for message in self.inbox))
        found = next(message for message in self.inbox if isinstance(message, kind))
        self.inbox.remove(found)
        return found

    @property
    def reports(self) -> list[Report]:
        """All reports so far, those of the registration first."""
        reports: list[Report] = []
        for message in self.inbox:
            if isinstance(message, (msg.Register, msg.Reports)):
                reports += message.reports
        return reports

    async def report(self, id: AttemptId, *states: ExecutionState) -> Report:
        """The first report of the attempt in one of these states (any terminal one if none is named)."""

        def matching() -> list[Report]:
            wanted = states or tuple(state for state in ExecutionState if state.terminal)
            return [report for report in self.reports if report.attempt == id and report.state in wanted]

        await self.until(lambda: self.closed or bool(matching()))
        assert matching(), f"the connection has ended; reports: {self.reports}"
        return matching()[0]

    def send(self, message: msg.FromJobManager) -> None:
        """Send a message."""
        self.connection.send(message)

    def accept(self, graph: JobGraph, storage: Path, *, epoch: int = 1, **times: int) -> None:
        """Take the TaskManager in."""
        self.epoch = epoch
        defaults = {
            "heartbeat_interval_ms": 200,
            "heartbeat_timeout_ms": 10_000,
            "reconnection_timeout_ms": 60_000,
            "cancellation_timeout_ms": 30_000,
        }
        self.send(msg.Registered(epoch, graph.encode(), str(storage), **(defaults | times)))

    def deploy(self, *deployments: msg.Deployment | AttemptId) -> None:
        """Deploy attempts, by default without inputs."""
        made = (d if isinstance(d, msg.Deployment) else msg.Deployment(d) for d in deployments)
        self.send(msg.Deploy(self.epoch, tuple(made)))

    def cancel(self, *attempts: AttemptId) -> None:
        """Cancel attempts."""
        self.send(msg.Cancel(self.epoch, attempts))


class ScriptedJobManager:
    """An HTTP server that hands each connection of a TaskManager to the test."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.address = ""
        self._tls = tls
        self.arrivals: asyncio.Queue[Peer] = asyncio.Queue()
        self._peers: list[Peer] = []
        self._runner: web.AppRunner | None = None

    async def start(self, port: int = 0) -> None:
        """Listen on a port; 0: a free one."""
        app = web.Application()
        app.router.add_get(TASKMANAGER_PATH, self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=self._tls)
        await site.start()
        self.address = f"127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Drop all connections and listen no more."""
        for peer in self._peers:
            peer.connection.abort()
        if self._runner is not None:
            await self._runner.cleanup()

    async def arrival(self) -> Peer:
        """The next TaskManager that has said who it is."""
        peer = await self.arrivals.get()
        await peer.until(lambda: peer.closed or bool(peer.inbox))
        return peer

    async def _serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = server_socket()
        await socket.prepare(request)
        peer = Peer(Connection(socket, decode_from_taskmanager), socket)
        self._peers.append(peer)
        self.arrivals.put_nowait(peer)
        await peer.serve()
        await peer.connection.close()
        return socket


@asynccontextmanager
async def jobmanager(tls: ssl.SSLContext | None = None) -> AsyncIterator[ScriptedJobManager]:
    """A JobManager that is stopped in the end."""
    manager = ScriptedJobManager(tls)
    await manager.start()
    try:
        yield manager
    finally:
        await manager.stop()


class TaskManagerProcess:
    """A TaskManager in a process of its own, killed with all that is its in the end."""

    def __init__(self, jobmanagers: Iterable[str], directory: Path, *, slots: int = 1, **options: object) -> None:
        self.work_dir = directory / "work"
        (directory / "modules").mkdir(exist_ok=True)
        values = {
            "id": "tm-1",
            "jobmanagers": list(jobmanagers),
            "work_dir": str(self.work_dir),
            "module_dir": str(directory / "modules"),
            "slots": slots,
            **options,
        }
        with (directory / "taskmanager.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", START, json.dumps(values)],
                stderr=log,
                env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
            )

    @property
    def pid(self) -> int:
        """Its id."""
        return self.process.pid

    async def exit_code(self) -> int:
        """Wait for its end."""
        return await asyncio.to_thread(self.process.wait)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> "TaskManagerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGCONT)
            self.kill()


async def appears(path: Path) -> str:
    """Wait until the file is there; returns what it says."""
    await asyncio.to_thread(_poll, path.exists)
    return await asyncio.to_thread(path.read_text)


async def gone(*pids: int) -> None:
    """Wait until none of the processes runs any more."""
    await asyncio.to_thread(_poll, lambda: not any(is_running(pid) for pid in pids))


def _poll(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def children_of(pid: int) -> list[int]:
    """The processes that the process has forked and not collected."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
