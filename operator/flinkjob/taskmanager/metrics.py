"""How a TaskManager fares, told over HTTP: metrics for Prometheus, and whether it lives and is ready.

Metrics are read off the live state when somebody scrapes; their names begin with ``flinkjob_taskmanager_``. It is ready once
a leader has taken it in, and stays so while there is none: its tasks go on.
"""

import contextlib
from collections.abc import AsyncIterator, Iterator

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from flinkjob.api.errors import InvalidInput
from flinkjob.graph.states import ExecutionState
from flinkjob.worker.taskexecutor import Link, TaskExecutor

PREFIX = "flinkjob_taskmanager_"


class TaskManagerCollector(Collector):
    """Makes the metrics of the moment."""

    def __init__(self, executor: TaskExecutor) -> None:
        self._executor = executor

    def describe(self) -> list[Metric]:
        """Nothing: the metrics are not to be made once more when the collector is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        executor = self._executor
        registered = executor.link is Link.REGISTERED
        yield _gauge("registered", "Whether a leader has it in its books, over a connection that stands.", registered)
        yield _gauge("epoch", "The highest epoch of a leader that it has seen.", executor.epoch)
        slots = GaugeMetricFamily(PREFIX + "slots", "Its slots.", labels=["state"])
        used = sum(attempt is not None for attempt in executor.slots)
        slots.add_metric(["used"], used)
        slots.add_metric(["free"], len(executor.slots) - used)
        yield slots
        counts = dict.fromkeys(ExecutionState, 0)
        for report in executor.reports:
            counts[report.state] += 1
        attempts = GaugeMetricFamily(
            PREFIX + "attempts",
            "Attempts that it holds; ended ones until a leader has acknowledged them.",
            labels=["state"],
        )
        for state, count in counts.items():
            attempts.add_metric([state.name], count)
        yield attempts
        yield _gauge("queued_attempts", "Attempts that wait for a slot.", executor.queued)


def taskmanager_registry(executor: TaskExecutor) -> CollectorRegistry:
    """The metrics of a TaskManager and of its process."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(TaskManagerCollector(executor))
    ProcessCollector(registry=registry)
    return registry


@contextlib.asynccontextmanager
async def serving_metrics(executor: TaskExecutor, *, host: str, port: int) -> AsyncIterator[None]:
    """Answer ``/metrics``, ``/healthz`` and ``/readyz`` for the length of a block.

    Raises:
        InvalidInput: the address cannot be listened on.
    """
    registry = taskmanager_registry(executor)

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def readyz(request: web.Request) -> web.Response:
        if executor.registered is None:
            return web.Response(status=503, text="no leader has taken it in yet")
        return web.Response(text="ok")

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        raise InvalidInput(f"{host}:{port} cannot be listened on: {error}") from None
    try:
        yield
    finally:
        await runner.cleanup()


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, meaning, value=value)
