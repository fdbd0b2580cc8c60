"""One replica of the operator: the shipped `Operator` with all that is in it, on an event loop in the world's time.

Only two things are others': kopf, which has a thread and sockets of its own, is replaced by ears that list and watch as it
does; and the HTTP server is left out. Cache, following, leadership, work queue and reconciler are the shipped ones.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from controller.world import NAMESPACE, SETTINGS
from flinkjob.api.errors import ClusterError
from flinkjob.controller.cache import JobKey, slim
from flinkjob.controller.cluster import FLINK_JOB, Kind
from flinkjob.controller.handlers import HEARD, Ears, News
from flinkjob.controller.names import JOB_LABEL
from flinkjob.controller.observed import Manifest
from flinkjob.controller.operator import Operator, OperatorOptions

from .apiclient import ClientApi
from .asyncprocess import AsyncProcess
from .candidate import TIMES

if TYPE_CHECKING:
    from .operatedcluster import OperatedCluster

PAUSES = (0.2, 0.5, 1.0, 2.0)


class EarsOfWorld(Ears):
    """What kopf does for the operator: lists and watches, and begins anew when a watch breaks."""

    def __init__(self, api: ClientApi, tell: Callable[[News], None]) -> None:
        self._api = api
        self._news = tell
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def failed(self) -> bool:
        """See Ears."""
        return False

    def start(self) -> None:
        """See Ears."""
        self._tasks = [asyncio.ensure_future(self._hear(kind)) for kind in HEARD]

    async def stop(self) -> None:
        """See Ears."""
        for task in self._tasks:
            task.cancel()

    async def _hear(self, kind: Kind) -> None:
        query = {} if kind == FLINK_JOB else {"labelSelector": JOB_LABEL}
        path, failures = kind.path(None), 0
        while True:
            try:
                listed = await self._api.request("GET", path, query=query)
                for item in listed["items"]:
                    self._pass_on(kind, item, gone=False, listed=True)
                failures = 0
                async for event in self._api.watch(path, query=query, version=listed["metadata"]["resourceVersion"]):
                    self._pass_on(kind, event["object"], gone=event["type"] == "DELETED", listed=False)
            except ClusterError:
                await asyncio.sleep(PAUSES[min(failures, len(PAUSES) - 1)])
                failures += 1

    def _pass_on(self, kind: Kind, manifest: Manifest, *, gone: bool, listed: bool) -> None:
        self._news(News(kind, slim(kind, manifest), gone=gone, listed=listed))


class OperatorProcess(AsyncProcess):
    """A replica.

    Attributes:
        known: which generation of the FlinkJob the look that is being taken goes by.
    """

    def __init__(self, world: "OperatedCluster", name: str, number: int) -> None:
        super().__init__(world.scheduler, name, rate=1.0, offset=world.scheduler.below(2000))
        self.world = world
        self.known = 0
        self.api = ClientApi(world.api, self, "operator", known=lambda: self.known)
        options = OperatorOptions(
            identity=f"{name}_{number}",
            predecessors=f"{name}_",
            lease_namespace=NAMESPACE,
            settings=SETTINGS,
            times=TIMES,
        )
        self.operator = Operator(self.api, options)
        self._put_into_the_world(self.operator)
        self.run_async(self.operator._work(), self._over)

    @property
    def leads(self) -> bool:
        """Whether this replica acts."""
        return self.alive and self.operator._leadership.held()

    def _put_into_the_world(self, operator: Operator) -> None:
        """Its ears, its clocks, and the ends of its pods' names."""
        world = self.world
        operator._ears = EarsOfWorld(self.api, operator._heard)
        operator.reconciler._now = self._wall
        operator.reconciler._suffix = world.suffix
        election = operator._leadership._election
        election._clock = lambda: self.clock() / 1000
        election._timestamp = lambda: datetime.fromtimestamp(self._wall(), UTC).isoformat(timespec="milliseconds")
        observe = operator.reconciler._observe

        async def observed(job: Any, flinkjob: Manifest, memory: Any) -> Any:
            self.known = flinkjob["metadata"]["generation"]
            return await observe(job, flinkjob, memory)

        operator.reconciler._observe = observed  # type: ignore[method-assign]

    def _wall(self) -> float:
        return self.world.wall(None)

    def _over(self, task: "asyncio.Task[None]") -> None:
        if not self.alive:
            return
        if not task.cancelled() and task.exception() is not None:
            self.world.must_not_end(task)
        self.scheduler.at(self.scheduler.now, None, self.die)

    def look_again(self, job: JobKey) -> None:
        """Look at the job, though nothing has happened."""
        if self.loop is not None:
            self.loop.call_soon(self.operator._changed, job)

    def stop(self) -> None:
        """SIGTERM: its Lease is free when it has ended."""
        if self.main is not None:
            self.main.cancel()

    def die(self) -> None:
        """SIGKILL."""
        if self.alive:
            self.alive = False
            self.end_async()
            self.world.operator_died(self)
