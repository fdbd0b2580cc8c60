"""The pods of a job: what runs in them, what is mounted, and how little they may do.

All pods fit Kubernetes' *restricted* pod security profile. The user's pod template is merged in at the end, so that it can
say otherwise where a namespace allows it; labels and annotations that the operator itself goes by are put back after that.
"""

from collections.abc import Mapping
from typing import Any

from flinkjob.api.pods import CONFIGURATION_DIR, MODULE_DIR, TMP_DIR, WORK_DIR, JobManagerSpec, TaskManagerSpec
from flinkjob.api.quantities import cpu_quantity, memory_quantity, parse_cpu, parse_pod_memory
from flinkjob.controller import names
from flinkjob.controller.merging import merge
from flinkjob.controller.observed import Manifest
from flinkjob.controller.target import Target

USER = 10001
"""uid and gid of all processes."""
GRACE = 30
"""Seconds between SIGTERM and SIGKILL: a leader hands over in much less."""
UNREACHABLE = 60
"""Seconds that a TaskManager on a node that cannot be reached is waited for; Kubernetes' default is five minutes, and its
tasks have long been running elsewhere by then."""

JOB_DIR = f"{CONFIGURATION_DIR}/job"
TLS_DIR = f"{CONFIGURATION_DIR}/tls"
TOKEN_DIR = f"{CONFIGURATION_DIR}/rest-token"
MANIFEST = f"{JOB_DIR}/flinkjob.yaml"

_DEFAULT_CPU, _DEFAULT_MEMORY = "100m", "128Mi"
_STORAGE, _MODULES, _WORK, _TMP, _JOB, _TLS, _TOKEN = (
    "storage", "modules", "work", "tmp", "job", "tls", "rest-token",
)  # fmt: skip


def jobmanager_template(target: Target) -> Manifest:
    """The template of the JobManagers' StatefulSet."""
    service, namespace = names.jobmanagers(target.name), target.namespace
    address = f"$(POD_NAME).{service}.{namespace}.svc"
    container = _container(
        target,
        names.JOBMANAGER,
        target.job.spec.job_manager,
        args=[
            "jobmanager",
            *("--id", "$(POD_NAME)", "--host", "0.0.0.0"),
            *("--port", str(names.RPC_PORT), "--rest-port", str(names.REST_PORT)),
            *("--address", f"{address}:{names.RPC_PORT}", "--rest-address", f"{address}:{names.REST_PORT}"),
            *("--kubernetes", "--pod-uid", "$(POD_UID)"),
            *("--tls-dir", TLS_DIR, "--rest-token-file", f"{TOKEN_DIR}/token"),
            *("--module-dir", MODULE_DIR, MANIFEST),
        ],
        ports={"rpc": names.RPC_PORT, "rest": names.REST_PORT},
        probed="rest",
    )
    container["volumeMounts"] += [_mount(_JOB, JOB_DIR, read_only=True), _mount(_TOKEN, TOKEN_DIR, read_only=True)]
    spec = _pod_spec(target, container, tls=names.jobmanager_tls(target.name))
    spec["volumes"] += [
        {"name": _JOB, "configMap": {"name": names.manifest(target.name)}},
        {"name": _TOKEN, "secret": {"secretName": names.rest_token(target.name)}},
    ]
    spec |= {
        "serviceAccountName": target.job.spec.service_account or service,
        "automountServiceAccountToken": True,
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": names.selector(target.name, names.JOBMANAGER)},
            }
        ],
    }
    return _finished(target, names.JOBMANAGER, spec, target.job.spec.job_manager.pod_template)


def taskmanager_pod(target: Target, name: str) -> Manifest:
    """A TaskManager's pod of that name."""
    replicas = target.job.spec.job_manager.replicas
    addresses = [names.jobmanager_address(target.name, target.namespace, ordinal) for ordinal in range(replicas)]
    addresses.append(f"{names.rest_service(target.name)}.{target.namespace}.svc:{names.RPC_PORT}")
    container = _container(
        target,
        names.TASKMANAGER,
        target.job.spec.task_manager,
        args=[
            "taskmanager",
            *("--id", "$(POD_NAME)", "--jobmanagers", ",".join(addresses)),
            *("--slots", str(target.slots), "--tls-dir", TLS_DIR),
            *("--module-dir", MODULE_DIR, "--work-dir", WORK_DIR, "--metrics-port", str(names.METRICS_PORT)),
        ],
        ports={"metrics": names.METRICS_PORT},
        probed="metrics",
    )
    spec = _pod_spec(target, container, tls=names.taskmanager_tls(target.name)) | {
        # One that has ended is replaced under another name: its name is its identity as a TaskManager.
        "restartPolicy": "Never",
        "serviceAccountName": target.job.spec.service_account or names.taskmanagers(target.name),
        "tolerations": [
            {"key": f"node.kubernetes.io/{trouble}", "operator": "Exists", "effect": "NoExecute",
             "tolerationSeconds": UNREACHABLE}
            for trouble in ("not-ready", "unreachable")
        ],
    }  # fmt: skip
    return _pod(target, name, _finished(target, names.TASKMANAGER, spec, target.job.spec.task_manager.pod_template))


