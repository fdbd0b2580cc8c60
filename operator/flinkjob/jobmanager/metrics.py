"""The JobManager's metrics, for Prometheus: all of them are read off the live state when somebody scrapes.

So the work itself pays nothing, but for the writer of the log, which counts its blocks. Names begin with
``flinkjob_jobmanager_``; times are seconds, sizes bytes. What is about the job is told by the leader alone. A failover's
numbers are those of the latest one, but for the verdicts, which are counted.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.operations import FailoverCompleted
from flinkjob.graph.states import ExecutionState, JobStatus
from flinkjob.jobmanager.rest_values import ConnectedTaskManager
from flinkjob.jobmanager.surroundings import Leading
from flinkjob.jobmaster.reconciliation import REASON_CLASSES, reason_class
from flinkjob.jobmaster.verdicts import Verdict
from flinkjob.oplog.committer import WRITE_BUCKETS
from flinkjob.oplog.writer import LogWriter

PREFIX = "flinkjob_jobmanager_"


class Measured(Protocol):
    """What is told of. ``JobManager`` is one."""

    def leading(self) -> Leading | None:
        """The term of the moment; None while this JobManager does not lead."""

    def connected(self) -> Mapping[str, ConnectedTaskManager]:
        """The TaskManagers that are connected, by id."""

    def problem(self) -> str:
        """Why this JobManager leads nothing until a person comes; empty otherwise."""


class JobManagerCollector(Collector):
    """Makes the metrics of the moment."""

    def __init__(self, measured: Measured) -> None:
        self._measured = measured
        restarted = Verdict.CONFLICT.value
        labels = [(verdict.value, "") for verdict in Verdict if verdict is not Verdict.CONFLICT]
        # All from the start, at 0: Prometheus does not see the increase of a counter that begins with its first value.
        self._verdicts = Counter(dict.fromkeys([*labels, *((restarted, each) for each in REASON_CLASSES)], 0))
        self._counted_epoch = 0

    def describe(self) -> list[Metric]:
        """Nothing: the metrics are not to be made once more when the collector is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        leading = self._measured.leading()
        graph = leading.graph if leading is not None else None
        yield _gauge("leader", "Whether this JobManager leads the job.", leading is not None and leading.is_leader())
        yield _gauge(
            "waits_for_person", "Whether it leads nothing until somebody comes.", bool(self._measured.problem())
        )
        yield self._failover_tasks(graph)
        if leading is not None and graph is not None:
            yield from _job(graph)
            yield from _tasks(graph)
            yield from _failovers(graph)
            yield from _slots(graph, self._measured.connected())
            if leading.writer is not None:
                yield from _log(leading.writer)

    def _failover_tasks(self, graph: ExecutionGraph | None) -> Metric:
        """The verdicts of all failovers to this JobManager: each is counted when it is first seen."""
        if graph is not None and graph.failovers and graph.failovers[-1].epoch == graph.epoch > self._counted_epoch:
            self._counted_epoch = graph.epoch
            self._verdicts.update(_verdicts_of(graph.failovers[-1]))
        counted = CounterMetricFamily(
            PREFIX + "failover_tasks",
            "Tasks by what became of them in failovers to this JobManager, and why where they had to run again.",
            labels=["verdict", "reason"],
        )
        for labels, count in self._verdicts.items():
            counted.add_metric(labels, count)
        return counted


def _verdicts_of(failover: FailoverCompleted) -> Counter[tuple[str, str]]:
    """The tasks of a failover by verdict and reason. What runs again for another's sake had a verdict of its own before."""
    restarted = Verdict.CONFLICT.value
    counted = Counter({(verdict, ""): n for verdict, n in failover.verdicts.items() if verdict != restarted})
    counted.update((restarted, reason_class(task.reason)) for task in failover.restarted)
    return counted


