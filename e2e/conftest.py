"""The cluster of the end-to-end suite: the one that is up here, or the one that E2E_KUBECONFIG names."""

import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.kindcluster import Cluster, current
from cluster.projectimage import IMAGE
from cluster.tools import provide
from jobs import Job
from kubernetes_cluster import Kubernetes, operator_of_chart


@pytest.fixture(scope="session")
def kubernetes() -> Kubernetes:
    """A cluster that answers; without one the suite fails, it is never skipped."""
    tools = provide(["kubectl", "helm"])
    given = os.environ.get("E2E_KUBECONFIG")
    if given:
        return Kubernetes(Path(given), os.environ.get("E2E_IMAGE") or IMAGE, tools["kubectl"], tools["helm"], None)
    cluster = current()
    assert cluster is not None, "no cluster is up: `make e2e` puts one up and runs this suite on it"
    return Kubernetes(cluster.kubeconfig, IMAGE, tools["kubectl"], tools["helm"], cluster)


@pytest.fixture(scope="session")
def nodes(kubernetes: Kubernetes) -> Cluster:
    """The cluster's nodes from outside, to be broken; a cluster that somebody else gave is not."""
    if kubernetes.nodes is None:
        pytest.skip("the nodes of a cluster that was given cannot be cut off or stopped")
    return kubernetes.nodes


@pytest.fixture
def namespace(kubernetes: Kubernetes, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own, in which only restricted pods may run."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())
    name = f"{words[:30].strip('-')}-{secrets.token_hex(3)}"
    kubernetes.kubectl("create", "namespace", name)
    kubernetes.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    yield name
    kubernetes.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def operator(kubernetes: Kubernetes) -> Iterator[str]:
    """The operator, installed by its chart for the whole cluster, two replicas; the name of its namespace."""
    with operator_of_chart(kubernetes) as name:
        yield name


@pytest.fixture
def job(kubernetes: Kubernetes, operator: str, namespace: str) -> Iterator[Job]:
    """A job to be created, in a namespace of its own."""
    held = Job(kubernetes, namespace)
    yield held
    held.remove()


@pytest.fixture
def other_namespace(kubernetes: Kubernetes) -> Iterator[str]:
    """A second namespace; a job of the usual name that is in it is removed."""
    name = f"other-{secrets.token_hex(3)}"
    kubernetes.kubectl("create", "namespace", name)
    yield name
    Job(kubernetes, name).remove()
    kubernetes.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def operator_away(kubernetes: Kubernetes, operator: str, job: Job) -> Iterator[None]:
    """The job's tasks hold, and then there is no operator."""
    job.create()
    job.holding()
    deployment = ("--namespace", operator, "deployment/flinkjob-operator")
    kubernetes.kubectl("scale", "--replicas=0", *deployment)
    kubernetes.kubectl("wait", "--namespace", operator, "pods", "--all", "--for=delete", "--timeout=120s")
    yield
    kubernetes.kubectl("scale", "--replicas=2", *deployment)
    kubernetes.kubectl("rollout", "status", *deployment, "--timeout=180s")
