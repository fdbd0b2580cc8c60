"""Who may do what: the rendered roles against a table, and a real API server's word for each account."""

from collections.abc import Iterator
from itertools import pairwise

import pytest

from chart.conftest import Render
from chart.helm import CHART, NAMESPACE, VARIANTS, Helm, one
from chart.permissions import (
    EDITOR,
    FORBIDDEN,
    OPERATOR,
    VERBS,
    VIEWER,
    Permission,
    covers,
    jobmanager,
    may,
    of_rules,
    of_table,
)
from flinkjob.controller.cluster import EVENT, KINDS, SECRET
from flinkjob.controller.following import FOLLOWED
from flinkjob.controller.handlers import HEARD
from kube.apiserver import ApiServer

CI = {path.name.removesuffix("-values.yaml"): path for path in VARIANTS}


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
def cluster_operator(helm4: Helm, apiserver: ApiServer, namespace: str) -> Iterator[str]:
    """The operator's account as the chart makes it for the whole cluster, with the Role for its Lease."""
    rbac, made = "/apis/rbac.authorization.k8s.io/v1", []
    for item in helm4.template("--set", "crds.install=false", "--namespace", namespace):
        kind, metadata = item["kind"], item["metadata"]
        if kind in RBAC and "aggregate" not in str(metadata.get("labels")):
            place = f"/namespaces/{namespace}" if "namespace" in metadata else ""
            apiserver.call("POST", f"{rbac}{place}/{RBAC[kind]}", item)
            made.append(f"{rbac}{place}/{RBAC[kind]}/{metadata['name']}")
    yield f"system:serviceaccount:{namespace}:release-flinkjob-operator"
    for path in made:
        apiserver.call("DELETE", path)


RBAC = {
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
}


@pytest.fixture
def operator_of(helm4: Helm, apiserver: ApiServer, namespace: str) -> str:
    """The operator's account as the chart makes it for one watched namespace, and nothing else of the chart."""
    made = [
        item
        for item in helm4.template("--set", f"watchNamespaces={{{namespace}}}", "--set", "crds.install=false")
        if item["kind"] in {"Role", "RoleBinding", "ServiceAccount"} and item["metadata"]["namespace"] == namespace
    ]
    for item in made:
        apiserver.call("POST", f"/apis/{item['apiVersion']}/namespaces/{namespace}/{RBAC[item['kind']]}", item)
    return f"system:serviceaccount:{NAMESPACE}:release-flinkjob-operator"


def test_the_api_server_lets_the_operator_do_the_table_and_no_more(
    apiserver: ApiServer, operator_of: str, namespace: str, elsewhere: str
) -> None:
    table = of_table(OPERATOR)
    asked = {Permission(*resource, verb) for resource in {*OPERATOR, *FORBIDDEN} for verb in VERBS}
    allowed = {permission for permission in asked if may(apiserver, operator_of, namespace, permission)}
    assert allowed == table
    assert not {permission for permission in table if may(apiserver, operator_of, elsewhere, permission)}


def test_the_api_server_lets_the_operator_of_the_whole_cluster_do_the_table_everywhere_and_no_more(
    apiserver: ApiServer, cluster_operator: str, elsewhere: str
) -> None:
    asked = {Permission(*resource, verb) for resource in {*OPERATOR, *FORBIDDEN} for verb in VERBS}
    for place in (elsewhere, ""):
        allowed = {permission for permission in asked if may(apiserver, cluster_operator, place, permission)}
        assert allowed == of_table(OPERATOR), place or "all namespaces at once"


def test_the_operators_own_lease_is_the_only_one_that_its_role_for_it_lets_it_have(
    apiserver: ApiServer, helm4: Helm, namespace: str, elsewhere: str
) -> None:
    """Where it watches other namespaces than its own."""
    rendered = helm4.template("--set", f"watchNamespaces={{{elsewhere}}}", "--namespace", namespace)
    for item in rendered:
        if item["kind"] in RBAC and item["metadata"].get("namespace") == namespace:
            path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/{RBAC[item['kind']]}"
            apiserver.call("POST", path, item)
    account, own = f"system:serviceaccount:{namespace}:release-flinkjob-operator", "release-flinkjob-operator"
    leases = {Permission("coordination.k8s.io", "leases", verb, name) for verb in VERBS for name in (own, "other", "")}
    others = {Permission(*resource, verb) for resource in {*OPERATOR, *FORBIDDEN} for verb in VERBS} - leases
    allowed = {each for each in leases | others if may(apiserver, account, namespace, each)}
    # What is to be made has no name yet, so that one of any name may be.
    made = {Permission("coordination.k8s.io", "leases", "create", name) for name in (own, "other", "")}
    assert allowed == made | {Permission("coordination.k8s.io", "leases", verb, own) for verb in GET_AND_UPDATE}