def jobmanager_registry(measured: Measured) -> CollectorRegistry:
    """The metrics of a JobManager and of its process."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(JobManagerCollector(measured))
    ProcessCollector(registry=registry)
    return registry


def add_metrics_route(app: web.Application, registry: CollectorRegistry) -> None:
    """Make an application answer ``/metrics``."""

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.router.add_get("/metrics", metrics)


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, meaning, value=value)


def _counter(name: str, meaning: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, meaning, value=value)


def _job(graph: ExecutionGraph) -> Iterator[Metric]:
    yield _gauge("epoch", "The leader's term.", graph.epoch)
    state = GaugeMetricFamily(PREFIX + "job_state", "1 for the state that the job is in.", labels=["state"])
    for status in JobStatus:
        state.add_metric([status.name], status is graph.status)
    yield state
    yield _gauge("job_start_timestamp_seconds", "When the job was first led.", graph.started_at / 1000)
    entered = GaugeMetricFamily(
        PREFIX + "job_state_timestamp_seconds", "When the job was last seen to enter a state.", labels=["state"]
    )
    for status, at in graph.status_times.items():
        entered.add_metric([status.name], at / 1000)
    yield entered
    yield _gauge("job_done_ratio", "How much of the job is done.", graph.done())
    yield _counter("task_restarts", "Restarts that have been scheduled.", graph.restarts)


def _tasks(graph: ExecutionGraph) -> Iterator[Metric]:
    tasks = GaugeMetricFamily(PREFIX + "tasks", "Tasks of a vertex by their states.", labels=["vertex", "state"])
    for vertex in graph.vertices:
        for state in ExecutionState:
            tasks.add_metric([vertex.job_vertex.name, state.name], vertex.counts[state])
    yield tasks


def _failovers(graph: ExecutionGraph) -> Iterator[Metric]:
    yield _counter("failovers", "Leaders that took over.", graph.failover_count)
    if not graph.failovers:
        return
    latest = graph.failovers[-1]
    yield _gauge(
        "failover_gap_seconds",
        "From the old leader's last sign of life to the new leader's first decision.",
        latest.gap_ms / 1000,
    )
    yield _gauge("failover_replay_seconds", "The replay of the operation log.", latest.replay_ms / 1000)
    yield _gauge("failover_reconcile_seconds", "From the replay to the last verdict.", latest.reconcile_ms / 1000)
    yield _gauge("failover_replayed_operations", "Operations after the snapshot.", latest.replayed_operations)
    yield _gauge("failover_timestamp_seconds", "When the new leader made its first decision.", latest.decided_at / 1000)


def _slots(graph: ExecutionGraph, connected: Mapping[str, ConnectedTaskManager]) -> Iterator[Metric]:
    known = [graph.taskmanagers[graph.taskmanager_index[id]] for id in connected if id in graph.taskmanager_index]
    free = sum(info.free_slots for info in connected.values())
    yield _gauge("taskmanagers", "TaskManagers that are connected.", len(connected))
    slots = GaugeMetricFamily(PREFIX + "slots", "Slots of the connected TaskManagers.", labels=["state"])
    slots.add_metric(["free"], free)
    slots.add_metric(["used"], sum(info.slots for info in known) - free)
    yield slots


def _log(writer: LogWriter) -> Iterator[Metric]:
    written = writer.statistics
    healthy = writer.degraded is None and writer.failure is None
    yield _gauge("log_writable", "Whether the last write of the operation log succeeded.", healthy)
    yield _gauge("log_lag_seconds", "For how long the oldest operation has waited to be durable.", writer.lag_seconds)
    yield _gauge("log_lag_operations", "Operations that are not durable yet.", writer.lag)
    yield _counter("log_operations", "Operations made durable in this term.", written.operations)
    yield _counter("log_bytes", "Bytes made durable in this term.", written.bytes)
    yield _counter("log_append_failures", "Writes that failed and were tried again, in this term.", written.failures)
    buckets, total = [], 0
    for bound, count in zip((*map(str, WRITE_BUCKETS), "+Inf"), written.buckets, strict=True):
        total += count
        buckets.append((bound, float(total)))
    yield HistogramMetricFamily(
        PREFIX + "log_append_seconds",
        "From a block's first write to its durability.",
        buckets=buckets,
        sum_value=written.seconds,
    )
