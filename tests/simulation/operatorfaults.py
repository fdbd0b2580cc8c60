"""What goes wrong around the operator, and what people ask of it: faults beside those of the core, of a seed likewise."""

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from flinkjob.controller import names
from flinkjob.controller.observed import Manifest

from . import faults
from .faults import CALM_FROM, Fault
from .scheduler import Trap

if TYPE_CHECKING:
    from .kubelets import NodeOfCluster
    from .operatedcluster import OperatedCluster
    from .operatorprocess import OperatorProcess

WINDOW = 4500
"""Most faults come while the job, which takes about as long when nothing goes wrong, is under way."""


def plan(seed: int) -> list[Fault]:
    """The faults of a seed: some of the core's, and more of those here."""
    random = Random(seed + 0.25)
    own = [kind for kind, (_, weight) in FAULTS.items() for _ in range(weight)]
    core = list(faults._FAULTS)
    if random.random() < 0.3:
        own = random.sample(own, 4)
    made = []
    for _ in range(random.choice((2, 3, 4, 6, 8, 12))):
        at = int(random.random() * (CALM_FROM - 3000 if random.random() < 0.3 else WINDOW))
        duration = int(random.choice((100, 800, 3000, 7000)) * random.uniform(0.3, 1))
        kind = random.choice(own if random.random() < 0.75 else core)
        point = random.choice(faults._POINTS_OF.get(kind, ("",)))
        made.append(Fault(at, kind, random.random(), random.random(), min(duration, CALM_FROM - 1 - at), point))
    return sorted(made, key=lambda fault: fault.at)


def _later(world: "OperatedCluster", fault: Fault, call: Callable[..., None], *arguments: Any) -> None:
    world.scheduler.at(world.scheduler.now + fault.duration, None, call, *arguments)


# Operators


def _operator(world: "OperatedCluster", fault: Fault) -> "OperatorProcess | None":
    """Mostly the one that acts."""
    alive = [operator for operator in world.operators.values() if operator.alive]
    acting = [operator for operator in alive if operator.leads]
    chosen = acting if acting and fault.number < 0.85 else alive
    return chosen[int(fault.pick * len(chosen))] if chosen else None


def _kill_operator(world: "OperatedCluster", fault: Fault) -> None:
    """It dies, and is started again."""
    if operator := _operator(world, fault):
        operator.die()


def _kill_operator_midway(world: "OperatedCluster", fault: Fault) -> None:
    """It dies between two of its actions, or before it learns what has come of one."""
    if operator := _operator(world, fault):
        operator.trap = Trap("call" if fault.pick < 0.5 else "answer", int(fault.number * 9))


def _stop_operator_midway(world: "OperatedCluster", fault: Fault) -> None:
    """It is stopped when it has decided, and does it when it goes on."""
    if operator := _operator(world, fault):
        operator.trap = Trap("call", int(fault.number * 9), 1000 + fault.duration)


def _stop_operator(world: "OperatedCluster", fault: Fault) -> None:
    """It is stopped, and goes on later as if nothing had been."""
    if operator := _operator(world, fault):
        operator.pause(fault.duration)


def _restart_operator(world: "OperatedCluster", fault: Fault) -> None:
    """It is asked to end (an upgrade), and another one starts."""
    if operator := _operator(world, fault):
        operator.stop()


def _no_operator(world: "OperatedCluster", fault: Fault) -> None:
    """There is no operator for a while."""
    for name, operator in world.operators.items():
        world.away.add(name)
        operator.die()
        _later(world, fault, _operator_is_back, world, name)


def _operator_is_back(world: "OperatedCluster", name: str) -> None:
    world.away.discard(name)
    world.start_operator(name)


def _late_takeover(world: "OperatedCluster", fault: Fault) -> None:
    """The one that acts dies midway and stays away; the next one's watches are late."""
    if operator := _operator(world, fault):
        _two_operators(world, fault)
        _lag(world, fault)
        operator.trap = Trap("answer", int(fault.pick * 5))
        world.away.add(operator.name)
        _later(world, fault, _operator_is_back, world, operator.name)


def _two_operators(world: "OperatedCluster", fault: Fault) -> None:
    """Somebody runs one more."""
    world.start_operator(f"operator-{len(world.operators)}")


