"""What each account may do, as a table, and how a Role's rules compare with one."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from kube.apiserver import ApiServer


class Permission(NamedTuple):
    """One verb on one resource (with its subresource), of one name or (empty) of any."""

    group: str
    resource: str
    verb: str
    name: str = ""


ALL_OF_A_CHILD = "get list watch create patch delete"

OPERATOR = {
    ("flinkjob.io", "flinkjobs"): "get list watch patch delete",
    ("flinkjob.io", "flinkjobs/status"): "get patch",
    ("flinkjob.io", "flinkjobs/finalizers"): "update",
    ("", "pods"): ALL_OF_A_CHILD,
    ("", "configmaps"): ALL_OF_A_CHILD,
    ("", "services"): ALL_OF_A_CHILD,
    ("", "serviceaccounts"): ALL_OF_A_CHILD,
    ("", "secrets"): "get create patch delete",
    ("", "persistentvolumeclaims"): "get",
    ("rbac.authorization.k8s.io", "roles"): ALL_OF_A_CHILD,
    ("rbac.authorization.k8s.io", "rolebindings"): ALL_OF_A_CHILD,
    ("apps", "statefulsets"): ALL_OF_A_CHILD,
    ("policy", "poddisruptionbudgets"): ALL_OF_A_CHILD,
    ("coordination.k8s.io", "leases"): ALL_OF_A_CHILD + " update",
    ("", "events"): "create patch",
    ("events.k8s.io", "events"): "create patch",
}
"""The operator, where it runs jobs."""

VIEWER = {
    ("flinkjob.io", "flinkjobs"): "get list watch",
    ("flinkjob.io", "flinkjobs/status"): "get list watch",
    ("flinkjob.io", "flinkjobs/scale"): "get list watch",
}
"""What is added to Kubernetes' role view."""

EDITOR = {
    ("flinkjob.io", "flinkjobs"): "create update patch delete deletecollection",
    ("flinkjob.io", "flinkjobs/scale"): "update patch",
}
"""What is added to Kubernetes' roles edit and admin, beside what a viewer has."""


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
"""All that can be done with a resource."""


def jobmanager(job: str) -> set[Permission]:
    """A job's JobManagers: the election, their own resource, and nothing of anybody else's."""
    named = {
        ("coordination.k8s.io", "leases", f"{job}-leader"): "get list watch update",
        ("flinkjob.io", "flinkjobs", job): "get",
        ("flinkjob.io", "flinkjobs/status", job): "patch",
        ("", "pods", ""): "get list watch",
        ("", "events", ""): "create patch",
        ("events.k8s.io", "events", ""): "create patch",
    }
    return {
        Permission(group, resource, verb, name)
        for (group, resource, name), verbs in named.items()
        for verb in verbs.split()
    }


def of_table(table: Mapping[tuple[str, str], str]) -> set[Permission]:
    """The permissions of a table."""
    return {Permission(*resource, verb) for resource, verbs in table.items() for verb in verbs.split()}


def of_rules(rules: Iterable[Mapping[str, Any]]) -> set[Permission]:
    """The permissions of a Role's rules."""
    return {
        Permission(group, resource, verb, name)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }


def covers(held: set[Permission], granted: set[Permission]) -> bool:
    """Whether one who has the first may, by the API server's rule against escalation, grant the second."""
    return all(permission in held or permission._replace(name="") in held for permission in granted)


def may(apiserver: ApiServer, user: str, namespace: str, permission: Permission) -> bool:
    """What ``kubectl auth can-i`` asks, of a service account."""
    resource, _, subresource = permission.resource.partition("/")
    attributes = {
        "namespace": namespace,
        "group": permission.group,
        "resource": resource,
        "subresource": subresource,
        "verb": permission.verb,
        "name": permission.name,
    }
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{user.split(':')[2]}", "system:authenticated"]
    review = {"spec": {"user": user, "groups": groups, "resourceAttributes": attributes}}
    answer = apiserver.call("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return bool(answer["status"]["allowed"])
