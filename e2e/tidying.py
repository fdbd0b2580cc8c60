"""What a run that was killed has left on the cluster, taken away before the next one begins.

On our own cluster all that is of FlinkJobs is the suite's; on one that was given only what bears the suite's label.
"""

import json
import subprocess
from collections.abc import Sequence
from typing import Any

from cluster.kindcluster import Cluster
from kubernetes_cluster import OPERATOR, OURS, Kubernetes, eventually, uninstall_operator

MANIFESTS = "/etc/kubernetes/manifests"
_LABEL = "--selector=" + ",".join(f"{name}={value}" for name, value in OURS.items())


def tidy(kubernetes: Kubernetes) -> None:
    """Mend the nodes, and remove releases, jobs, namespaces and volumes of a run before."""
    if kubernetes.nodes is not None:
        _mend(kubernetes, kubernetes.nodes)
    ours = set(_names(kubernetes, "namespace", _LABEL))
    mine = ours | {"default", OPERATOR} if kubernetes.nodes is not None else ours
    releases = json.loads(kubernetes.helm("list", "--all-namespaces", "--output=json"))
    for release in releases:
        if release["namespace"] in mine:
            kubernetes.helm("uninstall", release["name"], "--namespace", release["namespace"], "--wait")
    for namespace in mine:
        let_go(kubernetes, namespace)
    if OPERATOR in mine:
        uninstall_operator(kubernetes)
    if "default" in mine:
        remove_tutorial(kubernetes)
        # Whoever has applied it last, a release can take it for its own again.
        kubernetes.kubectl("delete", "customresourcedefinition", "flinkjobs.flinkjob.io", "--ignore-not-found")
    if ours:
        kubernetes.kubectl("delete", "namespace", *ours, "--ignore-not-found", "--timeout=300s")
    kubernetes.kubectl("delete", "persistentvolume", _LABEL, "--timeout=120s")


def remove_tutorial(kubernetes: Kubernetes) -> None:
    """Remove what the tutorial makes, however far it came."""
    let_go(kubernetes, "default")
    mine = ("configmap/wordcount", "persistentvolumeclaim/wordcount", "persistentvolume/wordcount")
    kubernetes.kubectl("delete", "--namespace=default", *mine, "--ignore-not-found", "--timeout=180s")


def let_go(kubernetes: Kubernetes, namespace: str) -> None:
    """Delete the namespace's FlinkJobs, also where no operator is left that would take their finalizer away."""
    try:
        jobs = _names(kubernetes, "flinkjob", "--namespace", namespace)
    except subprocess.CalledProcessError:
        return  # a cluster without the definition
    for job in jobs:
        where = ("--namespace", namespace, "flinkjob", job)
        kubernetes.kubectl("patch", *where, "--type=merge", '--patch={"metadata":{"finalizers":null}}')
        kubernetes.kubectl("delete", *where, "--ignore-not-found", "--cascade=foreground", "--timeout=180s")


def _mend(kubernetes: Kubernetes, nodes: Cluster) -> None:
    for node in nodes.nodes():
        nodes.heal(node)
        # Where a static pod's manifest was put aside, it is put back.
        back = f"for file in /etc/kubernetes/kube-*.yaml; do test ! -e $file || mv $file {MANIFESTS}; done"
        nodes.on_node(node, "sh", "-c", back)
        nodes.on_node(node, "systemctl", "start", "kubelet")
    eventually(lambda: kubernetes.kubectl("get", "--raw", "/readyz"), "the API server is ready", patience=180)
    kubernetes.kubectl("uncordon", *nodes.workers())
    # Once one change of its table has failed, kube-proxy loses Services one by one, that of the API server among them.
    for node in nodes.nodes():
        nodes.on_node(node, "sh", "-c", "nft delete table ip kube-proxy || true")
    proxy = ("--namespace=kube-system", "daemonset/kube-proxy")
    kubernetes.kubectl("rollout", "restart", *proxy)
    kubernetes.kubectl("rollout", "status", *proxy, "--timeout=180s")
    kubernetes.kubectl("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=180s")


def _names(kubernetes: Kubernetes, kind: str, *options: str) -> Sequence[str]:
    listed: dict[str, Any] = json.loads(kubernetes.kubectl("get", kind, *options, "--output=json"))
    return [item["metadata"]["name"] for item in listed["items"]]
