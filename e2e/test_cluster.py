"""The cluster itself: two workers, pods that talk to each other, the project's image, and a node that is cut off and back."""

import json

import pytest

from cluster.kindcluster import Cluster
from kubernetes_cluster import RESTRICTED, Kubernetes, eventually


def pod(name: str, image: str, script: str, *, node: str | None = None) -> str:
    """A pod that runs a few lines of Python."""
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", script],
        "securityContext": RESTRICTED,
    }
    spec = {"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1}
    labels = {"app": name}
    where = {"nodeSelector": {"kubernetes.io/hostname": node}} if node else {}
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {**spec, **where},
    }
    return json.dumps(manifest)


def test_two_workers_are_ready(kubernetes: Kubernetes, nodes: Cluster) -> None:
    conditions = '{range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\\n"}{end}'
    ready = kubernetes.kubectl(
        "get", "nodes", "--selector=!node-role.kubernetes.io/control-plane", f"--output=jsonpath={conditions}"
    )
    assert ready.split() == ["True", "True"]


def test_the_projects_image_runs_restricted(kubernetes: Kubernetes, namespace: str) -> None:
    kubernetes.kubectl(
        "-n", namespace, "apply", "-f", "-", given=pod("p", kubernetes.image, "import flinkjob; print('ran')")
    )
    kubernetes.kubectl("-n", namespace, "wait", "pod/p", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s")
    assert kubernetes.kubectl("-n", namespace, "logs", "p") == "ran\n"


def test_pods_of_different_nodes_find_each_other_by_a_services_name(
    kubernetes: Kubernetes, namespace: str, nodes: Cluster
) -> None:
    one, other = nodes.workers()
    serving = "import http.server as s; s.test(s.SimpleHTTPRequestHandler, port=8000)"
    asking = f"import urllib.request as u; print(u.urlopen('http://served.{namespace}.svc:8000', timeout=30).status)"
    in_namespace = ("-n", namespace)
    kubernetes.kubectl(*in_namespace, "apply", "-f", "-", given=pod("served", kubernetes.image, serving, node=one))
    kubernetes.kubectl(*in_namespace, "expose", "pod/served", "--port=8000")
    kubernetes.kubectl(*in_namespace, "wait", "pod/served", "--for=condition=Ready", "--timeout=120s")

    def endpoint() -> bool:
        slices = kubernetes.get(namespace, "endpointslices", "--selector=kubernetes.io/service-name=served")
        return any(each["endpoints"] for each in slices["items"])

    eventually(endpoint, "the Service has an endpoint")
    kubernetes.kubectl(*in_namespace, "apply", "-f", "-", given=pod("asking", kubernetes.image, asking, node=other))
    kubernetes.kubectl(
        *in_namespace, "wait", "pod/asking", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s"
    )
    assert kubernetes.kubectl(*in_namespace, "logs", "asking") == "200\n"


@pytest.mark.alone
def test_a_node_that_is_cut_off_is_missed_and_comes_back(kubernetes: Kubernetes, nodes: Cluster) -> None:
    node = nodes.workers()[1]

    def ready(status: str) -> bool:
        output = '--output=jsonpath={.status.conditions[?(@.type=="Ready")].status}'
        return kubernetes.kubectl("get", "node", node, output) == status

    try:
        nodes.cut(node)
        eventually(lambda: ready("Unknown"), "the control plane misses the node")
    finally:
        nodes.heal(node)
    eventually(lambda: ready("True"), "the node is back")
