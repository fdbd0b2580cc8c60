"""Outages of the cluster itself, around a job that runs: what the tasks must not notice.

Each test compares for every running task the pod, the container, the processes and the attempt before and after, that it has
counted on all the while, and how many lines the tasks themselves have written when they began.
"""

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator

import pytest

from cluster.kindcluster import Cluster
from jobs import Job
from kubernetes_cluster import Tasks, eventually


def check_no_failover(job: Job, before: Tasks, leader: str) -> None:
    """The same leader leads the first epoch still, and no task has noticed anything up to the exact result."""
    job.unnoticed(before, epoch=1)
    assert job.leader() == leader
    job.finish()
    assert job.starts() == job.once()


@pytest.mark.alone
@pytest.mark.long
def test_the_api_server_is_down_for_a_minute(job: Job, nodes: Cluster) -> None:
    """That is longer than a Lease lasts; the log tells the leader that nobody has taken its place."""
    job.create()
    before, leader = job.holding(), job.leader()
    with _without_api_server(job, nodes):
        time.sleep(60)
    check_no_failover(job, before, leader)


@pytest.mark.alone
@pytest.mark.long
def test_the_leader_is_lost_while_the_api_server_is_down(job: Job, nodes: Cluster) -> None:
    """Nobody can take the Lease until the API server is back; the tasks wait for as long as they are told to."""
    job.create(flinkConfiguration={"taskmanager.reconnection.timeout": "10 min", "heartbeat.timeout": "10 s"})
    before, dead = job.holding(), job.leader()
    pod = job.kubernetes.get(job.namespace, "pod", dead)
    container = pod["status"]["containerStatuses"][0]["containerID"].partition("://")[2]
    with _without_api_server(job, nodes):
        kill = ("ctr", "--namespace=k8s.io", "tasks", "kill", "--signal=SIGKILL", container)
        nodes.on_node(pod["spec"]["nodeName"], *kill)
        time.sleep(60)
    eventually(lambda: job.status()["leader"]["epoch"] == 2, "somebody leads the next epoch")
    job.unnoticed(before, epoch=2)
    told = job.failover(2)
    assert (told["verdicts"]["continued"], told["verdicts"]["restarted"]) == (len(before), 0), told
    job.finish()
    assert job.starts() == job.once()


@pytest.mark.alone
def test_the_operator_is_killed_in_the_middle_of_a_change(job: Job, operator: str) -> None:
    """Every time a little later after the change, so that it has done nothing, a part, or all of it."""
    job.create()
    before, leader = job.holding(), job.leader()
    for delay, replicas in ((0.0, 4), (0.1, 2), (0.3, 4), (1.0, 2)):
        job.patch(taskManager={"replicas": replicas})
        time.sleep(delay)
        job.kubernetes.kubectl("delete", "pods", "--namespace", operator, "--all", "--force", "--grace-period=0")
        eventually(
            lambda wanted=replicas: job.status()["taskManagers"] == {"wanted": wanted, "ready": wanted},  # type: ignore[misc]  # mypy has no type for a lambda's default
            f"{replicas} TaskManagers are ready",
        )
        eventually(lambda wanted=replicas: _taskmanagers(job) == wanted, f"there are {replicas} TaskManagers")  # type: ignore[misc]  # mypy has no type for a lambda's default
        job.unnoticed(before)
    check_no_failover(job, before, leader)


def _taskmanagers(job: Job) -> int:
    pods = job.kubectl("get", "pods", "--selector=app.kubernetes.io/component=taskmanager", "--output=name")
    return len(pods.split())


def test_a_jobmanager_is_not_evicted_while_another_is_away(job: Job) -> None:
    """A drain that meets the disruption budget waits; the first eviction is a handover that the tasks do not notice."""
    job.create()
    before, leader, standby = job.holding(), job.leader(), job.standby()
    _evict(job, leader)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        _evict(job, standby)
    assert "would violate the pod's disruption budget" in refused.value.stderr
    job.unnoticed(before, epoch=2)
    job.finish()
    assert job.starts() == job.once()


@pytest.mark.alone
def test_etcd_is_restarted(job: Job, nodes: Cluster) -> None:
    job.create()
    before, leader = job.holding(), job.leader()
    control_plane = _control_plane(nodes)

    def container() -> str:
        pod = job.kubernetes.get("kube-system", "pod", f"etcd-{control_plane}")
        return str(pod["status"]["containerStatuses"][0]["containerID"]).partition("://")[2]

    killed = container()
    nodes.on_node(control_plane, "ctr", "--namespace=k8s.io", "tasks", "kill", "--signal=SIGKILL", killed)
    eventually(lambda: container() != killed, "etcd runs in a new container")
    check_no_failover(job, before, leader)


@pytest.mark.alone
def test_the_kubelet_of_the_leaders_node_is_stopped(job: Job, nodes: Cluster) -> None:
    """Its pods are no longer ready in anybody's eyes, but their processes run."""
    job.create()
    before, leader = job.holding(), job.leader()
    node = str(job.kubernetes.get(job.namespace, "pod", leader)["spec"]["nodeName"])
    nodes.on_node(node, "systemctl", "stop", "kubelet")
    try:
        eventually(lambda: _ready(job, node) != "True", f"{node} is not ready")
    finally:
        nodes.on_node(node, "systemctl", "start", "kubelet")
    eventually(lambda: _ready(job, node) == "True", f"{node} is ready again")
    check_no_failover(job, before, leader)


def _ready(job: Job, node: str) -> str:
    conditions = job.kubernetes.get("default", "node", node)["status"]["conditions"]
    return next(str(each["status"]) for each in conditions if each["type"] == "Ready")


def _control_plane(nodes: Cluster) -> str:
    (found,) = set(nodes.nodes()) - set(nodes.workers())
    return found


def _evict(job: Job, pod: str) -> None:
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": job.namespace}}
    path = f"/api/v1/namespaces/{job.namespace}/pods/{pod}/eviction"
    job.kubernetes.kubectl("create", "--raw", path, "-f", "-", given=json.dumps(eviction))


@contextlib.contextmanager
def _without_api_server(job: Job, nodes: Cluster) -> Iterator[None]:
    """The kubelet ends a static pod whose manifest is gone, and begins it again when that is back."""

    def answers() -> bool:
        with contextlib.suppress(subprocess.CalledProcessError):
            return bool(job.kubernetes.kubectl("get", "--raw", "/readyz"))
        return False

    node, manifest = _control_plane(nodes), "kube-apiserver.yaml"
    there, aside = f"/etc/kubernetes/manifests/{manifest}", f"/etc/kubernetes/{manifest}"
    nodes.on_node(node, "mv", there, aside)
    try:
        eventually(lambda: not answers(), "the API server is gone")
        yield
    finally:
        nodes.on_node(node, "mv", aside, there)
        eventually(answers, "the API server is ready")
