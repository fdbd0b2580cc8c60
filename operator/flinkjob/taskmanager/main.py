"""The TaskManager's process: made of its options, stopped by SIGTERM, ended with an exit code."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp

from flinkjob.rpc.tls import ClientTls, TlsFiles
from flinkjob.taskmanager.agent import CALL_TIMEOUT, Agent
from flinkjob.taskmanager.slots import Slots
from flinkjob.worker.dialing import Dialer
from flinkjob.worker.taskexecutor import DEFAULT_RECONNECTION_TIMEOUT_MS, TaskExecutor


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskManagerOptions:
    """What a TaskManager is started with.

    Attributes:
        id: its name, never used by another one.
        jobmanagers: ``host:port`` of each JobManager, at least one.
        job: id of the job that it works for; "" takes the first job that takes it.
        slots: how many tasks it runs at a time (Flink: ``taskmanager.numberOfTaskSlots``).
        work_dir: its own directory, made if need be: logs and scratch directories.
        module_dir: where the Python modules of tasks are.
        address: where it runs, for people; the host's name if empty.
        reconnection_timeout_ms: how long it looks for a leader until one has told it the job's
            ``taskmanager.reconnection.timeout``.
        tls: certificate, key and authority for mutual TLS; None speaks plainly.
        metrics_host, metrics_port: where metrics, health and readiness are told; port None: nowhere.
    """

    id: str
    jobmanagers: tuple[str, ...]
    work_dir: str
    module_dir: str
    job: str = ""
    slots: int = 1
    address: str = ""
    reconnection_timeout_ms: int = DEFAULT_RECONNECTION_TIMEOUT_MS
    tls: TlsFiles | None = None
    metrics_host: str = "0.0.0.0"
    metrics_port: int | None = None


async def run_taskmanager(options: TaskManagerOptions) -> int:
    """Run a TaskManager to its end; returns the exit code.

    0: the job is over, or SIGTERM or SIGINT came and the tasks were handed back. 1: there was no leader for too long.

    Raises:
        InvalidInput: the TLS files cannot be used, or the port for metrics cannot be listened on.
        OSError: the work directory cannot be used.
    """
    loop = asyncio.get_running_loop()
    tls = ClientTls(options.tls) if options.tls is not None else None
    work_dir = _prepared(options)
    executor = TaskExecutor(
        id=options.id,
        job=options.job,
        address=options.address or socket.gethostname(),
        slots=options.slots,
        now=int(loop.time() * 1000),
        reconnection_timeout_ms=options.reconnection_timeout_ms,
    )
    agent = Agent(
        executor,
        lambda on_event: Slots(
            count=options.slots, work_dir=work_dir, module_dir=_absolute(options.module_dir), on_event=on_event
        ),
        Dialer(options.jobmanagers),
        tls=tls,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.stop, f"{signal.Signals(number).name} received")
    try:
        # A replaced JobManager has its predecessor's name and another address.
        connector = aiohttp.TCPConnector(use_dns_cache=False)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=CALL_TIMEOUT) as session,
            _told(options, executor),
        ):
            return await agent.run(session)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def _told(options: TaskManagerOptions, executor: TaskExecutor) -> AsyncIterator[None]:
    """How the TaskManager fares can be asked for the length of a block."""
    if options.metrics_port is None:
        yield
        return
    from flinkjob.taskmanager.metrics import serving_metrics

    async with serving_metrics(executor, host=options.metrics_host, port=options.metrics_port):
        yield


def _prepared(options: TaskManagerOptions) -> str:
    """The work directory, made, and without what a killed predecessor has left in it; logs stay."""
    work_dir = _absolute(options.work_dir)
    os.makedirs(work_dir, exist_ok=True)
    for index in range(options.slots):
        shutil.rmtree(os.path.join(work_dir, f"slot-{index}"), ignore_errors=True)
    return work_dir


def _absolute(path: str) -> str:
    return os.path.abspath(path)
