"""The chart on a real API server: installed, upgraded, taken away again, and what is left then."""

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from chart.helm import CHART, ROOT, VARIANTS, Helm
from docs.blocks import run_by
from kube.apiserver import ApiServer

DEFINITION = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/flinkjobs.flinkjob.io"
# Other tests may have made the definition in their own way.
OWN = "--take-ownership"


@pytest.fixture
def installed(helm: Helm, apiserver: ApiServer, namespace: str) -> Iterator[str]:
    """The namespace in which the chart is installed, as it comes; no pod runs, as there is no node."""
    kubeconfig = apiserver.admin_kubeconfig
    helm.run("install", "jobs", CHART, "--namespace", namespace, OWN, kubeconfig=kubeconfig)
    yield namespace
    helm.run("uninstall", "jobs", "--namespace", namespace, "--ignore-not-found", kubeconfig=kubeconfig)


def test_the_job_that_the_chart_shows_can_be_made_once_it_is_installed(apiserver: ApiServer, installed: str) -> None:
    example = yaml.safe_load((CHART / "Chart.yaml").read_text())["annotations"]["artifacthub.io/crdsExamples"]
    apiserver.until_established("flinkjobs.flinkjob.io")
    command = ("create", "--dry-run=server", "--validate=strict", "--namespace", installed, "--filename", "-")
    assert "flinkjob" in apiserver.kubectl(*command, manifest=yaml.safe_dump_all(yaml.safe_load(example)))


def test_an_upgrade_changes_what_it_says_and_reinstalling_takes_over_what_was_kept(
    helm: Helm, apiserver: ApiServer, installed: str
) -> None:
    place = ("--namespace", installed)
    kubeconfig = apiserver.admin_kubeconfig
    helm.run("upgrade", "jobs", CHART, *place, "--set", "replicas=2", kubeconfig=kubeconfig)
    deployments = f"/apis/apps/v1/namespaces/{installed}/deployments"
    assert apiserver.call("GET", f"{deployments}/jobs-flinkjob-operator")["spec"]["replicas"] == 2
    uid = apiserver.call("GET", DEFINITION)["metadata"]["uid"]
    helm.run("uninstall", "jobs", *place, kubeconfig=kubeconfig)
    assert apiserver.call("GET", DEFINITION)["metadata"]["uid"] == uid
    assert apiserver.call("GET", deployments)["items"] == []
    roles = apiserver.call("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles")["items"]
    assert not [role for role in roles if installed in role["metadata"]["name"]]
    helm.run("install", "jobs", CHART, *place, kubeconfig=kubeconfig)
    assert apiserver.call("GET", DEFINITION)["metadata"]["uid"] == uid


def test_the_lease_of_the_operators_goes_with_the_chart(helm: Helm, apiserver: ApiServer, installed: str) -> None:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{installed}/leases"
    held = {"spec": {"holderIdentity": "jobs-flinkjob-operator-0", "leaseDurationSeconds": 15}}
    merge = "application/merge-patch+json"
    assert apiserver.call("PATCH", f"{path}/jobs-flinkjob-operator", held, content_type=merge)["spec"] == held["spec"]
    place = ("--namespace", installed)
    helm.run("upgrade", "jobs", CHART, *place, "--set", "replicas=2", kubeconfig=apiserver.admin_kubeconfig)
    assert apiserver.call("GET", f"{path}/jobs-flinkjob-operator")["spec"] == held["spec"], "that is not the chart's"
    helm.run("uninstall", "jobs", *place, kubeconfig=apiserver.admin_kubeconfig)
    assert apiserver.call("GET", path)["items"] == []


