"""One look at a FlinkJob: gather what is observed, make a plan, carry it out.

What the plan is made of comes from the cache; only what is not watched is asked for: a child that the cache does not have
(it may be somebody else's, without our label), the storage's claim, and the Lease when its holder may be dead. Every
answer of the API server goes into the cache at once, so that the next look knows what this one did, however late the
watches are.
"""

import asyncio
import logging
import secrets
import string
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from flinkjob.api.errors import AlreadyChanged, ApiRefused, ApiUnavailable
from flinkjob.controller import children, names
from flinkjob.controller.actions import Apply, Delete, Event, Plan
from flinkjob.controller.cache import Cache, JobKey, slim
from flinkjob.controller.cluster import CLAIM, FLINK_JOB, LEASE, POD, SECRET, Cluster, kind_named, kind_of
from flinkjob.controller.credentials import contents, maintain
from flinkjob.controller.leases import emptied, holder, proof_of_death
from flinkjob.controller.metrics import Milestones
from flinkjob.controller.observed import Child, ChildKey, Claim, Manifest, Observed, Pod
from flinkjob.controller.plan import plan
from flinkjob.controller.target import OperatorSettings, resolve
from flinkjob.controller.telling import Recorder
from flinkjob.controller.workqueue import Look

logger = logging.getLogger(__name__)

SOON = 0.3
"""Seconds to the next look when this one was overtaken by somebody else's change."""
AT_ONCE = 8
"""Pods of one job that are created or deleted at the same time."""
DOUBT = 60.0
"""Seconds between two looks at what is not watched, while a pod does not start."""
_UNWATCHED = (SECRET, LEASE)
_SUFFIX = string.ascii_lowercase + string.digits


@dataclass(slots=True)
class Memory:
    """What is known of one FlinkJob that is written nowhere: it can be lost at any time, and then costs some calls.

    Attributes:
        uid: whose memory this is.
        settled: see `Observed.settled`.
        strangers: objects that have the names of children and do not belong to any job that is watched.
        claim: see `Observed.claim`.
        refused: see `Observed.refused`.
        namespace_deleting: see `Observed.namespace_deleting`.
        milestones: what the metrics already have of the job's life.
        lease_missed: whether the Lease was missing when it was last looked at.
        asked_at: when Secrets and Lease were last asked for again.
    """

    uid: str
    settled: dict[ChildKey, str] = field(default_factory=dict)
    strangers: dict[ChildKey, Manifest] = field(default_factory=dict)
    claim: Claim | None = None
    refused: str = ""
    namespace_deleting: bool = False
    milestones: Milestones | None = None
    lease_missed: bool = False
    asked_at: float = 0.0


