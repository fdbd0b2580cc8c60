"""The reconcile of a FlinkJob: everything that is observed goes in, what is to be done about it comes out.

Level-triggered: a plan is made of what *is*, never of what has happened, so it does not matter which news were missed, nor
how often the operator has died in between. Applied to a world that lets it be done, a plan leaves a world whose next
plan is empty. Nothing is ever done to an object that does not belong to this very FlinkJob.

The parts of a `Plan` are carried out in the order in which they are listed; if one fails, the rest is left to the next.
"""

from collections.abc import Callable

from flinkjob.api.errors import InvalidInput
from flinkjob.api.status import Crashes, Handover, Wanted
from flinkjob.controller import children, conditions, names
from flinkjob.controller.actions import Apply, Event, Plan, delete_pod
from flinkjob.controller.deleting import plan_deletion
from flinkjob.controller.jobmanagers import plan_jobmanagers
from flinkjob.controller.observed import Child, ChildKey, Manifest, Observed, parse_time
from flinkjob.controller.pods import plan_taskmanagers
from flinkjob.controller.podspec import taskmanager_pod
from flinkjob.controller.reporting import as_conditions, only_ready, status_to_apply, transitions
from flinkjob.controller.situation import Phase, Situation, leader_may_be_dead, typed
from flinkjob.controller.target import OperatorSettings, Target, resolve

SUCCESSOR_PAUSE = 2.0
"""Seconds before another look at objects of an earlier FlinkJob of this name, which the garbage collector is removing."""
LEASE_DOUBT = 30.0
"""Seconds between two looks at the Lease while a JobManager that runs is not ready."""


def plan(observed: Observed, *, now: float, settings: OperatorSettings, suffix: Callable[[], str]) -> Plan:
    """What is to be done for a FlinkJob.

    Args:
        observed: all that is known.
        now: seconds of the Unix epoch.
        settings: what the operator itself is told.
        suffix: gives random ends for the names of pods: lower-case letters and digits.
    """
    if "deletionTimestamp" in observed.flinkjob["metadata"]:
        return plan_deletion(observed, now, settings)
    try:
        target = resolve(observed.flinkjob, settings)
    except InvalidInput as error:
        return _plan_invalid(observed, now, error)
    return _Planning(observed, target, now, suffix).plan()


def taken_names(observed: Observed) -> tuple[ChildKey, ...]:
    """Names of children that belong to somebody else."""
    keys = children.all_keys(observed.name)
    return tuple(key for key in keys if key in observed.children and _foreign(observed, key))


def _foreign(observed: Observed, key: ChildKey) -> bool:
    owner = observed.children[key].owner
    # A candidate that missed the Lease has made one, and could not know the FlinkJob.
    return owner != observed.uid and not (key.kind == "Lease" and not owner)


