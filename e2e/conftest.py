"""The cluster of the end-to-end suite: the one that is up here, or the one that E2E_KUBECONFIG names.

What is there once for all tests is there once for all processes of a run, too: several run tests at once.
"""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.kindcluster import Cluster, current
from cluster.projectimage import IMAGE
from cluster.tools import locked, provide
from jobs import Job
from kubernetes_cluster import OPERATOR, OURS, Kubernetes, install_operator, uninstall_operator
from tidying import tidy


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that install an operator themselves come first, while there is none."""
    items.sort(key=lambda item: "operator" in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that all processes of this run have in common, and no other run."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def kubernetes(run_directory: Path) -> Kubernetes:
    """A cluster that answers, and that has nothing of an earlier run; without one the suite fails, it is never skipped."""
    found = _cluster()
    with locked("e2e-tidy"):
        if not (tidied := run_directory / "tidied").exists():
            tidy(found)
            tidied.touch()
    return found


def _cluster() -> Kubernetes:
    tools = provide(["kubectl", "helm"])
    image, storage_class = os.environ.get("E2E_IMAGE") or IMAGE, os.environ.get("E2E_STORAGE_CLASS", "")
    if given := os.environ.get("E2E_KUBECONFIG"):
        assert storage_class, (
            "E2E_STORAGE_CLASS has to name a storage class with ReadWriteMany on a cluster that is given"
        )
        return Kubernetes(Path(given), image, tools["kubectl"], tools["helm"], None, storage_class)
    cluster = current()
    assert cluster is not None, "no cluster is up: `make e2e` puts one up and runs this suite on it"
    return Kubernetes(cluster.kubeconfig, image, tools["kubectl"], tools["helm"], cluster)


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
    with _made(kubernetes, words[:30].strip("-")) as name:
        kubernetes.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
        yield name


@contextmanager
def _made(kubernetes: Kubernetes, words: str) -> Iterator[str]:
    name = f"{words}-{secrets.token_hex(3)}"
    kubernetes.kubectl("create", "namespace", name)
    kubernetes.kubectl("label", "namespace", name, *(f"{label}={value}" for label, value in OURS.items()))
    yield name
    kubernetes.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def operator(kubernetes: Kubernetes, run_directory: Path) -> Iterator[str]:
    """The operator, installed by the first process that needs it and removed by the last; the name of its namespace."""
    users = run_directory / "operator-users"
    with locked("e2e-operator"):
        if not users.exists() or not users.read_bytes():
            install_operator(kubernetes)
        with users.open("ab") as file:
            file.write(b".")
    yield OPERATOR
    with locked("e2e-operator"):
        users.write_bytes(users.read_bytes()[1:])
        if not users.read_bytes():
            uninstall_operator(kubernetes)


@pytest.fixture
def job(kubernetes: Kubernetes, operator: str, namespace: str) -> Iterator[Job]:
    """A job to be created, in a namespace of its own."""
    held = Job(kubernetes, namespace)
    yield held
    held.remove()


@pytest.fixture
def other_namespace(kubernetes: Kubernetes) -> Iterator[str]:
    """A second namespace; a job of the usual name that is in it is removed."""
    with _made(kubernetes, "other") as name:
        yield name
        Job(kubernetes, name).remove()


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
