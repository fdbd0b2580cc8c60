"""Which JobManager pods to delete, so that their StatefulSet makes them anew: the rollout of a change, and handovers.

A leader that is deleted hands over by itself: it releases the Lease on SIGTERM, and a standby that is ready leads within
a moment. So a rollout replaces the standbys first, one at a time and only while all others are ready, and the leader last;
one that does not become ready stops the rollout where the job still runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from flinkjob.api.status import Handover
from flinkjob.controller.observed import Pod
from flinkjob.controller.pods import Victim


@dataclass(frozen=True, slots=True, kw_only=True)
class JobManagerPlan:
    """What to do with the JobManagers.

    Attributes:
        delete: pods to delete.
        handover: what to remember of the latest handover; to be written before the pods are deleted.
    """

    delete: tuple[Victim, ...] = ()
    handover: Handover | None = None


def plan_jobmanagers(
    pods: Sequence[Pod],
    *,
    wanted: int,
    spec_hash: str,
    nonce: int,
    handover: Handover | None,
    leader: Pod | None,
) -> JobManagerPlan:
    """The next step of a rollout or a handover.

    Args:
        pods: the JobManagers' pods.
        wanted: how many there should be; 0 while the job does not run.
        spec_hash: what a pod should be made of.
        nonce: the FlinkJob's ``failoverNonce``.
        handover: the handover that is remembered.
        leader: the pod that leads, where that is certain.
    """
    alive = [pod for pod in pods if pod.counts]
    handover, due = _asked(nonce, handover, alive, wanted, leader)
    if due is not None:
        return JobManagerPlan(delete=(Victim(pod=due, why="failoverNonce asks for a handover"),), handover=handover)
    next_one = _outdated(alive, wanted, spec_hash, leader) if wanted else None
    why = "its specification has changed"
    delete = () if next_one is None else (Victim(pod=next_one, why=why),)
    return JobManagerPlan(delete=delete, handover=handover)


def _asked(
    nonce: int, handover: Handover | None, alive: Sequence[Pod], wanted: int, leader: Pod | None
) -> tuple[Handover, Pod | None]:
    """What to remember, and the pod that has to hand over now."""
    if handover is None or (nonce != handover.nonce and not wanted):
        return Handover(nonce=nonce), None
    if nonce == handover.nonce:
        # Remembered, but perhaps not done: the operator may have died in between.
        due = next((pod for pod in alive if pod.uid == handover.uid), None)
        return Handover(nonce=nonce, uid=handover.uid), due
    if leader is not None and (wanted == 1 or any(pod.ready and pod.uid != leader.uid for pod in alive)):
        return Handover(nonce=nonce, uid=leader.uid), leader
    return Handover(nonce=handover.nonce, uid=handover.uid, waiting=nonce), None


def _outdated(alive: Sequence[Pod], wanted: int, spec_hash: str, leader: Pod | None) -> Pod | None:
    """The next pod to replace. The StatefulSet never makes up for one that is on its way out before that is gone."""
    outdated = [pod for pod in alive if pod.spec_hash != spec_hash]
    useless = [pod for pod in outdated if not pod.ready and pod is not leader]
    if useless:
        return useless[0]
    if not outdated or len(alive) < wanted or not all(pod.ready for pod in alive):
        return None
    standbys = [pod for pod in outdated if leader is not None and pod.uid != leader.uid]
    if standbys:
        return max(standbys, key=lambda pod: (len(pod.name), pod.name))
    return leader if leader is not None else outdated[0] if wanted == 1 else None
