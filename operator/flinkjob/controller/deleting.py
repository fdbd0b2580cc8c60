"""The end of a FlinkJob. Everything that it owns goes with it, by Kubernetes' garbage collector; its data is another matter.

With ``deletionPolicy: Delete`` a finalizer keeps the FlinkJob until all its pods have ended and a pod of its own, which has
the job's storage mounted like any other, has removed the data. With ``Retain``, the default, there is no finalizer and so
nothing that could keep a FlinkJob from going, with or without an operator.
"""

from typing import Any

from flinkjob.api import options as opt
from flinkjob.api.errors import InvalidInput
from flinkjob.controller import names
from flinkjob.controller.actions import Delete, Event, Plan, delete_pod
from flinkjob.controller.observed import ChildKey, Observed, Pod
from flinkjob.controller.podspec import cleanup_pod
from flinkjob.controller.reporting import only_ready
from flinkjob.controller.target import OperatorSettings, resolve

CLEANUP_PAUSE = 30.0
"""Seconds before a clean-up that failed is tried again."""
REMOVING = "the job's data is being removed"


def plan_deletion(observed: Observed, now: float, settings: OperatorSettings) -> Plan:
    """What is to be done for a FlinkJob that is on its way out."""
    metadata = observed.flinkjob["metadata"]
    if names.FINALIZER not in (metadata.get("finalizers") or ()):
        return Plan()
    cleanup = observed.component(names.CLEANUP)
    running = [pod for pod in observed.pods if pod.component != names.CLEANUP and not pod.dead]
    begun = any(child.owner == observed.uid for child in observed.children.values()) or observed.status.get("run")
    if observed.flinkjob["spec"].get("deletionPolicy") != "Delete" or observed.namespace_deleting or not begun:
        return Plan(remove_finalizer=True, deletes=_all_of(cleanup))
    if running:
        return _stop_everything(observed, running, now)
    done = [pod for pod in cleanup if pod.phase == "Succeeded"]
    if done:
        told = Event(reason="CleanedUp", message="the job's data has been removed")
        return Plan(deletes=_all_of(cleanup), remove_finalizer=True, events=(told,))
    if any(not pod.dead for pod in cleanup):
        return _waiting(observed, now, "Deleting", REMOVING)
    return _clean_up(observed, cleanup, now, settings)


def _stop_everything(observed: Observed, running: list[Pod], now: float) -> Plan:
    stateful_set = observed.children.get(ChildKey("StatefulSet", names.jobmanagers(observed.name)))
    deletes = [delete_pod(pod) for pod in running if pod.component == names.TASKMANAGER and not pod.deleting]
    if stateful_set is not None and stateful_set.owner == observed.uid and not stateful_set.deleting:
        deletes.insert(0, Delete(key=stateful_set.key, uid=stateful_set.uid))
    elif stateful_set is None:
        deletes += [delete_pod(pod) for pod in running if pod.component == names.JOBMANAGER and not pod.deleting]
    there = ", ".join(pod.name for pod in running[:3])
    problem = f"{len(running)} pods have to end before the job's data can be removed, among them {there}"
    return _waiting(observed, now, "Deleting", problem, deletes=tuple(deletes))


def _clean_up(observed: Observed, cleanup: tuple[Pod, ...], now: float, settings: OperatorSettings) -> Plan:
    """Start the pod that removes the data; one that failed is removed after a while, to be started again."""
    try:
        target = resolve(observed.flinkjob, settings)
    except InvalidInput as error:
        problem = f"the FlinkJob does not say where its data is: {str(error).removeprefix('FlinkJob: ')}"
        return _waiting(observed, now, "CleanupFailed", problem)
    if not cleanup:
        pod = cleanup_pod(target, target.configuration.get(opt.STORAGE_DIR) or "")
        return _waiting(observed, now, "Deleting", REMOVING, creates=(pod,))
    failed = cleanup[0]
    ended = failed.ended.at if failed.ended is not None else None
    left = (failed.created if ended is None else ended) + CLEANUP_PAUSE - now
    problem = f"the pod {failed.name} failed: {failed.ended}"
    if left > 0:
        return _waiting(observed, now, "CleanupFailed", problem, requeue_after=left)
    return _waiting(observed, now, "CleanupFailed", problem, deletes=_all_of(cleanup))


def _waiting(observed: Observed, now: float, reason: str, problem: str, **actions: Any) -> Plan:
    status, events = only_ready(observed, reason, problem, now)
    return Plan(status=status, events=events, **actions)


def _all_of(pods: tuple[Pod, ...]) -> tuple[Delete, ...]:
    return tuple(delete_pod(pod) for pod in pods if not pod.deleting)
