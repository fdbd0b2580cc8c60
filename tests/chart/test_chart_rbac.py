"""Who may do what: the rendered roles against a table, and a real API server's word for each account."""

from collections.abc import Iterator
from itertools import pairwise

import pytest

from chart.conftest import Render
from chart.helm import CHART, NAMESPACE, VARIANTS, Helm, one
from chart.permissions import EDITOR, OPERATOR, VIEWER, Permission, covers, jobmanager, may, of_rules, of_table
from flinkjob.controller.cluster import EVENT, KINDS, SECRET
from flinkjob.controller.following import FOLLOWED
from flinkjob.controller.handlers import HEARD
from kube.apiserver import ApiServer

CI = {path.name.removesuffix("-values.yaml"): path for path in VARIANTS}

FORBIDDEN = {
    ("", "nodes"),
    ("", "namespaces"),
    ("", "persistentvolumes"),
    ("", "pods/exec"),
    ("", "pods/log"),
    ("", "serviceaccounts/token"),
    ("apps", "deployments"),
    ("batch", "jobs"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
}
"""Resources that none of the accounts has anything to do with, among those that would be worth having."""
VERBS = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "bind",
    "escalate",
    "impersonate",
]


def test_the_operators_role_is_the_table(render: Render) -> None:
    assert of_rules(one(render(CI["default"]), "ClusterRole", "-operator-namespace")["rules"]) == of_table(OPERATOR)
    for item in render(CI["namespaced"]):
        if item["kind"] == "Role" and item["metadata"]["namespace"].startswith("team-"):
            assert of_rules(item["rules"]) == of_table(OPERATOR)


def test_the_operator_may_do_what_its_client_does() -> None:
    held = of_table(OPERATOR)
    for kind in (*HEARD, *FOLLOWED):
        group = kind.api_version.rpartition("/")[0]
        assert {Permission(group, kind.plural, verb) for verb in ("list", "watch")} <= held, kind
    for kind in KINDS.values():
        group = kind.api_version.rpartition("/")[0]
        assert Permission(group, kind.plural, "create" if kind == EVENT else "get") in held, kind


def test_the_operator_lists_nobodys_secrets() -> None:
    assert SECRET not in (*HEARD, *FOLLOWED)
    assert not {permission.verb for permission in of_table(OPERATOR) if permission.resource == "secrets"} & {
        "list",
        "watch",
    }


def test_the_lease_of_the_operators_own_is_all_it_may_update_in_its_namespace(render: Render) -> None:
    role = one(render(CI["namespaced"]), "Role", "-lease")
    named = {Permission("coordination.k8s.io", "leases", verb, "release-flinkjob-operator") for verb in GET_AND_UPDATE}
    assert of_rules(role["rules"]) == named | {Permission("coordination.k8s.io", "leases", "create")}


GET_AND_UPDATE = ("get", "list", "watch", "update")


def test_the_roles_of_users_are_the_tables(render: Render) -> None:
    manifests = render(CI["default"])
    assert of_rules(one(manifests, "ClusterRole", "-view")["rules"]) == of_table(VIEWER)
    assert of_rules(one(manifests, "ClusterRole", "-edit")["rules"]) == of_table(EDITOR)


def test_the_operator_holds_what_it_grants_to_jobmanagers() -> None:
    assert covers(of_table(OPERATOR), jobmanager("any"))


def test_no_rule_is_without_its_reason() -> None:
    lines = (CHART / "templates" / "_rules.tpl").read_text().splitlines()
    rules = [(before, line) for before, line in pairwise(lines) if line.startswith("- apiGroups")]
    assert len(rules) >= 10
    assert all(before.startswith("# ") and before.endswith(".") for before, _ in rules)


@pytest.fixture
def elsewhere(apiserver: ApiServer, namespace: str) -> Iterator[str]:
    """A namespace that the operator does not watch."""
    name = f"{namespace[:50]}-elsewhere"
    apiserver.make_namespace(name)
    yield name
    apiserver.call("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture
def operator_of(helm4: Helm, apiserver: ApiServer, namespace: str) -> str:
    """The operator's account as the chart makes it for one watched namespace, and nothing else of the chart."""
    made = [
        item
        for item in helm4.template("--set", f"watchNamespaces={{{namespace}}}", "--set", "crds.install=false")
        if item["kind"] in {"Role", "RoleBinding", "ServiceAccount"} and item["metadata"]["namespace"] == namespace
    ]
    for item in made:
        plural = {"Role": "roles", "RoleBinding": "rolebindings"}[item["kind"]]
        apiserver.call("POST", f"/apis/{item['apiVersion']}/namespaces/{namespace}/{plural}", item)
    return f"system:serviceaccount:{NAMESPACE}:release-flinkjob-operator"


def test_the_api_server_lets_the_operator_do_the_table_and_no_more(
    apiserver: ApiServer, operator_of: str, namespace: str, elsewhere: str
) -> None:
    table = of_table(OPERATOR)
    asked = {Permission(*resource, verb) for resource in {*OPERATOR, *FORBIDDEN} for verb in VERBS}
    allowed = {permission for permission in asked if may(apiserver, operator_of, namespace, permission)}
    assert allowed == table
    assert not {permission for permission in table if may(apiserver, operator_of, elsewhere, permission)}
