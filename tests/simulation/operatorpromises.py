"""What must be true of the operator whatever happens, beside what is promised of the core: each promise is a function.

Most are checked where it counts: at the API server, at the moment at which a call of the operator's would change something.
An operator acts upon what it has seen, which is late; so what somebody has asked for since the look that it acts upon
counts as asked for, and nothing else does.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from controller.world import SETTINGS
from flinkjob.controller import names
from flinkjob.controller.observed import Manifest, Observed, Pod
from flinkjob.controller.plan import plan
from flinkjob.controller.target import resolve
from flinkjob.graph.states import JobStatus

from . import promises
from .kubernetes import Call, Happened

if TYPE_CHECKING:
    from .operatedcluster import OperatedCluster

promises.FILES.add(__file__)

TO_SETTLE = 6000
"""Milliseconds in which an operator that works, on an API server that does, has told of what has changed."""


class Oversight:
    """What the promises remember of a run.

    Attributes:
        specs: all that the FlinkJob's spec ever was, by generation.
        leases_were_deleted: somebody has deleted the election's Lease, so that two may take themselves for its holder.
        done: how often the operator has done what, for those who want to know that it did.
    """

    def __init__(self, world: "OperatedCluster") -> None:
        self._world = world
        self.specs: dict[int, Manifest] = {}
        self.leases_were_deleted = False
        self.changed_at = 0
        self.untrue_since: int | None = None
        self.done: set[str] = set()
        world.api.audit = self._check_call
        world.api.listeners.append(self._heard)

    def _heard(self, plural: str, happened: Happened) -> None:
        if plural == "flinkjobs":
            self.specs[happened.object["metadata"]["generation"]] = happened.object["spec"]
        if plural not in ("leases", "events"):
            self.changed_at = self._world.scheduler.now

    def _check_call(self, call: Call, plural: str, present: Manifest | None) -> None:
        world = self._world
        if call.user != "operator":
            return
        if plural != "events" and "flinkjob-operator" not in call.path:
            world.scheduler.note("operator", f"{call.method} {call.path.rpartition('default/')[2]}")
        if plural == "leases" and call.method == "PUT" and present is not None:
            the_lease_is_taken_from_the_dead_alone(world, call, present)
        elif plural == "pods" and call.method == "POST":
            no_more_taskmanagers_than_wanted(world, call)
        elif plural == "pods" and call.method == "DELETE" and present is not None:
            nothing_is_deleted_that_nobody_asked_for(world, call, present)

    def since(self, generation: int) -> list[Manifest]:
        """What the spec has been since a generation."""
        return [spec for number, spec in self.specs.items() if number >= generation]


# Whenever the operator does something


def the_lease_is_taken_from_the_dead_alone(world: "OperatedCluster", call: Call, present: Manifest) -> None:
    """The operator empties the Lease only if its holder's process is dead.

    A pod that was deleted by force counts as dead: whoever does that says so, and the log's fence copes if he is wrong.
    """
    body = call.body or {}
    holder = present["spec"].get("holderIdentity")
    if holder not in world.candidates or body["metadata"]["resourceVersion"] != present["metadata"]["resourceVersion"]:
        return
    process = world.candidates[holder]
    world.oversight.done.add("freed the Lease")
    assert not process.alive or process in world.disowned, f"the Lease is taken from {process.name}, which lives"


def no_more_taskmanagers_than_wanted(world: "OperatedCluster", call: Call) -> None:
    """There are never more TaskManagers' pods, but for those that have ended or are on their way out, than are wanted."""
    if world.api.get("pods", (call.body or {})["metadata"]["name"]) is not None:
        return  # made again, because the answer was lost
    present = [pod for pod in _pods(world, names.TASKMANAGER) if pod.counts]
    most = max(spec["taskManager"]["replicas"] for spec in world.oversight.since(call.known))
    world.oversight.done.add("made a TaskManager")
    there = ", ".join(pod.name for pod in present)
    assert len(present) < most, f"one more TaskManager is made, of {most}, and there are {there}"


