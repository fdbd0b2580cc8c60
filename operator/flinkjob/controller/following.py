"""How the cache is kept complete: children are followed by their metadata, and lists find what no event told.

Kopf keeps some kilobytes of every object that it hears of, and passes on its whole content. That is right for FlinkJobs and
pods, and too much for the dozen passive children of each job, of which only the metadata matters. So these are listed and
watched here.

And kopf does not say what was deleted while a watch was interrupted for so long that it had to begin anew. So after each
such beginning, and at the start, a list of metadata is compared with the cache.
"""

import asyncio
import logging
import random
from collections.abc import Collection

from flinkjob.api.errors import ApiRefused, ClusterError
from flinkjob.controller.cache import Cache, slim
from flinkjob.controller.cluster import FLINK_JOB, KINDS, Cluster, Kind
from flinkjob.controller.handlers import HEARD
from flinkjob.controller.names import JOB_LABEL
from flinkjob.election.apiserver import EXPIRED

logger = logging.getLogger(__name__)

FOLLOWED = tuple(
    kind
    for kind in KINDS.values()
    if kind.kind in ("Service", "ConfigMap", "ServiceAccount", "Role", "RoleBinding", "PodDisruptionBudget")
)
"""The passive children. Secrets are not among them: an operator that may list them sees those of everybody."""
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 10.0
"""Seconds between two attempts while the API server is out of reach, doubling, and longer by half at random."""


class Following:
    """Keeps a cache complete, in the namespaces given, or (none) everywhere.

    Attributes:
        synced: set once everything that exists is known.
    """

    def __init__(self, cluster: Cluster, cache: Cache, namespaces: Collection[str] = ()) -> None:
        self._cluster = cluster
        self._cache = cache
        self._places: tuple[str | None, ...] = tuple(namespaces) or (None,)
        self._to_list = {(kind, place) for kind in (*FOLLOWED, *HEARD) for place in self._places}
        self._suspicion = asyncio.Event()
        self.synced = asyncio.Event()

    def suspect(self) -> None:
        """A watch of kopf's has begun anew: something may have been deleted unheard."""
        self._suspicion.set()

    async def run(self) -> None:
        """Follow and compare until cancelled."""
        async with asyncio.TaskGroup() as group:
            for place in self._places:
                for kind in FOLLOWED:
                    group.create_task(self._follow(kind, place), name=f"follow {kind.plural}")
                group.create_task(self._compare(place), name="compare")

    async def _follow(self, kind: Kind, place: str | None) -> None:
        version, pause, trouble = "", FIRST_PAUSE, _Trouble(f"{kind.plural} are not followed")
        while True:
            try:
                if not version:
                    version = await self._list(kind, place)
                    pause = FIRST_PAUSE
                    trouble.over()
                async for event, manifest in self._cluster.watch_metadata(kind, place, JOB_LABEL, version):
                    metadata, pause = manifest["metadata"], FIRST_PAUSE
                    trouble.over()
                    version = metadata["resourceVersion"]
                    if event == "DELETED":
                        where = (kind, metadata["namespace"], metadata["name"])
                        self._cache.lost(*where, metadata["uid"], int(version))
                    elif event != "BOOKMARK":
                        self._cache.saw(kind, slim(kind, manifest))
            except ClusterError as error:
                if isinstance(error, ApiRefused) and error.status == EXPIRED:
                    version = ""
                else:
                    trouble.is_there(error)
                    pause = min(2 * pause, LONGEST_PAUSE)
            await _sleep(pause)

    async def _list(self, kind: Kind, place: str | None) -> str:
        listing = await self._cluster.list_metadata(kind, place, JOB_LABEL)
        for item in listing.items:
            self._cache.saw(kind, slim(kind, item))
        self._cache.compare(kind, place, listing)
        self._listed(kind, place)
        return listing.version

    async def _compare(self, place: str | None) -> None:
        trouble = _Trouble("what exists cannot be listed")
        while True:
            for kind in HEARD:
                pause = FIRST_PAUSE
                while not await self._all_known(kind, place, trouble):
                    await _sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
                self._listed(kind, place)
            await self._suspicion.wait()
            await _sleep(FIRST_PAUSE)  # the list that gave rise to it comes in many pieces
            self._suspicion.clear()

    async def _all_known(self, kind: Kind, place: str | None, trouble: "_Trouble") -> bool:
        try:
            listing = await self._cluster.list_metadata(kind, place, "" if kind == FLINK_JOB else JOB_LABEL)
        except ClusterError as error:
            trouble.is_there(error)
            return False
        trouble.over()
        return self._cache.compare(kind, place, listing)

    def _listed(self, kind: Kind, place: str | None) -> None:
        self._to_list.discard((kind, place))
        if not self._to_list:
            self.synced.set()


class _Trouble:
    """Something that goes wrong again and again is told once, and once more when it is over."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._told = False

    def is_there(self, error: ClusterError) -> None:
        """It has gone wrong."""
        if not self._told:
            logger.warning("%s at the moment: %s", self._what, error)
        self._told = True

    def over(self) -> None:
        """It has gone well."""
        if self._told:
            logger.info("over: %s", self._what)
        self._told = False


async def _sleep(pause: float) -> None:
    await asyncio.sleep(pause * (1 + random.random() / 2))
