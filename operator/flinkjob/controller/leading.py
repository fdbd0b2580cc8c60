"""Which of the operator's replicas acts: the one that holds the operator's own Lease. The others watch, and are ready.

Two that act for a moment do no harm: what they apply is the same, what they delete they name by its uid, and a pod that
both create has the name of one. The Lease keeps them from working against each other for longer than that.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from flinkjob.controller.names import FIELD_MANAGER
from flinkjob.election.apiserver import KubernetesApi
from flinkjob.election.elector import ElectionTimes
from flinkjob.election.leasestore import KubernetesLeaseStore
from flinkjob.election.runner import LeaderElection

logger = logging.getLogger(__name__)

_LABELS = {"app.kubernetes.io/name": FIELD_MANAGER, "app.kubernetes.io/component": "operator"}


class Leadership:
    """Whether this replica is the one.

    Attributes:
        changed: set whenever that has changed; to be cleared by who waits for it.
    """

    def __init__(
        self,
        api: KubernetesApi,
        *,
        identity: str,
        predecessors: str = "",
        namespace: str,
        name: str,
        times: ElectionTimes | None = None,
    ) -> None:
        self._store = KubernetesLeaseStore(
            api, namespace=namespace, name=name, field_manager=FIELD_MANAGER, labels=_LABELS
        )
        self.changed = asyncio.Event()
        self._election = LeaderElection(
            identity,
            self._store,
            on_elected=self.changed.set,
            on_lost=lambda reason: self.changed.set(),
            times=times,
            predecessors=predecessors,
        )

    def held(self) -> bool:
        """Whether this replica may act, at this moment."""
        return self._election.is_leader()

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[None]:
        """Stand for election during a block; at its end the Lease is released, so that the other one need not wait."""
        running = asyncio.create_task(self._election.run(), name="election")
        try:
            yield
        finally:
            await self._election.release()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await self._store.close()
