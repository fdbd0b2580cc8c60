"""The operator at work on a real API server under the account that the chart gives it: its permissions are enough."""

import asyncio
from collections.abc import Iterator

import pytest

from chart.helm import CHART, Helm
from controller.playing import World, flinkjob, install_crd, options, running
from flinkjob.controller import names
from kube.apiserver import ApiServer

MODES = {
    "all-namespaces": (),
    "one-namespace": ("--set", "rbac.aggregateRoles=false"),
}


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest, helm4: Helm, apiserver: ApiServer, namespace: str) -> Iterator[str]:
    """What the operator of a freshly installed chart watches."""
    install_crd(apiserver)
    watched = ("--set", f"watchNamespaces={{{namespace}}}") if request.param == "one-namespace" else ()
    place = ("--namespace", namespace)
    flags = (*place, "--set", "crds.install=false", *watched, *MODES[request.param])
    helm4.run("install", "jobs", CHART, *flags, kubeconfig=apiserver.admin_kubeconfig)
    yield request.param
    helm4.run("uninstall", "jobs", *place, kubeconfig=apiserver.admin_kubeconfig)


async def test_the_operator_gets_through_a_jobs_life_with_what_the_chart_lets_it_do(
    mode: str, apiserver: ApiServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(apiserver, namespace)
    kubeconfig = apiserver.kubeconfig(f"system:serviceaccount:{namespace}:jobs-flinkjob-operator")
    watched = (namespace,) if mode == "one-namespace" else ()
    chosen = options(namespace, namespaces=watched, lease_name="jobs-flinkjob-operator")
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    claims = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
    apiserver.call("POST", claims, {"metadata": {"name": "jobs"}, "spec": claim})
    storage = {"volume": {"persistentVolumeClaim": {"claimName": "jobs"}}}
    async with running(kubeconfig, chosen):
        world.create("flinkjobs", flinkjob(storage=storage, flinkConfiguration={}, deletionPolicy="Delete"))
        await world.until_ready()
        # A failover: the dead leader's Lease is emptied.
        leader = names.jobmanager_pod("job", 0)
        assert world.lease_holder()
        world.end(leader)
        await world.until(lambda: not world.lease_holder())
        # A lost TaskManager is replaced; a change of the scale takes one away.
        lost = world.pods(names.TASKMANAGER)[0]["metadata"]["name"]
        world.delete("pods", lost, grace=0)
        await world.until(lambda: len(world.pods(names.TASKMANAGER)) == 2)
        world.patch("flinkjobs", "job", {"spec": {"taskManager": {"replicas": 1}}})
        await world.until(lambda: len(world.pods(names.TASKMANAGER)) == 1)
        # The end, with a pod that removes the data.
        await asyncio.to_thread(world.delete, "flinkjobs", "job")
        await world.until(lambda: world.get("pods", names.cleanup_pod("job")))
        await world.until(lambda: world.pods(names.CLEANUP)[0]["status"].get("phase") == "Running")
        world.end(names.cleanup_pod("job"), phase="Succeeded", code=0)
        await world.until(lambda: world.get("flinkjobs", "job") is None)
    assert "forbidden" not in caplog.text


async def test_an_operator_without_a_permission_says_which_one(
    helm4: Helm, apiserver: ApiServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    install_crd(apiserver)
    roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles"
    place = ("--namespace", namespace)
    flags = ("--set", f"watchNamespaces={{{namespace}}}", "--set", "crds.install=false")
    helm4.run(
        "install",
        "jobs",
        CHART,
        *place,
        *flags,
        "--set",
        "rbac.aggregateRoles=false",
        kubeconfig=apiserver.admin_kubeconfig,
    )
    role = apiserver.call("GET", f"{roles}/jobs-flinkjob-operator")
    role["rules"] = [rule for rule in role["rules"] if rule["resources"] != ["secrets"]]
    apiserver.call("PUT", f"{roles}/jobs-flinkjob-operator", role)
    world = World(apiserver, namespace)
    kubeconfig = apiserver.kubeconfig(f"system:serviceaccount:{namespace}:jobs-flinkjob-operator")
    async with running(kubeconfig, options(namespace, lease_name="jobs-flinkjob-operator")):
        world.create("flinkjobs", flinkjob())
        await world.until(lambda: "forbidden" in caplog.text)
    assert "secrets" in caplog.text
