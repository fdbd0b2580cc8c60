"""The operator's metrics, taken from what is there when somebody asks: counting costs the operator nothing in between."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flinkjob.controller.cache import Cache, JobKey
from flinkjob.controller.cluster import FLINK_JOB, Cluster
from flinkjob.controller.observed import Manifest, parse_time
from flinkjob.controller.workqueue import WorkQueue

_PREFIX = "flinkjob_operator"
_LIFETIMES = (1, 2, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)


@dataclass(frozen=True, slots=True)
class Milestones:
    """What a job's life has come to; seconds of the Unix epoch.

    Attributes:
        created: when the FlinkJob was made.
        started: when the job first ran.
        ended: when it came to its end.
        state: its state.
    """

    created: float
    started: float | None
    ended: float | None
    state: str

    @classmethod
    def of(cls, flinkjob: Manifest) -> "Milestones":
        """Those of a FlinkJob."""
        status = _job_status(flinkjob)
        created = parse_time(flinkjob["metadata"].get("creationTimestamp")) or 0.0
        started, ended = parse_time(status.get("startTime")), parse_time(status.get("endTime"))
        return cls(created, started, ended, status.get("state") or "NONE")


class OperatorMetrics(Collector):
    """What a scrape gets."""

    def __init__(
        self,
        *,
        cache: Cache,
        cluster: Cluster,
        queue: WorkQueue[JobKey],
        leads: Callable[[], bool],
        synced: Callable[[], bool],
        failovers: Callable[[], int],
    ) -> None:
        self._cache, self._cluster, self._queue, self._leads, self._synced = cache, cluster, queue, leads, synced
        self._failovers = failovers
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._to_running = Histogram(
            f"{_PREFIX}_job_start_seconds",
            "Time from the creation of a FlinkJob to its first running.",
            buckets=_LIFETIMES,
            registry=self._registry,
        )
        self._to_end = Histogram(
            f"{_PREFIX}_job_run_seconds",
            "Time from the first running of a job to its end, by its last state.",
            ["state"],
            buckets=_LIFETIMES,
            registry=self._registry,
        )

    def render(self) -> bytes:
        """The text for Prometheus."""
        return generate_latest(self._registry)

    def reached(self, before: Milestones, after: Milestones) -> None:
        """A job was seen to go on; takes what its milestones took."""
        if after.started is not None and before.started is None:
            self._to_running.observe(max(0.0, after.started - after.created))
        if after.ended is not None and before.ended is None and after.started is not None:
            self._to_end.labels(after.state).observe(max(0.0, after.ended - after.started))

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client."""
        queue = self._queue
        yield _gauge("leader", "Whether this replica is the one that acts.", self._leads())
        yield _gauge("synced", "Whether everything that exists is known.", self._synced())
        yield self._jobs()
        yield _gauge("queue_depth", "Jobs that wait for a look.", queue.depth)
        yield _gauge("queue_failing", "Jobs whose last look failed.", queue.failing)
        looks = CounterMetricFamily(f"{_PREFIX}_reconciles", "Looks at jobs, by their outcome.", labels=["outcome"])
        looks.add_metric(["success"], queue.succeeded)
        looks.add_metric(["error"], queue.failed)
        yield looks
        yield CounterMetricFamily(f"{_PREFIX}_reconcile_seconds", "Time spent on looks at jobs.", value=queue.seconds)
        yield CounterMetricFamily(
            f"{_PREFIX}_failovers_driven", "Leases emptied because their holder was dead.", value=self._failovers()
        )
        calls = CounterMetricFamily(
            f"{_PREFIX}_api_calls", "Calls to the API server.", labels=["verb", "resource", "answered"]
        )
        for (verb, resource, answered), count in sorted(self._cluster.calls.items()):
            calls.add_metric([verb, resource, str(answered).lower()], count)
        yield calls

    def _jobs(self) -> Metric:
        jobs = GaugeMetricFamily(f"{_PREFIX}_jobs", "FlinkJobs by the state of their job.", labels=["state"])
        states = Counter(Milestones.of(job).state for job in self._cache.all(FLINK_JOB))
        for state, count in sorted(states.items()):
            jobs.add_metric([state], count)
        return jobs


def _job_status(job: Manifest) -> Manifest:
    return (job.get("status") or {}).get("jobStatus") or {}


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{_PREFIX}_{name}", text, value=float(value))