# The API server


def _outage(world: "OperatedCluster", fault: Fault) -> None:
    """It answers nobody for a while, and its watches break."""

    def over() -> None:
        world.api.down = False

    world.api.down = True
    world.api.break_streams()
    _later(world, fault, over)


def _storm(world: "OperatedCluster", fault: Fault) -> None:
    """It refuses many calls for the moment: 429 and 500."""

    def over() -> None:
        world.api.storm = 0.0

    world.api.storm = 0.3 + fault.number * 0.7
    _later(world, fault, over)


def _lose_answers(world: "OperatedCluster", fault: Fault) -> None:
    """It does what it is asked to, and the answers are lost."""

    def over() -> None:
        world.api.lossy = 0.0

    world.api.lossy = 0.2 + fault.number * 0.6
    _later(world, fault, over)


def _lag(world: "OperatedCluster", fault: Fault) -> None:
    """Watches are seconds late."""

    def over() -> None:
        for operator in world.operators.values():
            operator.api.lag = 60

    for operator in world.operators.values():
        operator.api.lag = 500 + int(fault.number * 6000)
    _later(world, fault, over)


def _compact(world: "OperatedCluster", fault: Fault) -> None:
    """Watches break, and cannot go on where they were."""
    world.api.compacted = world.api.version
    world.api.break_streams()


# Pods and nodes


def _pod(world: "OperatedCluster", fault: Fault, component: str) -> Manifest | None:
    pods = [pod for pod in world.api.all("pods") if pod["metadata"]["labels"][names.COMPONENT_LABEL] == component]
    leader = world.flinkjob.get("status", {}).get("leader", {}).get("pod")
    leading = [pod for pod in pods if pod["metadata"]["name"] == leader]
    pods = leading if leading and fault.number < 0.6 else pods
    return pods[int(fault.pick * len(pods))] if pods else None


def _delete_jobmanager(world: "OperatedCluster", fault: Fault) -> None:
    """Somebody deletes a JobManager's pod, mostly the leader's."""
    if pod := _pod(world, fault, names.JOBMANAGER):
        world.api.delete(("pods", pod["metadata"]["name"]), pod["metadata"]["uid"])


def _delete_taskmanager(world: "OperatedCluster", fault: Fault) -> None:
    """Somebody deletes a TaskManager's pod."""
    if pod := _pod(world, fault, names.TASKMANAGER):
        world.api.delete(("pods", pod["metadata"]["name"]), pod["metadata"]["uid"])


def _force_delete(world: "OperatedCluster", fault: Fault) -> None:
    """Somebody deletes a pod by force, and does not wait for its process."""
    if pod := _pod(world, fault, names.JOBMANAGER if fault.number < 0.5 else names.TASKMANAGER):
        world.disown(pod)


def _evict(world: "OperatedCluster", fault: Fault) -> None:
    """A node has no memory left for a pod."""
    containers = [container for container in world.machinery.containers() if container.process is not None]
    if containers:
        world.machinery.evict(containers[int(fault.pick * len(containers))])


def _node(world: "OperatedCluster", fault: Fault) -> "NodeOfCluster":
    """Mostly the leader's."""
    pod = _pod(world, fault, names.JOBMANAGER)
    nodes = world.machinery.nodes
    found = [node for node in nodes if pod is not None and node.name == pod["spec"].get("nodeName")]
    return found[0] if found else nodes[int(fault.pick * len(nodes))]


def _cut_off(world: "OperatedCluster", fault: Fault) -> None:
    """A node reaches nobody for a while; somebody may take it for dead and delete its pods by force."""
    node = _node(world, fault)
    if any(other.cut_at is not None for other in world.machinery.nodes):
        return
    world.cut_off(node)
    _later(world, fault, _mend, world, node)
    if fault.number < 0.2:
        for container in list(node.containers.values()):
            pod = world.api.get("pods", container.pod)
            if pod is not None and pod["metadata"]["uid"] == container.uid:
                world.disown(pod)


def _mend(world: "OperatedCluster", node: "NodeOfCluster") -> None:
    if node.cut_at is not None:
        world.mend(node)


