"""Outages of the cluster itself, around a job that runs: what the tasks must not notice.

Each test compares for every running task the pod, the container, the processes and the attempt before and after, and
counts the lines that the tasks themselves have written when they began.
"""

import pytest

from cluster.kindcluster import Cluster
from jobs import Job
from kubernetes_cluster import Tasks, eventually


def check_no_failover(job: Job, before: Tasks, leader: str) -> None:
    """The same leader leads the first epoch still, and no task has noticed anything up to the exact result."""
    assert job.holding(epoch=1) == before
    assert job.leader() == leader
    job.finish()
    assert job.starts() == dict.fromkeys(range(4), 1)


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


@pytest.mark.parametrize("which", ["leader", "taskmanager"])
def test_the_kubelet_of_a_node_is_stopped(job: Job, nodes: Cluster, which: str) -> None:
    """Its pods are no longer ready in anybody's eyes, but their processes run."""
    job.create()
    before, leader = job.holding(), job.leader()
    pod = leader if which == "leader" else before["hold", 0].pod
    node = str(job.kubernetes.get(job.namespace, "pod", pod)["spec"]["nodeName"])
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
