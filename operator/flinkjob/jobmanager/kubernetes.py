"""A JobManager's surroundings on Kubernetes: the job's Lease, the TaskManagers' pods, the FlinkJob's status and Events.

The candidate's name in the lease is made of the pod's name, its uid and a random part. A holder with the same pod and uid
was a container of this very pod; there is never more than one, so it is dead, and nobody waits for its lease to expire.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from flinkjob.election.apiserver import KubernetesApi
from flinkjob.election.leasestore import KubernetesLeaseStore
from flinkjob.election.store import LeaseStore
from flinkjob.jobmanager.eventing import EventPoster
from flinkjob.jobmanager.job import Job
from flinkjob.jobmanager.liveness import TaskManagerWatch
from flinkjob.jobmanager.podwatch import PodWatch
from flinkjob.jobmanager.statuswriter import FIELD_MANAGER, StatusWriter, resource_uid
from flinkjob.jobmanager.surroundings import Leading, keep_doing

TELL_INTERVAL = 1.0
"""Seconds between two looks at what is to be told."""

JOB_LABEL = "flinkjob.io/job"


class KubernetesSurroundings:
    """See Surroundings; made by `in_kubernetes`."""

    def __init__(self, job: Job, api: KubernetesApi, store: LeaseStore, *, pod: str, pod_uid: str) -> None:
        self.predecessors = f"{pod}_{pod_uid}_"
        self.identity = f"{self.predecessors}{secrets.token_hex(4)}"
        self.store = store
        pods = PodWatch(
            api,
            namespace=job.namespace,
            selector=f"{JOB_LABEL}={job.name},app.kubernetes.io/component=taskmanager",
            container="taskmanager",
        )
        self.watch: TaskManagerWatch = pods
        self._pods = pods
        uid = resource_uid(job.manifest.metadata.uid)
        self._status = StatusWriter(api, namespace=job.namespace, name=job.name, uid=uid, job_id=job.id, pod=pod)
        self._events = EventPoster(api, namespace=job.namespace, name=job.name, uid=uid, pod=pod)

    async def attend(self, leading: Callable[[], Leading | None], losses: deque[str]) -> None:
        """See Surroundings."""

        async def tell_status() -> None:
            while True:
                await self._status.tell(leading())
                await asyncio.sleep(TELL_INTERVAL)

        async def tell_events() -> None:
            while True:
                await self._events.tell_losses(losses)
                await self._events.tell(leading())
                await asyncio.sleep(TELL_INTERVAL)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(keep_doing("the watch of the TaskManagers' pods", self._pods.run))
            tasks.create_task(keep_doing("the status", tell_status))
            tasks.create_task(keep_doing("the making of Events", tell_events))


@asynccontextmanager
async def in_kubernetes(
    job: Job, *, pod: str, pod_uid: str, kubeconfig: Path | None = None
) -> AsyncIterator[KubernetesSurroundings]:
    """The surroundings of the JobManager in a pod, for the length of a block.

    Args:
        kubeconfig: None: the pod's own credentials.

    Raises:
        InvalidInput: there are no credentials for the API server.
    """
    async with await KubernetesApi.connect(kubeconfig) as api:
        store = KubernetesLeaseStore(
            api,
            namespace=job.namespace,
            name=f"{job.name}-leader",
            field_manager=FIELD_MANAGER,
            labels={JOB_LABEL: job.name},
        )
        try:
            yield KubernetesSurroundings(job, api, store, pod=pod, pod_uid=pod_uid)
        finally:
            await store.close()
