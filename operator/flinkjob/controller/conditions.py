"""The conditions of a FlinkJob: what is so, why, and what a person can do about it.

Nothing is said that is not known to be true now: without a leader that lives, a job is neither Ready nor Protected, whatever
the last leader wrote. `REASONS` lists all reasons, with what each of them means and its remedy; messages end with it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from flinkjob.api.options import OPERATION_LOG_STORE
from flinkjob.api.status import Condition
from flinkjob.controller.observed import ChildKey, Claim, Pod, format_time
from flinkjob.controller.pods import delay
from flinkjob.controller.situation import Phase, Situation

READY, PROTECTED, RECONCILING, FINISHED, FAILED = "Ready", "Protected", "Reconciling", "Finished", "Failed"

MOST_LAG = 10_000.0
"""Milliseconds that operations may wait for the log before the job no longer counts as protected."""
PATIENCE = 20.0
"""Seconds after which a pod that does not start is told with the reason that is likely."""

_SHARE = "use a claim with ReadWriteMany, or an object store as high-availability.storageDir"

REASONS: Mapping[str, str] = {
    # Ready
    "Running": "",
    "JobManagersStarting": "",
    "TaskManagersStarting": "",
    "WaitingForLeader": "",
    "Reconciling": "",
    "Restarting": "",
    "Suspending": "",
    "Suspended": "set spec.job.state to running to go on",
    "Deleting": "",
    "InvalidSpec": "correct the field; what runs already goes on as it was",
    "NameTaken": "delete or rename that object, or give the FlinkJob another name",
    "RefusedByApiServer": "",
    "PodsNotStarting": "see the pod's events: kubectl describe pod",
    "VolumeNotShared": f"{_SHARE}, or a podTemplate that keeps all pods on one node",
    "ClaimMissing": "create the PersistentVolumeClaim, or correct spec.storage.volume",
    "TaskManagersCrashing": "see its log: kubectl logs",
    "JobManagersCrashing": "see its log: kubectl logs --previous",
    "JobInvalid": "correct the module, the image or the ConfigMap and delete the leader's pod, or correct spec.job and "
    "change spec.restartNonce with it",
    "StorageUnsupported": "name another high-availability.storageDir, and change spec.restartNonce with it",
    "LogUnreadable": "mend the storage and delete the leader's pod, or set jobmanager.failover.on-corrupted-log: restart; "
    "tasks run on, and nothing is decided until then",
    "LogUnavailable": "JobManagers go on trying; tasks run on meanwhile",
    "CleanupFailed": "see the log of the clean-up pod; with spec.deletionPolicy set to Retain the FlinkJob goes and its data "
    "stays",
    # Protected
    "Protected": "",
    "OneNodeOnly": _SHARE,
    "NoOperationLog": f"set spec.storage, or {OPERATION_LOG_STORE.key}: filesystem in spec.flinkConfiguration",
    "NoLeader": "",
    "NoStandby": "set spec.jobManager.replicas to 2 or more",
    "StandbyNotReady": "",
    "LogNotWritable": "make the storage writable; running tasks go on, and nothing new is decided until then",
    "LogLagging": "the storage is slow or overloaded",
    # Reconciling
    "Reconciled": "",
    # Finished and Failed
    "JobFinished": "",
    "JobFailed": "correct the cause, and change spec.restartNonce to run the job anew",
    "JobCanceled": "change spec.restartNonce to run the job anew",
}
"""All reasons, each with its remedy; "" where there is nothing to do but to wait."""

ALARMING = frozenset(
    {
        "InvalidSpec", "NameTaken", "RefusedByApiServer", "PodsNotStarting", "VolumeNotShared", "ClaimMissing",
        "TaskManagersCrashing", "JobManagersCrashing", "LogUnreadable", "CleanupFailed",
        "JobInvalid", "StorageUnsupported", "LogUnavailable", "OneNodeOnly", "LogNotWritable", "LogLagging",
        "NoOperationLog", "JobFailed",
    }
)  # fmt: skip
"""Reasons that a person should look at: their Events are warnings."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A condition without its history.

    Attributes:
        type: READY, PROTECTED, RECONCILING, FINISHED or FAILED.
        holds: whether it does.
        reason: one of `REASONS`.
        problem: what is so, in words, without the remedy.
    """

    type: str
    holds: bool
    reason: str
    problem: str

    @property
    def message(self) -> str:
        """What is so, and the remedy."""
        remedy = REASONS[self.reason]
        return f"{self.problem}; {remedy}" if remedy else self.problem


def findings(situation: Situation, *, taken: Sequence[ChildKey], crashing: str) -> list[Finding]:
    """What can be said of a valid FlinkJob.

    Args:
        situation: what is.
        taken: names of children that belong to somebody else.
        crashing: what a TaskManager that died soon after its start said; "" when there is none.
    """
    found = [_ready(situation, taken, crashing)]
    if situation.phase is Phase.RUNNING:
        found += [_protected(situation), _reconciling(situation)]
    state, error = situation.job_status.state, situation.job_status.error
    if state == "FINISHED":
        found.append(Finding(FINISHED, True, "JobFinished", "the job has finished"))
    elif state == "FAILED":
        found.append(Finding(FAILED, True, "JobFailed", f"the job has failed: {error or 'no cause is known'}"))
    elif state == "CANCELED":
        found.append(Finding(FAILED, True, "JobCanceled", "the job was canceled"))
    return found


def conditions(
    found: Iterable[Finding], present: Iterable[Mapping[str, Any]], *, generation: int, now: float
) -> tuple[Condition, ...]:
    """The findings as conditions; the time of the last transition is kept where the status stays as it is."""
    before = {each.get("type"): each for each in present}
    made = []
    for finding in found:
        status: Literal["True", "False"] = "True" if finding.holds else "False"
        old = before.get(finding.type, {})
        since = old.get("lastTransitionTime") if old.get("status") == status else None
        made.append(
            Condition(
                type=finding.type,
                status=status,
                reason=finding.reason,
                message=finding.message[:1000],
                last_transition_time=since or format_time(now),
                observed_generation=generation,
            )
        )
    return tuple(made)


def changed(found: Iterable[Finding], present: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """The findings that the present conditions do not say yet."""
    before = {(each.get("type"), each.get("status") == "True", each.get("reason")) for each in present}
    return [finding for finding in found if (finding.type, finding.holds, finding.reason) not in before]


def _ready(situation: Situation, taken: Sequence[ChildKey], crashing: str) -> Finding:
    reason, problem = _not_ready(situation, taken, crashing) or ("", "")
    if reason:
        return Finding(READY, False, reason, problem)
    taskmanagers = situation.ready_taskmanagers
    plural = "" if taskmanagers == 1 else "s"
    leader = situation.leader
    assert leader is not None
    return Finding(READY, True, "Running", f"{leader.name} leads {taskmanagers} TaskManager{plural}")


def _not_ready(situation: Situation, taken: Sequence[ChildKey], crashing: str) -> tuple[str, str] | None:
    if taken:
        return "NameTaken", f"{', '.join(map(str, taken))} exists and does not belong to this FlinkJob"
    if situation.phase is not Phase.RUNNING:
        return _not_running(situation)
    if situation.observed.refused:
        return "RefusedByApiServer", situation.observed.refused
    if situation.observed.claim_missing:
        return "ClaimMissing", "the PersistentVolumeClaim that spec.storage.volume names does not exist"
    return (
        _jobmanager_trouble(situation)
        or _taskmanager_trouble(situation, crashing)
        or (("Reconciling", "a new leader is reconciling") if situation.reconciling else None)
    )


def _not_running(situation: Situation) -> tuple[str, str]:
    alive = [pod.name for pod in situation.jobmanagers + situation.taskmanagers if not pod.dead]
    if situation.phase is Phase.RESTARTING:
        return "Restarting", f"the earlier run has to end first; still there: {_some(alive)}"
    if situation.phase is Phase.ENDED:
        told = {"FINISHED": "JobFinished", "CANCELED": "JobCanceled"}.get(situation.job_status.state, "JobFailed")
        return told, f"the job is {situation.job_status.state}"
    if alive:
        return "Suspending", f"still there: {_some(alive)}"
    return "Suspended", "nothing runs"


def _jobmanager_trouble(situation: Situation) -> tuple[str, str] | None:
    if situation.leader is not None:
        return None
    pods = [pod for pod in situation.jobmanagers if pod.counts]
    trouble = situation.trouble
    if trouble is not None and trouble.reason in REASONS:
        return trouble.reason, trouble.message
    for pod in pods:
        if pod.ended is not None and not pod.ready and pod.restarts:
            return "JobManagersCrashing", f"{pod.name} has been started {pod.restarts + 1} times: {pod.ended}"
    stuck = _stuck(situation, pods)
    if stuck is not None:
        return stuck
    if not any(pod.ready for pod in pods):
        return "JobManagersStarting", f"{len(pods)} of {situation.wanted_jobmanagers} JobManagers exist, none is ready"
    return "WaitingForLeader", "no JobManager leads yet"


def _taskmanager_trouble(situation: Situation, crashing: str) -> tuple[str, str] | None:
    ready, wanted = situation.ready_taskmanagers, situation.wanted_taskmanagers
    if ready >= wanted:
        return None
    if crashing:
        return "TaskManagersCrashing", crashing
    stuck = _stuck(situation, [pod for pod in situation.taskmanagers if pod.counts])
    return stuck or ("TaskManagersStarting", f"{ready} of {wanted} TaskManagers are ready")


def _stuck(situation: Situation, pods: Iterable[Pod]) -> tuple[str, str] | None:
    """A pod that has not started for a while, and why."""
    for pod in pods:
        if pod.phase != "Pending" or situation.now - pod.created < PATIENCE:
            continue
        claim = situation.observed.claim
        if claim is not None and claim.one_node_only and _waits_for_volume(situation, pod):
            return "VolumeNotShared", f"{pod.name} does not start, and {_one_node_only(claim)}"
        if pod.trouble or pod.node:
            trouble = (
                pod.trouble or "its container is still being created; its image, or a volume of it, is not there yet"
            )
            return "PodsNotStarting", f"{pod.name}: {trouble}"
    return None


_KEPT_BY_VOLUME = re.compile("volume node affinity|PersistentVolume's node affinity|volume zone|ReadWriteOncePod")
"""What the scheduler says of nodes on which a pod cannot have its volume."""


def _waits_for_volume(situation: Situation, pod: Pod) -> bool:
    """Whether it is for a volume that is in use elsewhere that a pod does not start.

    The scheduler says so of a volume that belongs to a node. Of one that is attached to another node (Multi-Attach) only an
    Event tells; in the pod's status its container is being created, and its node is not that of the pods that run.
    """
    if pod.trouble:
        return _KEPT_BY_VOLUME.search(pod.trouble) is not None
    others = situation.jobmanagers + situation.taskmanagers
    return bool(pod.node) and any(other.started is not None and other.node != pod.node for other in others)


def _one_node_only(claim: Claim) -> str:
    return f"the claim {claim.name} is {', '.join(claim.access_modes)}: it serves one node at a time"


def _protected(situation: Situation) -> Finding:
    reason, problem = _not_protected(situation) or ("", "")
    if reason:
        return Finding(PROTECTED, False, reason, problem)
    names = ", ".join(pod.name for pod in situation.standbys)
    problem, claim = f"the operation log is being written, and {names} can take over", situation.observed.claim
    if claim is not None and claim.one_node_only:
        return Finding(PROTECTED, True, "OneNodeOnly", f"{problem} on the same node; {_one_node_only(claim)}")
    return Finding(PROTECTED, True, "Protected", problem)


def _not_protected(situation: Situation) -> tuple[str, str] | None:
    if not situation.target.logged:
        return "NoOperationLog", "a new leader would restart all tasks, since there is no operation log"
    log = situation.log
    if log is None:
        return "NoLeader", "no JobManager is known to lead"
    if not log.writable:
        return "LogNotWritable", f"the operation log cannot be written: {log.problem or 'no reason is known'}"
    if log.lag_ms > MOST_LAG:
        return "LogLagging", f"operations wait {log.lag_ms / 1000:.0f} s for the operation log"
    if situation.standbys:
        return None
    if situation.wanted_jobmanagers < 2:
        return (
            "NoStandby",
            "there is no standby: should the leader die, nobody leads until Kubernetes has started another",
        )
    waiting = [pod for pod in situation.jobmanagers if pod.counts and pod is not situation.leader]
    stuck = _stuck(situation, waiting)
    if stuck is not None:
        return stuck
    return "StandbyNotReady", f"no standby is ready yet: {_some([pod.name for pod in waiting])}"


def _reconciling(situation: Situation) -> Finding:
    if situation.reconciling:
        return Finding(
            RECONCILING, True, "Reconciling", "the new leader compares the log with what TaskManagers report"
        )
    if situation.leader is None:
        return Finding(RECONCILING, False, "NoLeader", "no JobManager is known to lead")
    return Finding(RECONCILING, False, "Reconciled", "every task that was under way has a verdict")


def crash_message(count: int, message: str) -> str:
    """What is told of TaskManagers that crash again and again."""
    if count < 2:
        return ""
    return f"{count} in a row died soon after their start; the next is made {delay(count):.0f} s after that: {message}"


def as_values(made: Iterable[Condition]) -> list[dict[str, Any]]:
    """Conditions as the API server takes them."""
    return [msgspec.to_builtins(condition) for condition in made]


def _some(names: Sequence[str], most: int = 3) -> str:
    if len(names) <= most:
        return ", ".join(names) or "none"
    return f"{', '.join(names[:most])} and {len(names) - most} more"