def cleanup_pod(target: Target, storage_dir: str) -> Manifest:
    """The pod that removes the job's data, of all its runs.

    Nobody owns it, and it needs no ConfigMap: it has to work while all that belongs to the job is being deleted.
    """
    job, uid = target.job, target.job.metadata.uid or ""
    where = ["--storage-dir", storage_dir, "--namespace", target.namespace, "--name", target.name, "--uid", uid]
    container = _container(target, names.CLEANUP, JobManagerSpec(), args=["storage", "delete", *where])
    spec = _pod_spec(target, container, tls=None) | {
        "restartPolicy": "Never",
        "serviceAccountName": job.spec.service_account or "default",
    }
    # Where JobManagers can run and find their storage, this can too.
    of_pod = dict(job.spec.job_manager.pod_template.get("spec", {}))
    containers = [each for each in of_pod.pop("containers", ()) if each["name"] == names.JOBMANAGER]
    of_pod.pop("initContainers", None)
    kept = ("env", "envFrom", "volumeMounts", "securityContext")
    own = [{"name": names.CLEANUP, **{key: each[key] for key in kept if key in each}} for each in containers]
    pod = _pod(
        target,
        names.cleanup_pod(target.name),
        _finished(target, names.CLEANUP, spec, {"spec": {**of_pod, "containers": own}}),
    )
    pod["metadata"]["annotations"][names.JOB_UID] = uid
    del pod["metadata"]["ownerReferences"]
    return pod


def _finished(target: Target, component: str, spec: Manifest, template: Mapping[str, Any]) -> Manifest:
    merged = merge({"metadata": {}, "spec": spec}, template)
    metadata = {key: merged["metadata"].get(key) or {} for key in ("labels", "annotations")}
    hashes = {names.JOBMANAGER: target.jobmanager_hash, names.TASKMANAGER: target.taskmanager_hash}
    metadata["labels"] = {**metadata["labels"], **names.labels(target.name, component)}
    metadata["annotations"] = {
        "kubectl.kubernetes.io/default-container": component,
        **metadata["annotations"],
        names.SPEC_HASH: hashes.get(component, ""),
        names.JOB_UID: target.run,
    }
    return {"metadata": metadata, "spec": merged["spec"]}


def _pod(target: Target, name: str, template: Manifest) -> Manifest:
    metadata = {
        "name": name,
        "namespace": target.namespace,
        **template["metadata"],
        "ownerReferences": [names.owner_reference(target.job)],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def _pod_spec(target: Target, container: Manifest, *, tls: str | None) -> Manifest:
    spec = target.job.spec
    volumes: list[Manifest] = [{"name": _TMP, "emptyDir": {}}, {"name": _WORK, "emptyDir": {}}]
    if tls is not None:
        volumes.append({"name": _TLS, "secret": {"secretName": tls}})
        container["volumeMounts"].append(_mount(_TLS, TLS_DIR, read_only=True))
    if spec.storage is not None:
        volumes.append({"name": _STORAGE, **spec.storage.volume})
    if spec.modules is not None:
        volumes.append({"name": _MODULES, **spec.modules})
    pod: Manifest = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }
    if spec.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in spec.image_pull_secrets]
    return pod


def _container(
    target: Target,
    name: str,
    sizes: JobManagerSpec | TaskManagerSpec,
    *,
    args: list[str],
    ports: Mapping[str, int] | None = None,
    probed: str | None = None,
) -> Manifest:
    spec = target.job.spec
    mounts = [_mount(_TMP, TMP_DIR), _mount(_WORK, WORK_DIR)]
    if spec.storage is not None:
        mounts.append(_mount(_STORAGE, spec.storage.mount_path))
    if spec.modules is not None:
        mounts.append(_mount(_MODULES, MODULE_DIR, read_only=True))
    container: Manifest = {
        "name": name,
        "image": target.image,
        "args": args,
        "env": [_downward("POD_NAME", "metadata.name"), _downward("POD_UID", "metadata.uid"), *spec.env],
        "resources": _resources(sizes),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    if target.image_pull_policy is not None:
        container["imagePullPolicy"] = target.image_pull_policy
    if spec.secrets:
        container["envFrom"] = [{"secretRef": {"name": secret}} for secret in spec.secrets]
    if ports:
        container["ports"] = [{"name": port, "containerPort": ports[port], "protocol": "TCP"} for port in ports]
    if probed is not None:
        container["readinessProbe"] = _probe("/readyz", probed, period=2, failures=2)
        container["livenessProbe"] = _probe("/healthz", probed, period=10, failures=6)
    return container


def _resources(sizes: JobManagerSpec | TaskManagerSpec) -> Manifest:
    cpu, memory = sizes.resource.cpu, sizes.resource.memory
    requests = {
        "cpu": _DEFAULT_CPU if cpu is None else cpu_quantity(parse_cpu(cpu)),
        "memory": _DEFAULT_MEMORY if memory is None else memory_quantity(parse_pod_memory(memory)),
    }
    return {"requests": requests, **({} if memory is None else {"limits": {"memory": requests["memory"]}})}


def _probe(path: str, port: str, *, period: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }


def _downward(name: str, path: str) -> Manifest:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _mount(name: str, path: str, *, read_only: bool = False) -> Manifest:
    return {"name": name, "mountPath": path, **({"readOnly": True} if read_only else {})}
