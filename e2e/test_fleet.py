"""More than one operator, and many jobs: what the tasks must not notice."""

import secrets
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs import Job
from kubernetes_cluster import CHART, OURS, Kubernetes, eventually, image_values


@pytest.fixture
def release(kubernetes: Kubernetes, operator: str) -> Iterator[str]:
    """The name of a second operator's release and of its namespace; nothing is installed yet."""
    name = f"second-{secrets.token_hex(3)}"
    kubernetes.kubectl("create", "namespace", name)
    kubernetes.kubectl("label", "namespace", name, *(f"{label}={value}" for label, value in OURS.items()))
    yield name
    kubernetes.helm("uninstall", name, "--namespace", name, "--ignore-not-found", "--wait")
    kubernetes.kubectl("delete", "namespace", name, "--wait=false")


@pytest.mark.alone
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_fifty_jobs_lose_their_leaders_at_once(kubernetes: Kubernetes, operator: str, namespace: str) -> None:
    """Small ones without a standby, so that each leader's pod has to come back first."""
    jobs = [Job(kubernetes, namespace, name=f"held-{number}", held=1) for number in range(50)]
    with ThreadPoolExecutor(8) as threads:
        try:
            jobs[0].apply(*(each for job in jobs for each in job.manifests(**_SMALL)))
            before = list(threads.map(lambda job: job.holding(protected=False, patience=600), jobs))
            leaders = "--selector=app.kubernetes.io/component=jobmanager"
            kubernetes.kubectl("--namespace", namespace, "delete", "pods", leaders, "--force", "--grace-period=0")
            after = list(threads.map(lambda job: job.holding(epoch=2, protected=False, patience=600), jobs))
            assert after == before
            list(threads.map(Job.counting_on, jobs, before))
            list(threads.map(Job.finish, jobs))
            assert list(threads.map(Job.starts, jobs)) == [job.once() for job in jobs]
        finally:
            kubernetes.kubectl("--namespace", namespace, "delete", "flinkjobs", "--all", "--timeout=600s")
            list(threads.map(Job.remove, jobs))


_SMALL = {
    "jobManager": {"replicas": 1, "resource": {"cpu": "10m"}},
    "taskManager": {"replicas": 1, "taskSlots": 1, "resource": {"cpu": "10m"}},
    "flinkConfiguration": {"taskmanager.reconnection.timeout": "20 min", "heartbeat.timeout": "1 min"},
}


@pytest.mark.alone
def test_a_second_operator_by_mistake_is_refused_and_does_no_harm_where_it_is_forced(job: Job, release: str) -> None:
    """Helm refuses to install the definition twice. Two that act all the same want the same objects, under the same names."""
    job.create()
    before = job.holding()
    with pytest.raises(subprocess.CalledProcessError) as refused:
        _install(job.kubernetes, release)
    assert "flinkjobs.flinkjob.io" in refused.value.stderr
    _install(job.kubernetes, release, "--set", "crds.install=false")
    job.unnoticed(before)
    job.kubectl("delete", "pod", job.leader(), "--force", "--grace-period=0")
    job.unnoticed(before, epoch=2)
    job.kubectl("scale", "flinkjob", job.name, "--replicas=3")
    eventually(lambda: job.status()["taskManagers"] == {"wanted": 3, "ready": 3}, "three TaskManagers are ready")
    job.unnoticed(before, epoch=2)
    selector = f"--selector=flinkjob.io/job={job.name},app.kubernetes.io/component=taskmanager"
    assert len(job.kubernetes.get(job.namespace, "pods", selector)["items"]) == 3, "nobody made one too many"
    job.finish()
    assert job.starts() == job.once()


@pytest.mark.alone
def test_uninstall_leaves_no_object_of_the_release_and_the_definition(job: Job, release: str) -> None:
    """Nothing of the release is left, nor of what its operator made; the definition, the job and its tasks stay."""
    job.create()
    before = job.holding()
    empty = _in_namespace(job.kubernetes, release)
    _install(job.kubernetes, release, "--set", "crds.install=false", "--set", f"watchNamespaces={{{job.namespace}}}")
    assert _labelled(job.kubernetes, release), "an installed release has objects"
    job.kubernetes.helm("uninstall", release, "--namespace", release, "--wait")
    eventually(lambda: not _labelled(job.kubernetes, release), "nothing has the release's label")
    eventually(lambda: not _in_namespace(job.kubernetes, release) - empty, "the namespace is as it was")
    job.kubernetes.kubectl("get", "customresourcedefinition", "flinkjobs.flinkjob.io")
    job.unnoticed(before)
    job.finish()
    assert job.starts() == job.once()


def _install(kubernetes: Kubernetes, release: str, *options: str) -> None:
    image = image_values(kubernetes.image)
    kubernetes.helm("install", release, CHART, "--namespace", release, "--wait", "--timeout=3m", *image, *options)


def _labelled(kubernetes: Kubernetes, release: str) -> list[str]:
    """All objects of the release, in all namespaces and of the cluster."""
    selector = f"--selector=app.kubernetes.io/instance={release}"
    return kubernetes.kubectl("get", _kinds(kubernetes), "--all-namespaces", selector, "--output=name").split()


def _in_namespace(kubernetes: Kubernetes, namespace: str) -> set[str]:
    """All objects of a namespace."""
    kinds = _kinds(kubernetes, "--namespaced")
    return set(kubernetes.kubectl("get", kinds, "--namespace", namespace, "--output=name").split())


def _kinds(kubernetes: Kubernetes, *options: str) -> str:
    """All that can be listed and is not history."""
    kinds = kubernetes.kubectl("api-resources", "--verbs=list", "--output=name", *options).split()
    return ",".join(kind for kind in kinds if not kind.startswith("events"))