def test_who_has_all_rights_in_a_namespace_installs_it_there(
    helm: Helm, apiserver: ApiServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the chart's README says, with all rights there and none elsewhere."""
    _bind(apiserver, namespace, "cluster-admin", "olga")
    (block,) = run_by("tests/chart/test_chart_install.py")
    command = shlex.split(block.text.replace("\\\n", " ").replace("team-a", namespace))
    monkeypatch.chdir(ROOT)
    olga = apiserver.kubeconfig("olga")
    helm.run(*command[1:], kubeconfig=olga)
    deployments = apiserver.call("GET", f"/apis/apps/v1/namespaces/{namespace}/deployments")["items"]
    assert [item["metadata"]["name"] for item in deployments] == ["flinkjob-operator"]
    helm.run("uninstall", "flinkjob-operator", "--namespace", namespace, kubeconfig=olga)


def test_the_pods_are_let_into_a_restricted_namespace(apiserver: ApiServer, installed: str) -> None:
    label = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    apiserver.call("PATCH", f"/api/v1/namespaces/{installed}", label, content_type="application/merge-patch+json")
    path = f"/apis/apps/v1/namespaces/{installed}/deployments/jobs-flinkjob-operator"
    template = apiserver.call("GET", path)["spec"]["template"]
    pod = {"metadata": {"name": "operator", **template["metadata"]}, "spec": template["spec"]}
    pods = f"/api/v1/namespaces/{installed}/pods?dryRun=All"
    assert apiserver.call("POST", pods, pod)["metadata"]["name"] == "operator"


@pytest.mark.parametrize("values", VARIANTS, ids=lambda path: path.stem)
def test_the_api_server_takes_all_that_is_rendered(
    helm4: Helm, apiserver: ApiServer, namespace: str, values: Path
) -> None:
    items = [item for item in helm4.template("--values", values) if not item["apiVersion"].startswith("monitoring.")]
    for item in items:
        if "namespace" in item["metadata"]:
            item["metadata"]["namespace"] = namespace
    command = (
        "apply",
        "--server-side",
        "--force-conflicts",
        "--dry-run=server",
        "--validate=strict",
        "--filename",
        "-",
    )
    answer = apiserver.kubectl(*command, manifest=yaml.safe_dump_all(items))
    assert answer.count("serverside-applied") == len(items)


def test_kubernetes_own_roles_include_flinkjobs(apiserver: ApiServer, installed: str) -> None:
    _bind(apiserver, installed, "view", "vera")
    for verb, allowed in (("list", True), ("delete", False)):
        assert _can_i(apiserver, installed, "vera", verb, "flinkjobs.flinkjob.io") is allowed


def test_the_operator_may_make_a_jobmanagers_role_and_nothing_greater(apiserver: ApiServer, installed: str) -> None:
    account = f"system:serviceaccount:{installed}:jobs-flinkjob-operator"
    kubeconfig = apiserver.kubeconfig(account)

    def grant(resource: str, verb: str, group: str) -> None:
        rule = {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": "granted", "namespace": installed},
            "rules": [rule],
        }
        apiserver.kubectl(
            "apply", "--server-side", "--filename", "-", manifest=yaml.safe_dump(role), kubeconfig=kubeconfig
        )

    grant("leases", "update", "coordination.k8s.io")
    with pytest.raises(subprocess.CalledProcessError) as error:
        grant("secrets", "list", "")
    assert "attempting to grant RBAC permissions not currently held" in error.value.stderr


def test_kubectl_says_the_same_of_the_operators_account(apiserver: ApiServer, installed: str) -> None:
    account = f"system:serviceaccount:{installed}:jobs-flinkjob-operator"
    for verb, resource, allowed in (
        ("patch", "flinkjobs.flinkjob.io", True),
        ("create", "pods", True),
        ("get", "secrets", True),
        ("list", "secrets", False),
        ("create", "clusterroles.rbac.authorization.k8s.io", False),
        ("delete", "customresourcedefinitions.apiextensions.k8s.io", False),
    ):
        assert _can_i(apiserver, installed, account, verb, resource) is allowed, (verb, resource)


def _bind(apiserver: ApiServer, namespace: str, role: str, user: str) -> None:
    """Give a user one of Kubernetes' own roles in a namespace."""
    group = "rbac.authorization.k8s.io"
    apiserver.call(
        "POST",
        f"/apis/{group}/v1/namespaces/{namespace}/rolebindings",
        {
            "metadata": {"name": f"{role}-{user}"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "name": user, "apiGroup": group}],
        },
    )


def _can_i(apiserver: ApiServer, namespace: str, user: str, verb: str, resource: str) -> bool:
    try:
        apiserver.kubectl("auth", "can-i", verb, resource, "--as", user, "--namespace", namespace)
    except subprocess.CalledProcessError:
        return False
    return True