class _Planning:
    """The plan for a valid FlinkJob."""

    def __init__(self, observed: Observed, target: Target, now: float, suffix: Callable[[], str]) -> None:
        self.observed = observed
        self.target = target
        self.now = now
        self.suffix = suffix
        self.situation = Situation(observed, target, now)
        self.taken = taken_names(observed)
        self.events: list[Event] = []
        self.timers: list[float] = []

    def plan(self) -> Plan:
        situation = self.situation
        deadline = self._time_to_live()
        if deadline is not None and deadline <= self.now:
            told = Event(reason="Expired", message="ttlSecondsAfterFinished is over: the FlinkJob is deleted")
            return Plan(delete_job=True, events=(told,))
        self._look_again_at(deadline)
        applies, settled = self._children()
        jobmanagers = plan_jobmanagers(
            situation.jobmanagers if not self.taken else (),
            wanted=situation.wanted_jobmanagers if situation.phase is Phase.RUNNING else 0,
            spec_hash=self.target.jobmanager_hash,
            nonce=self.target.job.spec.failover_nonce,
            handover=typed(self.observed.status.get("handover"), Handover),
            leader=situation.leader,
        )
        taskmanagers = plan_taskmanagers(
            situation.taskmanagers if not self._stopping_head else (),
            job=self.target.name,
            wanted=situation.wanted_taskmanagers if not self._stopping_head else 0,
            spec_hash=self.target.taskmanager_hash,
            run=self.target.run,
            crashes=self._crashes(),
            now=self.now,
            running_tasks=self.observed.running_tasks,
            suffix=self.suffix,
        )
        if taskmanagers.retry_in is not None:
            self.timers.append(taskmanagers.retry_in)
        self._tell_of_waiting_handover(jobmanagers.handover)
        creates = () if self.taken else taskmanagers.create
        for victim in jobmanagers.delete + taskmanagers.delete:
            if victim.why:
                self.events.append(Event(reason="PodDeleted", message=f"{victim.pod.name} is deleted: {victim.why}"))
        self.events += [Event(reason="PodCreated", message=f"TaskManager {name} is created") for name in creates]
        status = self._status(jobmanagers.handover, taskmanagers.crashes)
        wants_finalizer = self.target.job.spec.deletion_policy == "Delete"
        has_finalizer = names.FINALIZER in (self.observed.flinkjob["metadata"].get("finalizers") or ())
        return Plan(
            add_finalizer=wants_finalizer and not has_finalizer,
            status=status,
            issue_secrets=self._secrets_due(),
            applies=applies,
            creates=tuple(taskmanager_pod(self.target, name) for name in creates),
            deletes=tuple(delete_pod(victim.pod) for victim in jobmanagers.delete + taskmanagers.delete),
            check_lease=situation.phase is Phase.RUNNING and not self.taken and self._lease_in_doubt(),
            remove_finalizer=has_finalizer and not wants_finalizer,
            events=tuple(self.events),
            settled=settled,
            requeue_after=min(self.timers, default=None),
        )

    @property
    def _stopping_head(self) -> bool:
        """Whether the JobManagers of an earlier run have to go before its TaskManagers."""
        return self.situation.phase is Phase.RESTARTING

    def _time_to_live(self) -> float | None:
        """When the FlinkJob is to be deleted."""
        ttl, end = self.target.job.spec.ttl_seconds_after_finished, parse_time(self.situation.job_status.end_time)
        if ttl is None or end is None or not self.situation.ended:
            return None
        return end + ttl

    def _look_again_at(self, moment: float | None) -> None:
        if moment is not None:
            self.timers.append(max(0.0, moment - self.now))

    def _children(self) -> tuple[tuple[Apply, ...], dict[ChildKey, str]]:
        """Children to apply, and the versions of those that are as they should be.

        While one of the names is taken nothing is done: half a job would be no better than none.
        """
        if self.taken:
            if any(self.observed.children[key].owner_name == self.observed.name for key in self.taken):
                self.timers.append(SUCCESSOR_PAUSE)
            return (), dict(self.observed.settled)
        applies, settled = [], {}
        made = children.desired_children(self.target, jobmanagers=self.situation.wanted_jobmanagers)
        for manifest in (children.lease(self.target), *made):
            key = children.key_of(manifest)
            child = self.observed.children.get(key)
            if child is None and key.kind == "Lease":
                led = self.situation.leader_status
                applies.append(Apply(manifest=children.lease(self.target, transitions=led.epoch if led else 0)))
            elif child is None:
                applies.append(Apply(manifest=manifest))
            elif self._in_place(child, manifest):
                settled[key] = child.version
            elif not child.deleting:
                applies.append(Apply(manifest=manifest, uid=child.uid))
        return tuple(applies), settled

    def _in_place(self, child: Child, manifest: Manifest) -> bool:
        if child.key.kind == "Lease":
            return child.owner == self.observed.uid
        if child.applied != manifest["metadata"]["annotations"][names.APPLIED]:
            return False
        return self.observed.settled.get(child.key, child.version) == child.version

    def _secrets_due(self) -> bool:
        if self.taken:
            return False
        due = False
        for name in names.secrets(self.target.name):
            child = self.observed.children.get(ChildKey("Secret", name))
            if child is None or (child.renew_at is not None and child.renew_at <= self.now):
                due = True
            else:
                self._look_again_at(child.renew_at)
        return due

    def _crashes(self) -> Crashes | None:
        """What is remembered of crashes: nothing, once the FlinkJob has been changed."""
        if self.observed.status.get("observedGeneration") != self.observed.flinkjob["metadata"].get("generation"):
            return None
        return typed(self.observed.status.get("crashes"), Crashes)

    def _status(self, handover: Handover | None, crashes: Crashes | None) -> Manifest | None:
        situation, target = self.situation, self.target
        crashing = conditions.crash_message(crashes.count, crashes.message) if crashes is not None else ""
        found = conditions.findings(situation, taken=self.taken, crashing=crashing)
        self.events += transitions(self.observed, found)
        self._look_at_pending_pods()
        tasks = situation.job_status.tasks
        values: Manifest = {
            "conditions": as_conditions(self.observed, found, self.now),
            "currentLeader": situation.leader.name if situation.leader is not None else None,
            "jobManagers": Wanted(wanted=situation.wanted_jobmanagers, ready=situation.ready_jobmanagers),
            "taskManagers": Wanted(wanted=situation.wanted_taskmanagers, ready=situation.ready_taskmanagers),
            "replicas": sum(pod.counts for pod in situation.taskmanagers),
            "selector": names.selector_text(target.name, names.TASKMANAGER),
            "run": target.run,
            "restartNonce": target.job.spec.restart_nonce,
            "image": target.image,
            "tasks": f"{tasks.running}/{tasks.finished}/{tasks.total}" if tasks is not None else None,
            "handover": handover,
            "crashes": crashes,
        }
        if situation.phase is Phase.SUSPENDED and not situation.jobmanagers:
            values["jobStatus"] = {"state": "SUSPENDED"}
        return status_to_apply(self.observed, values)

    def _lease_in_doubt(self) -> bool:
        """Whether the Lease is worth a look. Nobody watches Leases, which change all the time; and a JobManager that runs
        and is not ready may be one that does not see who leads because the Lease is gone."""
        blind = any(pod.counts and pod.started is not None and not pod.ready for pod in self.situation.jobmanagers)
        if blind:
            self.timers.append(LEASE_DOUBT)
        return blind or leader_may_be_dead(self.observed)

    def _tell_of_waiting_handover(self, handover: Handover | None) -> None:
        before = typed(self.observed.status.get("handover"), Handover)
        asked = handover.waiting if handover is not None else None
        if asked is not None and (before is None or before.waiting != asked):
            message = (
                f"failoverNonce {asked} asks for a handover: it waits for a leader, and for a standby that is ready"
            )
            self.events.append(Event(reason="HandoverWaits", message=message, warning=True))

    def _look_at_pending_pods(self) -> None:
        """A pod that does not start says nothing new; after a while that is told."""
        for pod in self.situation.jobmanagers + self.situation.taskmanagers:
            due = pod.created + conditions.PATIENCE
            if pod.counts and pod.phase == "Pending" and due > self.now:
                self._look_again_at(due)


def _plan_invalid(observed: Observed, now: float, error: InvalidInput) -> Plan:
    """Whatever runs goes on as it was, and still does not have to wait for a dead leader."""
    status, events = only_ready(observed, "InvalidSpec", str(error).removeprefix("FlinkJob: "), now)
    check_lease = not taken_names(observed) and leader_may_be_dead(observed)
    return Plan(status=status, events=events, check_lease=check_lease, settled=dict(observed.settled))