def nothing_is_deleted_that_nobody_asked_for(world: "OperatedCluster", call: Call, present: Manifest) -> None:
    """The operator deletes no pod of a healthy job that nothing asked for; so no consistent task is restarted by its doing.

    What asks: the job is over, or is to be suspended; there are more TaskManagers than are wanted; the pod's specification
    has changed; a handover, which is remembered in the status before the pod goes.
    """
    pod = Pod.of(present)
    if pod.uid != (call.body or {})["preconditions"]["uid"] or not pod.counts:
        return
    specs = world.oversight.since(call.known)
    if world.graph.status.terminal or any(spec["job"]["state"] == "suspended" for spec in specs):
        return
    status = world.flinkjob.get("status") or {}
    if pod.component == names.TASKMANAGER:
        fewest = min(spec["taskManager"]["replicas"] for spec in specs)
        asked = sum(each.counts for each in _pods(world, names.TASKMANAGER)) > fewest
    else:
        asked = (status.get("handover") or {}).get("uid") == pod.uid
    world.oversight.done.add(f"deleted a {pod.component}")
    assert asked or any(_hash(world, pod, spec) != pod.spec_hash for spec in specs), (
        f"{pod.name} is deleted for nothing"
    )


def _hash(world: "OperatedCluster", pod: Pod, spec: Manifest) -> str:
    target = resolve({**world.flinkjob, "spec": spec}, SETTINGS)
    return target.taskmanager_hash if pod.component == names.TASKMANAGER else target.jobmanager_hash


# Often


def check_often(world: "OperatedCluster") -> None:
    """All that must be true at any time."""
    if not _settles(world) or _says_what_is(world):
        world.oversight.untrue_since = None
    else:
        the_status_is_true(world)


def the_status_is_true(world: "OperatedCluster") -> None:
    """The status says Ready only while the leader that it names lives, and as many TaskManagers as are wanted, once an
    operator that works on an API server that does has had the time to say otherwise."""
    oversight, now = world.oversight, world.scheduler.now
    oversight.untrue_since = oversight.untrue_since or now
    for_how_long = now - oversight.untrue_since
    assert for_how_long < TO_SETTLE, f"for {for_how_long} ms the status says Ready, and that is not so"


def _settles(world: "OperatedCluster") -> bool:
    """Whether an operator acts, and neither it nor the API server is out of order."""
    api, now = world.api, world.scheduler.now
    acting = any(x.leads and x.paused_until <= now and x.api.lag < 100 for x in world.operators.values())
    return acting and not api.down and not api.storm and not api.lossy


def _says_what_is(world: "OperatedCluster") -> bool:
    status: dict[str, Any] = world.flinkjob.get("status") or {}
    if not any(x["type"] == "Ready" and x["status"] == "True" for x in status.get("conditions", ())):
        return True
    leader = world.jobmanagers.get(status.get("leader", {}).get("pod", ""))
    taskmanagers = sum(taskmanager.alive for taskmanager in world.taskmanagers.values())
    return leader is not None and leader.alive and taskmanagers >= world.flinkjob["spec"]["taskManager"]["replicas"]


# In the end


def check_end(world: "OperatedCluster") -> None:
    """All that must be true when the job is over and all has come to rest."""
    another_look_changes_nothing(world)
    the_plan_is_idle(world)
    the_end_is_told(world)


def another_look_changes_nothing(world: "OperatedCluster") -> None:
    """When all has come to rest, which it does, and the operator looks again, nothing is changed."""
    assert not world.changed_by_another_look, "another look of the operator's has changed something"


def the_plan_is_idle(world: "OperatedCluster") -> None:
    """Applied to what is there, the plan changes nothing, now or again.

    But for a Lease that somebody has deleted and a candidate has made anew: Leases are not watched.
    """
    objects = [x for key, x in world.api.objects.items() if key[0] not in ("flinkjobs", "events")]
    observed = Observed.of(world.flinkjob, [x for x in objects if x["metadata"]["name"] != "flinkjob-operator"])
    made = plan(observed, now=world.wall(None), settings=SETTINGS, suffix=world.suffix)
    if world.oversight.leases_were_deleted:
        made = replace(made, applies=tuple(x for x in made.applies if x.manifest["kind"] != "Lease"))
    assert made.idle, f"there is still something to do: {made}"


def the_end_is_told(world: "OperatedCluster") -> None:
    """The status tells the job's end, one JobManager is left to answer questions, and no TaskManager."""
    state = world.flinkjob["status"]["jobStatus"]["state"]
    assert world.result is not None
    assert state == JobStatus(world.result).name, f"the job is {world.result}; it is told to be {state}"
    alive = [jobmanager.container.pod for jobmanager in world.candidates.values() if jobmanager.alive]
    assert len(alive) == 1, f"JobManagers that are left: {alive}"


def _pods(world: "OperatedCluster", component: str) -> list[Pod]:
    return [pod for pod in map(Pod.of, world.api.all("pods")) if pod.component == component]