def _lose_power(world: "OperatedCluster", fault: Fault) -> None:
    """All processes of a node die, and its kubelet is away for a moment."""
    node = _node(world, fault)
    if any(other.cut_at is not None for other in world.machinery.nodes):
        return
    world.cut_off(node)
    for container in list(node.containers.values()):
        if container.process is not None:
            world.kill(container.process)
    _later(world, fault, _mend, world, node)


def _drain(world: "OperatedCluster", fault: Fault) -> None:
    """A node is drained, and comes back."""

    def over() -> None:
        node.cordoned = node.draining = False

    node = _node(world, fault)
    node.cordoned = node.draining = True
    _later(world, fault, over)


# What people do


def _delete_lease(world: "OperatedCluster", fault: Fault) -> None:
    """Somebody deletes the Lease: then its holder and another one may take themselves for the leader, for a term's length."""
    lease = world.api.get("leases", names.lease(world.job))
    if lease is not None:
        world.oversight.leases_were_deleted = world.clocks_are_wrong = True
        world.api.delete(("leases", names.lease(world.job)), lease["metadata"]["uid"])


def _delete_child(world: "OperatedCluster", fault: Fault) -> None:
    """Somebody deletes something that the operator has made."""
    plurals = ("services", "configmaps", "roles", "poddisruptionbudgets", "statefulsets")
    plural = plurals[int(fault.number * len(plurals))]
    children = world.api.all(plural)
    if children:
        metadata = children[int(fault.pick * len(children))]["metadata"]
        world.api.delete((plural, metadata["name"]), metadata["uid"])


def _scale_taskmanagers(world: "OperatedCluster", fault: Fault) -> None:
    """More or fewer TaskManagers are wanted, perhaps only for a while."""
    before = world.flinkjob["spec"]["taskManager"]
    world.edit(taskManager={"replicas": 1 + int(fault.pick * 3)})
    if fault.number < 0.5:
        _later(world, fault, lambda: world.edit(taskManager=before))


def _scale_jobmanagers(world: "OperatedCluster", fault: Fault) -> None:
    """More or fewer JobManagers are wanted."""
    world.edit(jobManager={"replicas": 1 + int(fault.pick * 3)})


def _suspend(world: "OperatedCluster", fault: Fault) -> None:
    """The job is suspended for a while."""

    def resume() -> None:
        world.edit(job={**world.flinkjob["spec"]["job"], "state": "running"})

    world.edit(job={**world.flinkjob["spec"]["job"], "state": "suspended"})
    _later(world, fault, resume)


def _hand_over(world: "OperatedCluster", fault: Fault) -> None:
    """Somebody asks for a handover."""
    world.edit(failoverNonce=world.flinkjob["spec"]["failoverNonce"] + 1)


def _new_image(world: "OperatedCluster", fault: Fault) -> None:
    """The job gets another image."""
    world.edit(image=f"flinkjob:{int(fault.pick * 3)}")


FAULTS: dict[str, tuple[Callable[["OperatedCluster", Fault], None], int]] = {
    "kill the operator": (_kill_operator, 2),
    "kill the operator midway": (_kill_operator_midway, 5),
    "stop the operator midway": (_stop_operator_midway, 4),
    "stop the operator": (_stop_operator, 3),
    "restart the operator": (_restart_operator, 1),
    "no operator": (_no_operator, 2),
    "a late takeover": (_late_takeover, 3),
    "two operators": (_two_operators, 2),
    "outage of the API server": (_outage, 3),
    "storm of the API server": (_storm, 3),
    "lost answers of the API server": (_lose_answers, 4),
    "late watches": (_lag, 5),
    "compaction": (_compact, 1),
    "delete a JobManager": (_delete_jobmanager, 4),
    "delete a TaskManager": (_delete_taskmanager, 3),
    "delete by force": (_force_delete, 2),
    "evict a pod": (_evict, 2),
    "cut a node off": (_cut_off, 4),
    "a node loses power": (_lose_power, 2),
    "drain a node": (_drain, 2),
    "delete the Lease": (_delete_lease, 1),
    "delete a child": (_delete_child, 2),
    "scale the TaskManagers": (_scale_taskmanagers, 3),
    "scale the JobManagers": (_scale_jobmanagers, 2),
    "suspend": (_suspend, 2),
    "hand over": (_hand_over, 3),
    "another image": (_new_image, 2),
}
