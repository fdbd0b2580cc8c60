"""The job that a JobManager leads: its manifest, its options as the parts want them, and its storage."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from flinkjob.api import options as opt
from flinkjob.api.errors import CorruptedLog, InvalidJobGraph, InvalidManifest, InvalidOption
from flinkjob.api.flinkjob import FlinkJob, job_id, parse_manifest
from flinkjob.api.options import Configuration
from flinkjob.election.elector import ElectionTimes
from flinkjob.graph.jobgraph import JobGraph
from flinkjob.jobmanager.usercode import build_vertices, check_functions
from flinkjob.jobmaster.deciding import JobMasterOptions
from flinkjob.jobmaster.restart import ExponentialDelay, FailureRate, FixedDelay, NoRestart, RestartStrategy
from flinkjob.oplog.filesystem import scheme_of
from flinkjob.oplog.storage import JobStorage

logger = logging.getLogger(__name__)


def read_manifest(path: Path) -> FlinkJob:
    """The manifest in a file.

    Raises:
        InvalidManifest: the file cannot be read, or what it says is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InvalidManifest(f"{path}: cannot be read: {reason}") from None
    return parse_manifest(text, source=str(path))


async def build_job_graph(manifest: FlinkJob, module_dir: Path, *, job_id: str = "") -> JobGraph:
    """The JobGraph that a manifest describes; its entrypoint, if it has one, is run.

    A function that is not there would fail each attempt of its task, however often it is restarted, so all are looked for.

    Raises:
        InvalidJobGraph: the vertices do not make a graph, the entrypoint failed, or a function is not there.
    """
    spec = manifest.spec.job
    if spec.entrypoint is not None:
        vertices = await build_vertices(spec.entrypoint, spec.args, module_dir)
    else:
        vertices = list(spec.vertices or ())
    graph = JobGraph.build(job_id=job_id, name=manifest.metadata.name, vertices=vertices)
    await check_functions(dict(_functions(graph)), module_dir)
    return graph


def _functions(graph: JobGraph) -> Iterator[tuple[str, str]]:
    """Each function that the graph names, behind the place where it does."""
    for vertex in graph.vertices:
        if vertex.task.python is not None:
            yield f"vertex {vertex.name!r}, task.python", vertex.task.python
        if vertex.splits is not None and vertex.splits.python is not None:
            yield f"vertex {vertex.name!r}, splits.python", vertex.splits.python


class Job:
    """A manifest, with everything that a term of leadership reads from it.

    Args:
        manifest: the FlinkJob.
        overrides: options that win over the manifest's.
        module_dir: where modules are found, and what relative file patterns start from.
        uid: tells apart jobs of one name; the manifest's own wins.

    Raises:
        InvalidOption: an option is wrong, or there is no storage directory.
        UnsupportedStorage: the storage directory cannot keep a log.
    """

    def __init__(self, manifest: FlinkJob, *, overrides: Mapping[str, str], module_dir: Path, uid: str = "") -> None:
        self.manifest = manifest
        self.configuration = manifest.spec.configuration.with_overrides(overrides)
        self.configuration.validate()
        self.election_times = election_times(self.configuration)
        self.module_dir = module_dir
        self.name = manifest.metadata.name
        self.namespace = manifest.metadata.namespace
        self.uid = manifest.metadata.uid or uid or "0"
        self.id = job_id(self.namespace, self.name, self.uid)
        storage_dir = self.configuration.get(opt.STORAGE_DIR)
        if storage_dir is None:
            raise InvalidOption(
                f"{opt.STORAGE_DIR.key} is not set: result partitions are kept there whatever "
                f"{opt.OPERATION_LOG_STORE.key} says; name a path that all JobManagers and TaskManagers share"
            )
        if scheme_of(storage_dir) == "memory":
            raise InvalidOption(
                f"{opt.STORAGE_DIR.key}: {storage_dir!r} is seen by one process only; name a path or a URL that all "
                "JobManagers and TaskManagers share"
            )
        self.storage = JobStorage.below(storage_dir, namespace=self.namespace, name=self.name, uid=self.uid)

    @property
    def logged(self) -> bool:
        """Whether there is an operation log."""
        return self.configuration.get(opt.OPERATION_LOG_STORE) is opt.OperationLogStore.FILESYSTEM

    @property
    def restart_on_corrupted_log(self) -> bool:
        """Whether a damaged log is set aside and the job run anew."""
        return self.configuration.get(opt.ON_CORRUPTED_LOG) is opt.OnCorruptedLog.RESTART

    @property
    def master_options(self) -> JobMasterOptions:
        """What the JobMaster wants to know."""
        get = self.configuration.get
        return JobMasterOptions(
            reconcile_timeout=get(opt.RECONCILE_TIMEOUT),
            heartbeat_timeout=get(opt.HEARTBEAT_TIMEOUT),
            restart_strategy=restart_strategy(self.configuration),
            restart_all=get(opt.EXECUTION_FAILOVER_STRATEGY) is opt.FailoverStrategy.FULL,
        )

    async def graph(self) -> JobGraph:
        """The JobGraph: the stored one, or, the first time, the one built now and stored.

        Raises:
            InvalidJobGraph: it cannot be built.
            CorruptedLog: the stored one is damaged.
            StorageError: the storage failed.
        """
        stored = self.storage.read_job_graph()
        if stored is None:
            built = await build_job_graph(self.manifest, self.module_dir, job_id=self.id)
            stored = self.storage.store_job_graph(built.encode())
        try:
            return JobGraph.decode(stored)
        except InvalidJobGraph as error:
            raise CorruptedLog(f"{self.storage.url}: {error}") from None


def election_times(configuration: Configuration) -> ElectionTimes:
    """The durations of the leader election.

    Raises:
        InvalidOption: they do not leave a leader the time to renew its lease.
    """
    get = configuration.get
    return ElectionTimes(
        lease_duration=get(opt.LEASE_DURATION) / 1000,
        renew_deadline=get(opt.RENEW_DEADLINE) / 1000,
        retry_period=get(opt.RETRY_PERIOD) / 1000,
    )


def restart_strategy(configuration: Configuration) -> RestartStrategy:
    """The restart strategy that the options name."""
    get = configuration.get
    kind = get(opt.RESTART_STRATEGY)
    if kind is opt.RestartStrategyType.FIXED_DELAY:
        return FixedDelay(get(opt.FIXED_DELAY_ATTEMPTS), get(opt.FIXED_DELAY_DELAY))
    if kind is opt.RestartStrategyType.FAILURE_RATE:
        return FailureRate(
            get(opt.FAILURE_RATE_MAX_FAILURES), get(opt.FAILURE_RATE_INTERVAL), get(opt.FAILURE_RATE_DELAY)
        )
    if kind is opt.RestartStrategyType.EXPONENTIAL_DELAY:
        return ExponentialDelay(
            initial_backoff=get(opt.EXPONENTIAL_DELAY_INITIAL_BACKOFF),
            max_backoff=get(opt.EXPONENTIAL_DELAY_MAX_BACKOFF),
            multiplier=get(opt.EXPONENTIAL_DELAY_MULTIPLIER),
            reset_threshold=get(opt.EXPONENTIAL_DELAY_RESET_THRESHOLD),
            jitter_factor=get(opt.EXPONENTIAL_DELAY_JITTER),
            attempts=get(opt.EXPONENTIAL_DELAY_ATTEMPTS),
        )
    return NoRestart()
