"""What the objects of a FlinkJob are called, which labels and annotations they carry, and which names are too long."""

from collections.abc import Mapping
from typing import Any

from flinkjob.api.fields import FieldError, shown
from flinkjob.api.flinkjob import API_VERSION, KIND, MAX_JOB_NAME, FlinkJob, is_job_name

JOB_LABEL = "flinkjob.io/job"
"""The label that says which job an object belongs to."""
COMPONENT_LABEL = "app.kubernetes.io/component"
"""The label that says which kind of pod it is."""
JOBMANAGER = "jobmanager"
TASKMANAGER = "taskmanager"
CLEANUP = "cleanup"

APPLIED = "flinkjob.io/applied"
"""Annotation of a child: a hash of what the operator last applied."""
SPEC_HASH = "flinkjob.io/spec-hash"
"""Annotation of a pod: a hash of all in the FlinkJob that takes a new pod to come into force."""
JOB_UID = "flinkjob.io/job-uid"
"""Annotation of a pod: which run of the job it belongs to; `run_uid`."""
RENEW_AT = "flinkjob.io/renew-at"
"""Annotation of a Secret: when its certificates are to be looked at again, RFC 3339."""
FINALIZER = "flinkjob.io/cleanup"
"""The finalizer of a FlinkJob whose data has to be removed before it goes."""
FIELD_MANAGER = "flinkjob-operator"
"""The operator's field manager."""

RPC_PORT = 6123
REST_PORT = 8081
METRICS_PORT = 9249


def jobmanagers(job: str) -> str:
    """The StatefulSet, its headless Service, its ServiceAccount, Role, RoleBinding and PodDisruptionBudget."""
    return f"{job}-jobmanager"


def jobmanager_pod(job: str, ordinal: int) -> str:
    """A JobManager's pod."""
    return f"{jobmanagers(job)}-{ordinal}"


def jobmanager_address(job: str, namespace: str, ordinal: int) -> str:
    """host:port of a JobManager, for its TaskManagers."""
    return f"{jobmanager_pod(job, ordinal)}.{jobmanagers(job)}.{namespace}.svc:{RPC_PORT}"


def taskmanagers(job: str) -> str:
    """The TaskManagers' ServiceAccount."""
    return f"{job}-taskmanager"


def taskmanager_pod(job: str, suffix: str) -> str:
    """A TaskManager's pod, which is the TaskManager's id too."""
    return f"{taskmanagers(job)}-{suffix}"


def lease(job: str) -> str:
    """The Lease of the leader election."""
    return f"{job}-leader"


def manifest(job: str) -> str:
    """The ConfigMap with the manifest that the JobManagers read."""
    return f"{job}-job"


def rest_service(job: str) -> str:
    """The Service in front of the REST API."""
    return f"{job}-rest"


def jobmanager_tls(job: str) -> str:
    """The Secret with the JobManagers' certificate."""
    return f"{job}-jobmanager-tls"


def taskmanager_tls(job: str) -> str:
    """The Secret with the TaskManagers' certificate."""
    return f"{job}-taskmanager-tls"


def authority(job: str) -> str:
    """The Secret with the key of the job's certificate authority, for the operator alone."""
    return f"{job}-ca"


def rest_token(job: str) -> str:
    """The Secret with the token for changes by REST."""
    return f"{job}-rest-token"


def cleanup_pod(job: str) -> str:
    """The pod that removes a deleted job's data."""
    return f"{job}-cleanup"


def secrets(job: str) -> tuple[str, ...]:
    """All Secrets that the operator makes for a job."""
    return authority(job), jobmanager_tls(job), taskmanager_tls(job), rest_token(job)


def labels(job: str, component: str) -> dict[str, str]:
    """The labels of an object of a job."""
    return {
        "app.kubernetes.io/name": "flinkjob",
        "app.kubernetes.io/instance": job,
        COMPONENT_LABEL: component,
        "app.kubernetes.io/managed-by": FIELD_MANAGER,
        JOB_LABEL: job,
    }


def selector(job: str, component: str) -> dict[str, str]:
    """The labels by which the pods of one kind are found; they never change."""
    return {JOB_LABEL: job, COMPONENT_LABEL: component}


def selector_text(job: str, component: str) -> str:
    """`selector`, as kubectl and the scale subresource write it."""
    return ",".join(f"{key}={value}" for key, value in selector(job, component).items())


def owner_reference(job: FlinkJob) -> dict[str, Any]:
    """What makes the FlinkJob the owner of an object, so that the object goes with it."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": job.metadata.name,
        "uid": job.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def controller_of(manifest: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The owner reference of an object's controller."""
    references = manifest["metadata"].get("ownerReferences") or ()
    return next((reference for reference in references if reference.get("controller")), None)


def run_uid(uid: str, number: int) -> str:
    """What a run of the job is called: the resource's uid, and for all but the first run a number that no other run of it
    has; each run has a storage of its own."""
    return f"{uid}-r{number}" if number else uid


def check_name(name: str) -> None:
    """Refuse a name of which not all names above can be made.

    Raises:
        FieldError: it is too long, or no DNS label that begins with a letter.
    """
    if not is_job_name(name):
        raise FieldError(
            f"{shown(name)} cannot name a job on Kubernetes: at most {MAX_JOB_NAME} lower-case letters, digits and "
            "inner '-', the first a letter, so that the names of its pods and Services fit",
            "metadata",
            "name",
        )