class Reconciler:
    """Looks at FlinkJobs; `look` is what the work queue calls.

    Attributes:
        failovers: Leases that were emptied because their holder was dead.

    Args:
        leads: whether this replica may act, at this moment.
        milestone: told what a job's life has come to since the last look.
        now: seconds of the Unix epoch.
        suffix: gives random ends for the names of pods.
    """

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        *,
        settings: OperatorSettings,
        leads: Callable[[], bool],
        milestone: Callable[[Milestones, Milestones], None] = lambda before, after: None,
        now: Callable[[], float] = time.time,
        suffix: Callable[[], str] = lambda: "".join(secrets.choice(_SUFFIX) for _ in range(5)),
    ) -> None:
        self._cluster = cluster
        self._cache = cache
        self._settings = settings
        self._leads = leads
        self._milestone = milestone
        self._now = now
        self._suffix = suffix
        self._recorder = Recorder(cluster)
        self._memories: dict[JobKey, Memory] = {}
        self.failovers = 0

    async def look(self, job: JobKey) -> Look:
        """Bring one FlinkJob, or what is left of it, nearer to what it should be.

        Raises:
            ClusterError: something could not be done.
        """
        flinkjob = self._cache.get(FLINK_JOB, *job)
        if flinkjob is None:
            self._memories.pop(job, None)  # what it owned goes by the garbage collector
            return Look()
        memory = self._memory(job, flinkjob)
        self._note_milestones(memory, flinkjob)
        try:
            observed = await self._observe(job, flinkjob, memory)
            made = plan(observed, now=self._now(), settings=self._settings, suffix=self._suffix)
            memory.settled = dict(made.settled)
            await self._carry_out(made, job, flinkjob, memory)
        except AlreadyChanged as error:
            logger.info("%s: %s", job, error)
            return Look(again_in=SOON)
        return Look(again_in=made.requeue_after)

    def _memory(self, job: JobKey, flinkjob: Manifest) -> Memory:
        uid = flinkjob["metadata"]["uid"]
        memory = self._memories.get(job)
        if memory is None or memory.uid != uid:
            memory = self._memories[job] = Memory(uid)
        return memory

    def _note_milestones(self, memory: Memory, flinkjob: Manifest) -> None:
        reached = Milestones.of(flinkjob)
        if memory.milestones is not None and memory.milestones != reached:
            self._milestone(memory.milestones, reached)
        memory.milestones = reached

    # Observing

    async def _observe(self, job: JobKey, flinkjob: Manifest, memory: Memory) -> Observed:
        deleting = "deletionTimestamp" in flinkjob["metadata"]
        if not deleting:
            self._doubt_unwatched(job, memory)
            await self._ask_for_unknown(job, memory)
        claim, claim_missing = (None, False) if deleting else await self._claim(job, flinkjob, memory)
        return Observed.of(
            flinkjob,
            [*memory.strangers.values(), *self._cache.of_job(job)],
            settled=memory.settled,
            claim=claim,
            claim_missing=claim_missing,
            namespace_deleting=memory.namespace_deleting,
            refused=memory.refused,
        )

    def _doubt_unwatched(self, job: JobKey, memory: Memory) -> None:
        """Nobody tells of Secrets and Leases that go. They are asked for again when it matters: when they belong to an
        earlier FlinkJob of this name, which goes, and when a pod does not start, which may be for want of a Secret."""
        kept = [Child.of(x) for kind in _UNWATCHED for x in self._cache.of_job(job, kind)]
        pods = (Pod.of(pod) for pod in self._cache.of_job(job, POD))
        slow = any(pod.phase == "Pending" and pod.created + DOUBT / 2 < self._now() for pod in pods)
        due = slow and memory.asked_at + DOUBT < self._now()
        if due or any(child.owner not in ("", memory.uid) for child in kept):
            memory.asked_at = self._now()
            for kind in _UNWATCHED:
                self._cache.forget(job, kind)

    async def _ask_for_unknown(self, job: JobKey, memory: Memory) -> None:
        known = {ChildKey(x["kind"], x["metadata"]["name"]) for x in self._cache.of_job(job)}
        memory.strangers = {}
        for key in children.all_keys(job.name):
            if key in known:
                continue
            kind = kind_named(key.kind)
            found = await self._cluster.get(kind, job.namespace, key.name)
            if found is None:
                continue
            found = slim(kind, found)
            if found["metadata"]["labels"].get(names.JOB_LABEL) == job.name:
                self._cache.saw(kind, found)
            else:
                memory.strangers[key] = found

    async def _claim(self, job: JobKey, flinkjob: Manifest, memory: Memory) -> tuple[Claim | None, bool]:
        volume = ((flinkjob["spec"].get("storage") or {}).get("volume") or {}).get("persistentVolumeClaim") or {}
        name = volume.get("claimName") if isinstance(volume, dict) else None
        if not isinstance(name, str):
            return None, False
        if memory.claim is None or memory.claim.name != name:
            memory.claim = None
            try:
                claim = await self._cluster.get(CLAIM, job.namespace, name)
            except ApiRefused as error:
                logger.info("%s: nothing is known of the claim %s: %s", job, name, error)
                return None, False
            if claim is None:
                return None, True
            memory.claim = Claim(name=name, access_modes=tuple(claim["spec"].get("accessModes") or ()))
        return memory.claim, False

    # Acting

    async def _carry_out(self, made: Plan, job: JobKey, flinkjob: Manifest, memory: Memory) -> None:
        if made.check_lease:
            await self._check_lease(job, flinkjob, memory)
        if made.add_finalizer:
            await self._set_finalizer(flinkjob, wanted=True)
        if made.status is not None:
            await self._write_status(flinkjob, made.status)
        told = [event for event in made.events if event.reason not in _DEEDS]
        try:
            await self._make(made, job, flinkjob, memory)
            await _all(self._delete(job, delete) for delete in made.deletes)
            if made.remove_finalizer:
                await self._set_finalizer(flinkjob, wanted=False)
            if made.delete_job:
                await self._delete(job, Delete(key=ChildKey(FLINK_JOB.kind, job.name), uid=memory.uid))
            told = list(made.events)
        finally:
            for event in told:
                await self._recorder.tell(flinkjob, event)

    async def _make(self, made: Plan, job: JobKey, flinkjob: Manifest, memory: Memory) -> None:
        try:
            if made.issue_secrets:
                await self._issue_secrets(job, flinkjob)
            for apply in made.applies:
                await self._apply(apply, memory)
            if made.creates:
                await self._must_know_all_pods(job)
            await _all(self._create(manifest) for manifest in made.creates)
        except ApiRefused as error:
            memory.refused = str(error)
            memory.namespace_deleting = "being terminated" in memory.refused
            raise
        memory.refused, memory.namespace_deleting = "", False

    async def _must_know_all_pods(self, job: JobKey) -> None:
        """A pod that was made by a replica before this one, or whose answer was lost, must not be made once more under
        another name because the watches are late.

        Raises:
            AlreadyChanged: there is a pod that the cache does not have yet.
        """
        listing = await self._cluster.list_metadata(POD, job.namespace, f"{names.JOB_LABEL}={job.name}")
        known = {pod["metadata"]["uid"] for pod in self._cache.of_job(job, POD)}
        unknown = [x["metadata"]["name"] for x in listing.items if x["metadata"]["uid"] not in known]
        if unknown:
            raise AlreadyChanged(f"the watches are late: nothing is known yet of the pod {unknown[0]}")

    async def _check_lease(self, job: JobKey, flinkjob: Manifest, memory: Memory) -> None:
        """Empty the Lease if its holder is certainly dead. The pod is read after the Lease: `leases`.

        Raises:
            AlreadyChanged: somebody has deleted the Lease, or taken it in the meantime.
        """
        lease = await self._cluster.get(LEASE, job.namespace, names.lease(job.name))
        missed, memory.lease_missed = memory.lease_missed, lease is None
        if lease is None and not missed:
            self._cache.forget(job, LEASE)
            raise AlreadyChanged(f"the Lease {names.lease(job.name)} is gone")
        held_by = holder(lease) if lease is not None else None
        if lease is None or held_by is None:
            return
        proof = proof_of_death(lease, await self._cluster.get(POD, job.namespace, held_by.pod))
        if proof is None:
            return
        self._must_lead()
        await self._cluster.replace(emptied(lease, proof))
        self.failovers += 1
        logger.info("%s: %s; its Lease is free", job, proof)
        lost = Event(reason="LeaderLost", message=f"{proof}; a standby need not wait for its Lease", warning=True)
        await self._recorder.tell(flinkjob, lost)

    async def _write_status(self, flinkjob: Manifest, status: Manifest) -> None:
        self._must_lead()
        metadata = {key: flinkjob["metadata"][key] for key in ("name", "namespace", "uid")}
        body = {"apiVersion": flinkjob["apiVersion"], "kind": flinkjob["kind"], "metadata": metadata, "status": status}
        self._keep(await self._cluster.apply(body, subresource="status"))

    async def _set_finalizer(self, flinkjob: Manifest, *, wanted: bool) -> None:
        self._must_lead()
        metadata = flinkjob["metadata"]
        others = [each for each in metadata.get("finalizers") or () if each != names.FINALIZER]
        changed = [*others, names.FINALIZER] if wanted else others
        left = await self._cluster.set_finalizers(FLINK_JOB, metadata, changed)
        if left is not None:
            self._keep(left)

    async def _issue_secrets(self, job: JobKey, flinkjob: Manifest) -> None:
        present: dict[str, Manifest] = {}
        for name in names.secrets(job.name):
            if self._cache.get(SECRET, job.namespace, name) is not None:
                secret = await self._cluster.get(SECRET, job.namespace, name)
                if secret is not None:
                    present[name] = secret
        now = datetime.fromtimestamp(self._now(), UTC)
        credentials = maintain(present, job=job.name, namespace=job.namespace, now=now)
        target = resolve(flinkjob, self._settings)
        for content in contents(credentials, job=job.name, now=now):
            manifest = children.secret(
                target, content.name, type=content.type, data=content.data, renew_at=content.renew_at
            )
            if content.name in present:
                manifest["metadata"]["uid"] = present[content.name]["metadata"]["uid"]
            self._must_lead()
            self._keep(await self._cluster.apply(manifest))

    async def _apply(self, apply: Apply, memory: Memory) -> None:
        self._must_lead()
        manifest = apply.manifest
        if apply.uid:
            manifest = {**manifest, "metadata": {**manifest["metadata"], "uid": apply.uid}}
        applied = await self._cluster.apply(manifest)
        self._keep(applied)
        child = Child.of(applied)
        memory.settled[child.key] = child.version

    async def _create(self, manifest: Manifest) -> None:
        self._must_lead()
        self._keep(await self._cluster.create(manifest))

    async def _delete(self, job: JobKey, delete: Delete) -> None:
        self._must_lead()
        kind, name = kind_named(delete.key.kind), delete.key.name
        left = await self._cluster.delete(kind, job.namespace, name, uid=delete.uid)
        if left is None:
            self._cache.lost(kind, job.namespace, name, delete.uid)
        else:
            self._keep(left)

    def _keep(self, manifest: Manifest) -> None:
        kind = kind_of(manifest)
        self._cache.saw(kind, slim(kind, manifest))

    def _must_lead(self) -> None:
        if not self._leads():
            raise ApiUnavailable("this replica of the operator acts no more")


_DEEDS = ("PodCreated", "PodDeleted", "CleanedUp", "Expired")
"""Events that tell what has been done; not to be told of what was not."""


async def _all(calls: Iterable[Coroutine[Any, Any, None]]) -> None:
    """All of them, some at once; the first error after all have ended."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def limited(call: Coroutine[Any, Any, None]) -> None:
        async with limit:
            await call

    for outcome in await asyncio.gather(*map(limited, calls), return_exceptions=True):
        if outcome is not None:
            raise outcome
