"""What an administrator changes under a live job: TaskManagers, the operator, the definition, the image.

Nothing of it may be noticed by a running task, the job's own image excepted: that takes new pods.
"""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs import Job
from kubernetes_cluster import CHART, Kubernetes, eventually, image_values

DEFINITION = Path(__file__).parents[1] / "crds" / "flinkjobs.yaml"


def test_an_idle_taskmanager_goes_first_when_scaled_down(job: Job) -> None:
    job.create()
    before = job.holding()
    busy = {task.pod for task in before.values()}
    for replicas in (3, 2):
        job.kubectl("scale", "flinkjob", job.name, f"--replicas={replicas}")
        eventually(
            lambda wanted=replicas: job.status()["taskManagers"] == {"wanted": wanted, "ready": wanted},  # type: ignore[misc]  # mypy has no type for a lambda's default
            f"{replicas} TaskManagers are ready",
        )
    eventually(lambda: _pods(job, "taskmanager").keys() == busy, "only those with tasks are left")
    job.unnoticed(before)
    job.finish()
    assert job.starts() == job.once()


def test_a_taskmanager_that_is_scaled_down_takes_its_own_tasks_with_it_and_no_others(job: Job) -> None:
    """The tasks wait for slots of the one that is left, whose own tasks run on."""
    job.create()
    before = job.holding()
    job.kubectl("scale", "flinkjob", job.name, "--replicas=1")
    eventually(lambda: len(_pods(job, "taskmanager")) == 1, "one TaskManager is left")
    (left,) = _pods(job, "taskmanager")
    job.counting_on({key: task for key, task in before.items() if task.pod == left})
    job.finish()
    assert job.starts() == {index: 1 + (task.pod != left) for (_, index), task in before.items()}


@pytest.mark.alone
def test_the_operator_is_upgraded(job: Job, operator: str) -> None:
    job.create()
    before = job.holding()
    old = _operators(job.kubernetes, operator)
    newer = _newer(job.kubernetes)
    upgrade = ("upgrade", operator, CHART, "--namespace", operator, "--reuse-values", "--wait", "--timeout=5m")
    job.kubernetes.helm(*upgrade, *image_values(newer))
    eventually(lambda: _operators(job.kubernetes, operator).keys().isdisjoint(old), "all its pods are new")
    assert set(_operators(job.kubernetes, operator).values()) == {newer}
    job.unnoticed(before)
    # The new one acts: only an operator replaces a TaskManager, here one more than before.
    job.kubectl("scale", "flinkjob", job.name, "--replicas=3")
    eventually(lambda: job.status()["taskManagers"] == {"wanted": 3, "ready": 3}, "three TaskManagers are ready")
    job.unnoticed(before)
    job.finish()
    assert job.starts() == job.once()


@pytest.mark.alone
def test_the_definition_is_upgraded(job: Job) -> None:
    job.create()
    before = job.holding()
    definition = yaml.safe_load(DEFINITION.read_text())
    newer = copy.deepcopy(definition)
    for version in newer["spec"]["versions"]:
        version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["later"] = {"type": "string"}
    try:
        _define(job.kubernetes, newer)
        eventually(lambda: "later" in job.kubectl("explain", "flinkjob.spec"), "the API server has the new field")
        job.unnoticed(before)
        # Who watches the resource hears of its changes as ever.
        job.kubectl("scale", "flinkjob", job.name, "--replicas=3")
        eventually(lambda: job.status()["taskManagers"] == {"wanted": 3, "ready": 3}, "three TaskManagers are ready")
    finally:
        _define(job.kubernetes, definition)
    job.unnoticed(before)
    job.finish()
    assert job.starts() == job.once()


def test_the_jobs_image_is_upgraded_pod_by_pod(job: Job) -> None:
    """JobManagers hand over, TaskManagers are replaced one after the other; what had finished is not run again."""
    newer = _newer(job.kubernetes)
    job.create()
    job.holding()
    job.patch(image=newer)
    eventually(
        lambda: set((_pods(job, "jobmanager") | _pods(job, "taskmanager")).values()) == {newer},
        "all pods have the new image",
        patience=240,
    )
    eventually(lambda: job.condition("Protected").get("status") == "True", "the job is protected again")
    eventually(lambda: len(job.tasks()) == 4, "all tasks hold again")
    assert job.status()["jobStatus"]["tasks"]["finished"] == 2
    job.finish()
    # Twice at most: each TaskManager goes once, and the first one's tasks may wait on the second.
    assert set(job.starts().values()) <= {2, 3}


def _pods(job: Job, component: str) -> dict[str, str]:
    """The image of each pod that is not on its way out."""
    selector = f"--selector=flinkjob.io/job={job.name},app.kubernetes.io/component={component}"
    pods: list[dict[str, Any]] = job.kubernetes.get(job.namespace, "pods", selector)["items"]
    return {
        pod["metadata"]["name"]: pod["spec"]["containers"][0]["image"]
        for pod in pods
        if "deletionTimestamp" not in pod["metadata"]
    }


def _operators(kubernetes: Kubernetes, namespace: str) -> dict[str, str]:
    """The image of each of the operator's pods."""
    pods = kubernetes.get(namespace, "pods")["items"]
    return {pod["metadata"]["name"]: pod["spec"]["containers"][0]["image"] for pod in pods}


def _define(kubernetes: Kubernetes, definition: dict[str, Any]) -> None:
    """Apply the definition as helm's upgrade does, which so stays the owner of its fields."""
    applying = ("apply", "--server-side", "--field-manager=helm", "--force-conflicts", "-f", "-")
    kubernetes.kubectl(*applying, given=yaml.safe_dump(definition))


def _newer(kubernetes: Kubernetes) -> str:
    """A second name of the project's image, which the nodes have it under from now on."""
    if kubernetes.nodes is None:
        pytest.skip("the nodes of a cluster that was given have no second image")
    newer = f"{kubernetes.image}-newer"
    name, other = (f"docker.io/library/{image}" for image in (kubernetes.image, newer))
    for node in kubernetes.nodes.workers():
        kubernetes.nodes.on_node(node, "ctr", "--namespace=k8s.io", "images", "tag", "--force", name, other)
    return newer
