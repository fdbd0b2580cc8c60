"""The operator: ears that say which FlinkJob to look at again, a queue of these, and one reconciler that looks.

Everything but kopf lives in one event loop: the cache, the work queue, the election among the operator's replicas, the HTTP
server. A replica that does not lead hears and knows everything that the leader does, and does nothing; so one that takes
over begins at once. What goes wrong with one FlinkJob is tried again, later each time; what goes wrong with the operator
itself ends the process, and Kubernetes starts it again: running jobs do not need it.
"""

import asyncio
import logging
from dataclasses import dataclass, field

from flinkjob.api.errors import ClusterError
from flinkjob.controller.cache import Cache, JobKey
from flinkjob.controller.cluster import FLINK_JOB, Cluster
from flinkjob.controller.following import Following
from flinkjob.controller.handlers import Ears, News
from flinkjob.controller.leading import Leadership
from flinkjob.controller.metrics import OperatorMetrics
from flinkjob.controller.reconciler import Reconciler
from flinkjob.controller.server import serving
from flinkjob.controller.target import OperatorSettings
from flinkjob.controller.workqueue import WorkQueue
from flinkjob.election.apiserver import KubernetesApi
from flinkjob.election.elector import ElectionTimes

logger = logging.getLogger(__name__)

CRD_PAUSE = 2.0
"""Seconds between two looks for the CustomResourceDefinition, while it is not installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorOptions:
    """What the operator process is told.

    Attributes:
        identity: its name in the Lease, unique to this process.
        predecessors: what the names of its own dead predecessors begin with, so that it need not wait for them; "": none.
        lease_namespace, lease_name: the Lease by which the replicas agree who acts.
        namespaces: where it looks for FlinkJobs; empty: everywhere.
        host, port: where it serves health and metrics; port 0 takes a free one.
        workers: FlinkJobs that are looked at at the same time.
        resync: seconds after which every FlinkJob is looked at again, though nothing is known to have happened. That costs
            no calls where all is well.
        times: of the election.
        settings: what a FlinkJob leaves open.
    """

    identity: str
    predecessors: str = ""
    lease_namespace: str
    lease_name: str = "flinkjob-operator"
    namespaces: tuple[str, ...] = ()
    host: str = "0.0.0.0"
    port: int = 8080
    workers: int = 8
    resync: float = 600.0
    times: ElectionTimes = field(default_factory=ElectionTimes)
    settings: OperatorSettings


class Operator:
    """One replica of the operator.

    Attributes:
        port: where it serves; 0 before it does.
        reconciler: what looks at FlinkJobs.
    """

    def __init__(self, api: KubernetesApi, options: OperatorOptions) -> None:
        self._options = options
        self._cluster = Cluster(api)
        self._cache = Cache(self._changed)
        self._following = Following(self._cluster, self._cache, options.namespaces)
        self._ears = Ears(api.configuration, tell=self._heard, namespaces=options.namespaces)
        self._leadership = Leadership(
            api,
            identity=options.identity,
            predecessors=options.predecessors,
            namespace=options.lease_namespace,
            name=options.lease_name,
            times=options.times,
        )
        self.reconciler = Reconciler(
            self._cluster,
            self._cache,
            settings=options.settings,
            leads=self._leadership.held,
            milestone=lambda before, after: self._metrics.reached(before, after),
        )
        self._queue: WorkQueue[JobKey] = WorkQueue(self.reconciler.look, workers=options.workers)
        self._metrics = OperatorMetrics(
            cache=self._cache,
            cluster=self._cluster,
            queue=self._queue,
            leads=self._leadership.held,
            synced=self._following.synced.is_set,
            failovers=lambda: self.reconciler.failovers,
        )
        self._acting = False
        self.port = 0

    @property
    def looks(self) -> int:
        """How many looks at FlinkJobs this replica has taken."""
        return self._queue.succeeded + self._queue.failed

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until told to stop; then everything ends within seconds, and another replica may lead at once."""
        server = serving(
            host=self._options.host,
            port=self._options.port,
            healthy=self._healthy,
            ready=self._ready,
            metrics=self._metrics.render,
        )
        async with server as self.port:
            work = asyncio.create_task(self._work(), name="operator")
            stopping = asyncio.create_task(stop.wait())
            try:
                await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if work.done():
                    work.result()
            finally:
                work.cancel()
                stopping.cancel()
                await asyncio.gather(work, stopping, return_exceptions=True)

    async def _work(self) -> None:
        await self._until_served()
        self._ears.start()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._following.run(), name="following")
                await self._following.synced.wait()
                logger.info("%d FlinkJobs are known", sum(1 for _ in self._cache.all(FLINK_JOB)))
                async with self._leadership.standing():
                    await self._lead_in_turns()
        finally:
            await self._ears.stop()

    async def _until_served(self) -> None:
        told = False
        while True:
            try:
                if await self._cluster.served(FLINK_JOB):
                    return
                problem = "the CustomResourceDefinition flinkjobs.flinkjob.io is not installed"
            except ClusterError as error:
                problem = str(error)
            if not told:
                logger.warning("waiting: %s", problem)
                told = True
            await asyncio.sleep(CRD_PAUSE)

    async def _lead_in_turns(self) -> None:
        while True:
            if self._leadership.held():
                await self._act()
            await self._leadership.changed.wait()
            self._leadership.changed.clear()

    async def _act(self) -> None:
        """Work while this replica leads."""
        logger.info("%s acts", self._options.identity)
        self._leadership.changed.clear()
        self._acting = True
        tasks = [
            asyncio.create_task(self._queue.run(), name="queue"),
            asyncio.create_task(self._resync(), name="resync"),
            asyncio.create_task(self._leadership.changed.wait()),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._acting = False
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._queue.clear()
            logger.info("%s acts no more", self._options.identity)

    async def _resync(self) -> None:
        while True:
            for job in self._cache.jobs():
                self._queue.add(job)
            await asyncio.sleep(self._options.resync)

    def _heard(self, news: News) -> None:
        metadata = news.manifest["metadata"]
        where = (news.kind, metadata["namespace"], metadata["name"])
        if news.listed and self._cache.get(*where) is not None:
            self._following.suspect()
        if news.gone:
            self._cache.lost(*where, metadata["uid"], int(metadata["resourceVersion"]))
        else:
            self._cache.saw(news.kind, news.manifest)

    def _changed(self, job: JobKey) -> None:
        if self._acting:
            self._queue.add(job)

    def _healthy(self) -> str:
        return "kopf has ended" if self._ears.failed else ""

    def _ready(self) -> str:
        return "" if self._following.synced.is_set() else "not everything that exists is known yet"


def quiet_kopf() -> None:
    """Leave out what kopf says of its own affairs; an outage of the API server is told once by `following`."""
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("kopf._cogs.clients").setLevel(logging.CRITICAL)
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
