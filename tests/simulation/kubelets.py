"""Nodes and what runs Kubernetes on them: kubelets, a scheduler, the StatefulSet controller, eviction, garbage collection.

Level-triggered like the real ones: each looks around every few hundred milliseconds and does the next thing. A kubelet acts
on the last that it has heard; one that is cut off neither hears nor tells, and its containers run on. All times are short,
as everything in this world is.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flinkjob.controller import names
from flinkjob.controller.observed import Manifest, Pod, format_time

from .scheduler import Process, Scheduler

if TYPE_CHECKING:
    from .operatedcluster import OperatedCluster

LOOK = 150
"""Milliseconds between two looks around, at least, and at most twice of that."""
GRACE = 2500
"""Between SIGTERM and SIGKILL."""
UNKNOWN_AFTER = 1500
"""A node that was not heard of for so long is no more believed to run anything that is ready."""
EVICTED_AFTER = 5000
"""Pods on a node that was not heard of for so long are deleted; they go when the kubelet is back."""
PROBED_AFTER = 400
BACKOFF = (200, 1000, 2000, 4000, 8000)
"""Before a container is started again."""


@dataclass(slots=True, eq=False)
class Container:
    """The main container of a pod.

    Attributes:
        process: what runs in it; None: nothing does. started: when, by the node's clock.
        restarts: how often it was started again. again_at: when it will be.
        ended: how the last run ended, as the kubelet tells.
        stopping: whether its process has been told to go. evicted: the node had no room for it.
    """

    pod: str
    uid: str
    component: str
    node: "NodeOfCluster"
    process: Process | None = None
    started: float = 0.0
    started_at: int = 0
    restarts: int = -1
    again_at: int = 0
    ended: dict[str, Any] | None = None
    stopping: bool = False
    evicted: bool = False


@dataclass(slots=True, eq=False)
class NodeOfCluster:
    """A machine.

    Attributes:
        skew: milliseconds that its clock is ahead.
        cut_at: since when it reaches nobody; None while it does.
        cordoned: whether it takes no more pods. draining: whether its pods are being evicted.
        containers: by the pod's uid.
    """

    name: str
    skew: int
    cut_at: int | None = None
    cordoned: bool = False
    draining: bool = False
    containers: dict[str, Container] = field(default_factory=dict)


class Machinery:
    """What makes the objects of the API server come true.

    Args:
        world: makes and stops the processes.
    """

    def __init__(self, world: "OperatedCluster", nodes: list[NodeOfCluster]) -> None:
        self._world = world
        self._scheduler: Scheduler = world.scheduler
        self._api = world.api
        self.nodes = nodes
        for node in nodes:
            self._soon(self._kubelet, node)
        self._soon(self._controllers)

    def _soon(self, call: Any, *arguments: Any) -> None:
        self._scheduler.at(self._scheduler.now + LOOK + self._scheduler.below(LOOK), None, call, *arguments)

    def containers(self) -> list[Container]:
        """All containers on all nodes."""
        return [container for node in self.nodes for container in node.containers.values()]

    # Controllers

    def _controllers(self) -> None:
        if not self._api.down:
            self._api.collect_garbage()
            for stateful_set in self._api.all("statefulsets"):
                self._stateful_set(stateful_set)
            for node in self.nodes:
                self._watch_over(node)
            for pod in self._api.all("pods"):
                if not pod["spec"].get("nodeName"):
                    self._schedule(pod)
        self._soon(self._controllers)

    def _stateful_set(self, stateful_set: Manifest) -> None:
        """Parallel, OnDelete: a pod of each number below the replicas, and of no other."""
        job = stateful_set["metadata"]["labels"][names.JOB_LABEL]
        reference = {"kind": "StatefulSet", "controller": True}
        reference |= {key: stateful_set["metadata"][key] for key in ("name", "uid")}
        for ordinal in range(10):
            name = names.jobmanager_pod(job, ordinal)
            pod = self._api.get("pods", name)
            wanted = ordinal < stateful_set["spec"]["replicas"]
            if pod is None and wanted:
                template = stateful_set["spec"]["template"]
                metadata = {**template["metadata"], "name": name, "ownerReferences": [reference]}
                self._api.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
            elif pod is not None and (not wanted or pod.get("status", {}).get("phase") == "Failed"):
                self._api.delete(("pods", name), pod["metadata"]["uid"])

    def _schedule(self, pod: Manifest) -> None:
        open_nodes = [node for node in self.nodes if node.cut_at is None and not node.cordoned]
        if open_nodes:
            component = _component(pod)
            load = [sum(c.component == component for c in node.containers.values()) for node in open_nodes]
            node = open_nodes[load.index(min(load))]
            key = ("pods", pod["metadata"]["name"])
            self._api.update(key, pod["metadata"]["uid"], spec={**pod["spec"], "nodeName": node.name})

    def _watch_over(self, node: NodeOfCluster) -> None:
        """A node that is silent, or that is being drained."""
        pods = [pod for pod in self._api.all("pods") if pod["spec"].get("nodeName") == node.name]
        silent = 0 if node.cut_at is None else self._scheduler.now - node.cut_at
        for pod in pods:
            if silent > UNKNOWN_AFTER and Pod.of(pod).ready:
                status = {**pod["status"], "conditions": [{"type": "Ready", "status": "Unknown"}]}
                self._api.update(("pods", pod["metadata"]["name"]), pod["metadata"]["uid"], status=status)
            if silent > EVICTED_AFTER or (node.draining and self._may_be_disrupted(pod)):
                self._api.delete(("pods", pod["metadata"]["name"]), pod["metadata"]["uid"])

    def _may_be_disrupted(self, pod: Manifest) -> bool:
        """Of JobManagers one may be away (maxUnavailable: 1); one that is not ready may always go."""
        if _component(pod) != names.JOBMANAGER or not Pod.of(pod).ready:
            return True
        stateful_sets = self._api.all("statefulsets")
        wanted = stateful_sets[0]["spec"]["replicas"] if stateful_sets else 0
        ready = [Pod.of(x) for x in self._api.all("pods") if _component(x) == names.JOBMANAGER]
        return sum(x.ready and not x.deleting for x in ready) >= wanted

    # A kubelet

    def _kubelet(self, node: NodeOfCluster) -> None:
        if node.cut_at is None and not self._api.down:
            here = [pod for pod in self._api.all("pods") if pod["spec"].get("nodeName") == node.name]
            known = {pod["metadata"]["uid"] for pod in here}
            for pod in here:
                self._sync(node, pod)
            for container in [c for c in node.containers.values() if c.uid not in known]:
                self._kill(container)
                del node.containers[container.uid]
        for container in list(node.containers.values()):
            self._run_on(container)
        self._soon(self._kubelet, node)

    def _sync(self, node: NodeOfCluster, pod: Manifest) -> None:
        uid, deleting = pod["metadata"]["uid"], "deletionTimestamp" in pod["metadata"]
        container = node.containers.get(uid)
        if container is None:
            if not deleting and not Pod.of(pod).dead:
                container = Container(pod["metadata"]["name"], uid, _component(pod), node)
                container.again_at = self._scheduler.now + self._scheduler.below(800)
                node.containers[uid] = container
        elif deleting or container.evicted:
            self._stop(container)
        if deleting and (container is None or container.process is None):
            node.containers.pop(uid, None)
            self._api.delete(("pods", pod["metadata"]["name"]), uid, now=True)
        elif container is not None:
            self._tell(pod, container)

    def _run_on(self, container: Container) -> None:
        """Start what is to run: a JobManager again and again, a TaskManager once."""
        if container.process is not None or container.stopping or container.again_at > self._scheduler.now:
            return
        if container.ended is not None and container.component != names.JOBMANAGER:
            return
        container.restarts += 1
        container.started, container.started_at = self._world.wall(container.node), self._scheduler.now
        container.process = self._world.start_in(container)

    def _stop(self, container: Container) -> None:
        if container.process is not None and not container.stopping:
            self._world.terminate(container.process)
            self._scheduler.at(self._scheduler.now + GRACE, None, self._kill, container)
        container.stopping = True

    def _kill(self, container: Container) -> None:
        container.stopping = True
        if container.process is not None:
            self._world.kill(container.process)

    def ended(self, process: Process, code: int) -> None:
        """A container's process has ended, by itself or not."""
        container = next(container for container in self.containers() if container.process is process)
        container.process = None
        container.ended = {
            "exitCode": code,
            "reason": "Error" if code else "Completed",
            "startedAt": format_time(container.started),
            "finishedAt": format_time(self._world.wall(container.node)),
        }
        pause = BACKOFF[min(container.restarts, len(BACKOFF) - 1)]
        container.again_at = self._scheduler.now + pause + self._scheduler.below(pause)

    def _tell(self, pod: Manifest, container: Container) -> None:
        """Write what has become of the container into the pod's status."""
        process, ended = container.process, container.ended
        ready, last = False, {}
        if process is not None:
            phase, state = "Running", {"running": {"startedAt": format_time(container.started)}}
            ready = self._is_ready(container, process)
            last = {"terminated": ended} if ended is not None else {}
        elif ended is None:
            phase, state = "Pending", {"waiting": {"reason": "ContainerCreating"}}
        elif container.component == names.JOBMANAGER and not container.evicted:
            told = Pod.of(pod).ended
            phase, state = "Running", {"terminated": ended}
            if told is not None and not Pod.of(pod).started and self._scheduler.now + LOOK < container.again_at:
                state, last = {"waiting": {"reason": "CrashLoopBackOff"}}, {"terminated": ended}
        else:
            phase, state = "Failed" if ended["exitCode"] or container.evicted else "Succeeded", {"terminated": ended}
        told_of: dict[str, Any] = {"name": container.component, "state": state, "lastState": last}
        told_of["restartCount"] = max(0, container.restarts)
        status: dict[str, Any] = {"phase": phase, "containerStatuses": [told_of]}
        status["conditions"] = [{"type": "Ready", "status": str(ready)}]
        if container.evicted and process is None:
            status |= {"reason": "Evicted", "message": "the node was low on resource: memory"}
        self._api.update(("pods", container.pod), container.uid, status=status)

    def _is_ready(self, container: Container, process: Process) -> bool:
        up = self._scheduler.now - container.started_at > PROBED_AFTER
        return up and process.paused_until <= self._scheduler.now and not container.stopping

    # What goes wrong

    def evict(self, container: Container) -> None:
        """The node has no room for it: the kubelet ends it, for good."""
        container.evicted = True

    def node_of(self, process: str) -> str:
        """On which node a process is; "" for whoever is on none of these."""
        found = (c.node.name for c in self.containers() if c.process is not None and c.process.name == process)
        return next(found, "")


def _component(pod: Manifest) -> str:
    return str(pod["metadata"]["labels"][names.COMPONENT_LABEL])
