"""The objects that a FlinkJob should have, but for its pods: each as the operator applies it, complete and nothing else.

Pure: of the same `Target` the same objects are made, in the order in which they are to exist: an object stands behind
all that it refers to. Secrets are not among them, because their content is made of keys (`certificates`); `secret` makes
the rest of one.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from flinkjob.controller import names
from flinkjob.controller.observed import ChildKey, Manifest
from flinkjob.controller.podspec import jobmanager_template
from flinkjob.controller.target import Target, digest


def key_of(manifest: Mapping[str, Any]) -> ChildKey:
    """The kind and name of an object."""
    return ChildKey(manifest["kind"], manifest["metadata"]["name"])


def desired_children(target: Target, *, jobmanagers: int) -> list[Manifest]:
    """All children but Secrets, the Lease and pods, with the hash of each in its annotations.

    Args:
        target: what the FlinkJob asks for.
        jobmanagers: how many JobManagers there should be now.
    """
    children = [
        *_accounts(target),
        _role(target),
        _role_binding(target),
        _config_map(target),
        _headless_service(target),
        _rest_service(target),
        _disruption_budget(target),
        _stateful_set(target, jobmanagers),
    ]
    for child in children:
        child["metadata"]["annotations"] = {names.APPLIED: digest(child)}
    return children


def lease(target: Target, *, transitions: int = 0) -> Manifest:
    """The Lease of the election, as it is made: who holds it is the JobManagers' business from then on.

    Args:
        target: what the FlinkJob asks for.
        transitions: how often one that is gone has changed hands. Where there is no log the count is the leaders' epoch,
            and TaskManagers follow none with a lower one than they have seen.
    """
    spec = {"spec": {"leaseTransitions": transitions}} if transitions else {}
    return _object(target, "coordination.k8s.io/v1", "Lease", names.lease(target.name), names.JOBMANAGER, **spec)


def secret(target: Target, name: str, *, type: str, data: Mapping[str, str], renew_at: str | None = None) -> Manifest:
    """One of `names.secrets`.

    Args:
        target: what the FlinkJob asks for.
        name: its name.
        type: ``kubernetes.io/tls`` or ``Opaque``.
        data: its content, base64.
        renew_at: when it is to be looked at again, RFC 3339.
    """
    component = names.TASKMANAGER if name == names.taskmanager_tls(target.name) else names.JOBMANAGER
    made = _object(target, "v1", "Secret", name, component, type=type, data=dict(data))
    if renew_at is not None:
        made["metadata"]["annotations"] = {names.RENEW_AT: renew_at}
    return made


def all_keys(name: str) -> tuple[ChildKey, ...]:
    """What the children of a job of that name are called, Secrets and Lease included, pods not."""
    service = names.jobmanagers(name)
    return (
        ChildKey("ServiceAccount", service),
        ChildKey("ServiceAccount", names.taskmanagers(name)),
        ChildKey("Role", service),
        ChildKey("RoleBinding", service),
        ChildKey("Lease", names.lease(name)),
        ChildKey("ConfigMap", names.manifest(name)),
        *(ChildKey("Secret", each) for each in names.secrets(name)),
        ChildKey("Service", service),
        ChildKey("Service", names.rest_service(name)),
        ChildKey("PodDisruptionBudget", service),
        ChildKey("StatefulSet", service),
    )


def _object(target: Target, api_version: str, kind: str, name: str, component: str, **content: Any) -> Manifest:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": target.namespace,
            "labels": names.labels(target.name, component),
            "ownerReferences": [names.owner_reference(target.job)],
        },
        **content,
    }


def _accounts(target: Target) -> Iterable[Manifest]:
    if target.job.spec.service_account is not None:
        return
    for name, component in (
        (names.jobmanagers(target.name), names.JOBMANAGER),
        (names.taskmanagers(target.name), names.TASKMANAGER),
    ):
        yield _object(target, "v1", "ServiceAccount", name, component, automountServiceAccountToken=False)


def _role(target: Target) -> Manifest:
    def rule(group: str, resource: str, verbs: Iterable[str], name: str | None = None) -> Manifest:
        limited = {} if name is None else {"resourceNames": [name]}
        return {"apiGroups": [group], "resources": [resource], **limited, "verbs": list(verbs)}

    rules = [
        # The election; whoever watches one object by its name needs list as well.
        rule("coordination.k8s.io", "leases", ("get", "list", "watch", "update"), names.lease(target.name)),
        # Its own resource, and its part of the status.
        rule("flinkjob.io", "flinkjobs", ("get",), target.name),
        rule("flinkjob.io", "flinkjobs/status", ("patch",), target.name),
        # The pods of its TaskManagers; RBAC cannot select by label.
        rule("", "pods", ("get", "list", "watch")),
        rule("", "events", ("create", "patch")),
        rule("events.k8s.io", "events", ("create", "patch")),
    ]
    name = names.jobmanagers(target.name)
    return _object(target, "rbac.authorization.k8s.io/v1", "Role", name, names.JOBMANAGER, rules=rules)


def _role_binding(target: Target) -> Manifest:
    name = names.jobmanagers(target.name)
    account = target.job.spec.service_account or name
    return _object(
        target,
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        name,
        names.JOBMANAGER,
        roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        subjects=[{"kind": "ServiceAccount", "name": account, "namespace": target.namespace}],
    )


def _config_map(target: Target) -> Manifest:
    data = {"flinkjob.yaml": target.manifest}
    return _object(target, "v1", "ConfigMap", names.manifest(target.name), names.JOBMANAGER, data=data)


def _headless_service(target: Target) -> Manifest:
    spec = {
        "type": "ClusterIP",
        "clusterIP": "None",
        # TaskManagers ask every JobManager who leads, and a leader is found before its readiness has been probed.
        "publishNotReadyAddresses": True,
        "selector": names.selector(target.name, names.JOBMANAGER),
        "ports": [_service_port("rpc", names.RPC_PORT), _service_port("rest", names.REST_PORT)],
    }
    return _object(target, "v1", "Service", names.jobmanagers(target.name), names.JOBMANAGER, spec=spec)


def _rest_service(target: Target) -> Manifest:
    spec = {
        "type": "ClusterIP",
        "selector": names.selector(target.name, names.JOBMANAGER),
        # A pod's name in the DNS leads to its predecessor for up to half a minute; this address never changes.
        "ports": [_service_port("rpc", names.RPC_PORT), _service_port("rest", names.REST_PORT)],
    }
    return _object(target, "v1", "Service", names.rest_service(target.name), names.JOBMANAGER, spec=spec)


def _service_port(name: str, port: int) -> Manifest:
    return {"name": name, "port": port, "targetPort": name, "protocol": "TCP"}


def _disruption_budget(target: Target) -> Manifest:
    spec = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": names.selector(target.name, names.JOBMANAGER)},
        # A JobManager that does not work must not keep a node from being drained.
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    name = names.jobmanagers(target.name)
    return _object(target, "policy/v1", "PodDisruptionBudget", name, names.JOBMANAGER, spec=spec)


def _stateful_set(target: Target, replicas: int) -> Manifest:
    name = names.jobmanagers(target.name)
    spec = {
        "replicas": replicas,
        "serviceName": name,
        "podManagementPolicy": "Parallel",
        # The operator decides when which one is replaced: standbys first, the leader by a clean handover.
        "updateStrategy": {"type": "OnDelete"},
        "revisionHistoryLimit": 1,
        "selector": {"matchLabels": names.selector(target.name, names.JOBMANAGER)},
        "template": jobmanager_template(target),
    }
    return _object(target, "apps/v1", "StatefulSet", name, names.JOBMANAGER, spec=spec)
