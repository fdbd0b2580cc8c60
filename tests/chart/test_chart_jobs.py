"""What the operator makes for a job is as restricted as the operator itself: its pods, and what its accounts may do."""

from typing import Any

import pytest

from chart.helm import Manifest, one
from chart.permissions import FORBIDDEN, OPERATOR, VERBS, Permission, covers, jobmanager, may, of_rules, of_table
from chart.podsecurity import beyond, violations
from controller.world import SETTINGS, flinkjob
from flinkjob.controller import names
from flinkjob.controller.children import desired_children
from flinkjob.controller.podspec import cleanup_pod, jobmanager_template, taskmanager_pod
from flinkjob.controller.target import Target, resolve
from kube.apiserver import ApiServer

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "everything": {
        "modules": {"configMap": {"name": "modules"}},
        "env": [{"name": "REGION", "value": "eu"}],
        "secrets": ["credentials"],
        "imagePullSecrets": ["registry"],
        "jobManager": {"replicas": 3, "resource": {"cpu": 1, "memory": "1g"}},
        "taskManager": {
            "replicas": 2,
            "podTemplate": {
                "spec": {"containers": [{"name": "proxy", "image": "proxy:1"}], "nodeSelector": {"disk": "ssd"}}
            },
        },
    },
}
PATHS = {
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
}


def target(namespace: str = "default", **spec: Any) -> Target:
    """A job of the operator's."""
    manifest = flinkjob(**spec)
    manifest["metadata"] |= {"uid": "4c0c7d5e-5d35-4f0a-8f5c-0a3f8e7a1b11", "namespace": namespace}
    return resolve(manifest, SETTINGS)


def pods(job: Target) -> dict[str, Manifest]:
    """The three kinds of pods."""
    return {
        names.JOBMANAGER: jobmanager_template(job),
        names.TASKMANAGER: taskmanager_pod(job, names.taskmanager_pod(job.name, "abcde")),
        names.CLEANUP: cleanup_pod(job, "/flinkjob/storage"),
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_pods_of_a_job_keep_to_the_restricted_profile(variant: str) -> None:
    for component, pod in pods(target(**VARIANTS[variant])).items():
        # A container that is only the user's is the user's to restrict.
        spec = {**pod["spec"], "containers": [each for each in pod["spec"]["containers"] if each["name"] == component]}
        assert spec["containers"], component
        assert violations(spec) + beyond(spec) == [], component


def test_only_jobmanagers_get_a_token() -> None:
    given = {component: pod["spec"]["automountServiceAccountToken"] for component, pod in pods(target()).items()}
    assert given == {names.JOBMANAGER: True, names.TASKMANAGER: False, names.CLEANUP: False}


def test_the_checker_finds_what_is_forbidden() -> None:
    good = jobmanager_template(target())["spec"]
    for change, problem in (
        ({"hostNetwork": True}, "hostNetwork"),
        ({"securityContext": {}}, "may run as root"),
        ({"volumes": [{"name": "host", "hostPath": {"path": "/"}}]}, "hostPath"),
        ({"containers": [{**good["containers"][0], "securityContext": {}}]}, "escalate"),
    ):
        assert any(problem in found for found in violations({**good, **change})), problem


def test_a_jobmanagers_role_is_the_table_and_the_operator_holds_all_of_it() -> None:
    role = one(desired_children(target(), jobmanagers=2), "Role")
    granted = of_rules(role["rules"])
    assert granted == jobmanager("wordcount")
    assert covers(of_table(OPERATOR), granted)
    assert not covers(of_table(OPERATOR), {Permission("", "secrets", "list")})


def test_the_api_server_lets_a_restricted_namespace_have_all_pods_of_a_job(
    apiserver: ApiServer, namespace: str
) -> None:
    label = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    path = f"/api/v1/namespaces/{namespace}"
    apiserver.call("PATCH", path, label, content_type="application/merge-patch+json")
    job = target(namespace)
    for account in (names.jobmanagers(job.name), names.taskmanagers(job.name)):
        apiserver.call("POST", f"{path}/serviceaccounts", {"metadata": {"name": account}})
    for component, pod in pods(job).items():
        metadata = {"name": component, "labels": pod["metadata"]["labels"]}
        made = apiserver.call("POST", f"{path}/pods?dryRun=All", {"metadata": metadata, "spec": pod["spec"]})
        assert made["metadata"]["name"] == component


def test_the_api_server_lets_each_account_of_a_job_do_the_table_and_no_more(
    apiserver: ApiServer, namespace: str
) -> None:
    for child in desired_children(target(namespace), jobmanagers=2):
        if child["kind"] in PATHS:
            child["metadata"].pop("ownerReferences")
            apiserver.call("POST", PATHS[child["kind"]].format(namespace), child)
    table = jobmanager("wordcount")
    resources = {*OPERATOR, *FORBIDDEN, *((each.group, each.resource) for each in table)}
    asked = {Permission(*resource, verb) for resource in resources for verb in VERBS}
    for each in table:
        if each.name:
            asked |= {
                each._replace(verb=verb, name=name) for verb in VERBS for name in (each.name, f"other-{each.name}")
            }
    # Whoever may do it with all objects of a kind may do it with one of a name.
    expected = {each for each in asked if each in table or each._replace(name="") in table}
    allowed = {
        component: {
            each
            for each in asked
            if may(apiserver, f"system:serviceaccount:{namespace}:wordcount-{component}", namespace, each)
        }
        for component in (names.JOBMANAGER, names.TASKMANAGER)
    }
    assert expected >= table
    assert allowed == {names.JOBMANAGER: expected, names.TASKMANAGER: set()}
    elsewhere = {
        each
        for each in table
        if may(apiserver, f"system:serviceaccount:{namespace}:wordcount-jobmanager", "default", each)
    }
    assert elsewhere == set()
