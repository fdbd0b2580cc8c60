"""What ``spec`` says about pods: how many of each kind, their resources, their volumes, and a template to merge in.

A pod template, a volume and an environment variable are Kubernetes' own types. They are taken as they are, checked only
for what would make the operator build pods that cannot work; the API server checks the rest when the pod is made.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct, field

from flinkjob.api.errors import InvalidInput
from flinkjob.api.fields import FieldError, did_you_mean, shown
from flinkjob.api.quantities import parse_cpu, parse_pod_memory

MAX_JOB_MANAGERS = 100
"""Most JobManagers: their ordinals have two digits."""
MAX_TASK_MANAGERS = 10_000
"""Most TaskManagers."""
MAX_TASK_SLOTS = 10_000
"""Most slots of one TaskManager."""

DEFAULT_MOUNT_PATH = "/flinkjob/storage"
WORK_DIR = "/flinkjob/work"
MODULE_DIR = "/opt/flinkjob/usrlib"
CONFIGURATION_DIR = "/etc/flinkjob"
TMP_DIR = "/tmp"
OUR_PATHS = (WORK_DIR, MODULE_DIR, CONFIGURATION_DIR, TMP_DIR)
"""Where the operator mounts something itself."""

_SHARED_SOURCES = (
    "persistentVolumeClaim", "nfs", "hostPath", "csi", "azureFile", "cephfs", "glusterfs", "flexVolume", "iscsi", "fc",
    "rbd", "quobyte", "portworxVolume", "awsElasticBlockStore", "azureDisk", "gcePersistentDisk", "cinder",
    "vsphereVolume",
)  # fmt: skip
_FILES_OF_OBJECTS = ("configMap", "secret", "projected", "image")
_OF_ONE_POD = ("emptyDir", "ephemeral", "downwardAPI", "gitRepo")

STORAGE_SOURCES = _SHARED_SOURCES
"""Sources of core/v1 ``Volume`` that several pods can share and write."""
MODULE_SOURCES = (*_FILES_OF_OBJECTS, *_SHARED_SOURCES)
"""Sources of core/v1 ``Volume`` that can bring files into several pods."""

OUR_VARIABLES = ("POD_NAME", "POD_UID")
"""Environment variables that every pod has already."""

_ENV_NAME = re.compile(r"[^=\0]+")
_PATH = re.compile(r"(/[^/:\0]+)+")
_OPERATORS_OWN = ("restartPolicy", "hostname", "subdomain", "serviceAccountName", "activeDeadlineSeconds")


class ResourceSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """CPU and memory of a pod.

    The memory is both request and limit. The CPU is a request only: a leader that is throttled looks like a dead one.

    Attributes:
        cpu: cores, such as ``0.5`` or ``500m``.
        memory: a size as Flink writes it, such as ``2048m`` or ``2 gb``, or as Kubernetes does, such as ``2Gi``.

    Raises:
        FieldError: a malformed amount.
    """

    cpu: str | int | float | None = None
    memory: str | int | None = None

    def __post_init__(self) -> None:
        for name, value, parse in (("cpu", self.cpu, parse_cpu), ("memory", self.memory, parse_pod_memory)):
            try:
                if value is not None:
                    parse(value)
            except InvalidInput as error:
                raise FieldError(str(error), name) from None


class JobManagerSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """The JobManagers.

    Attributes:
        replicas: the leader and its standbys together, 1 to `MAX_JOB_MANAGERS`.
        resource: CPU and memory of each.
        pod_template: merged into their pods as kubectl merges a strategic patch; the main container is ``jobmanager``.

    Raises:
        FieldError: a number out of range, or a template that takes what is the operator's.
    """

    replicas: int = 1
    resource: ResourceSpec = field(default_factory=ResourceSpec)
    pod_template: dict[str, Any] = {}

    def __post_init__(self) -> None:
        _check_range(self.replicas, "replicas", MAX_JOB_MANAGERS)
        check_pod_template(self.pod_template)


class TaskManagerSpec(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True
):
    """The TaskManagers.

    Attributes:
        replicas: how many, 1 to `MAX_TASK_MANAGERS`.
        task_slots: tasks that one of them runs at a time, at least 1; what is left out is taken from
            ``taskmanager.numberOfTaskSlots``.
        resource: CPU and memory of each.
        pod_template: merged into their pods as kubectl merges a strategic patch; the main container is ``taskmanager``.

    Raises:
        FieldError: a number out of range, or a template that takes what is the operator's.
    """

    replicas: int = 1
    task_slots: int | None = None
    resource: ResourceSpec = field(default_factory=ResourceSpec)
    pod_template: dict[str, Any] = {}

    def __post_init__(self) -> None:
        _check_range(self.replicas, "replicas", MAX_TASK_MANAGERS)
        if self.task_slots is not None:
            _check_range(self.task_slots, "taskSlots", MAX_TASK_SLOTS)
        check_pod_template(self.pod_template)


class StorageSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """A volume for the operation log and the partitions, mounted in every pod of the job.

    Attributes:
        volume: one source of a core/v1 Volume that all pods can share, such as a ReadWriteMany claim:
            ``persistentVolumeClaim: {claimName: flink}``.
        mount_path: where it is mounted; also the default of ``high-availability.storageDir``.

    Raises:
        FieldError: not exactly one source, one that pods cannot share, or a path that is taken.
    """

    volume: dict[str, Any]
    mount_path: str = DEFAULT_MOUNT_PATH

    def __post_init__(self) -> None:
        check_volume(self.volume, "volume", allowed=STORAGE_SOURCES)
        if not _PATH.fullmatch(self.mount_path):
            raise FieldError(f"{shown(self.mount_path)} is not an absolute path without ':'", "mountPath")
        for path in OUR_PATHS:
            if f"{self.mount_path}/".startswith(f"{path}/") or f"{path}/".startswith(f"{self.mount_path}/"):
                raise FieldError(f"{shown(self.mount_path)} collides with {path}, where the pods have files of their own",
                                 "mountPath")  # fmt: skip


def check_volume(volume: Mapping[str, Any], name: str, *, allowed: Iterable[str]) -> None:
    """Refuse what is not exactly one of these volume sources.

    Raises:
        FieldError: with the name of the field.
    """
    allowed = tuple(allowed)
    if len(volume) != 1:
        given = ", ".join(volume) or "none"
        raise FieldError(f"needs exactly one volume source, such as persistentVolumeClaim; got {given}", name)
    ((source, value),) = volume.items()
    if source in _OF_ONE_POD:
        raise FieldError(f"a volume of {source} is seen by one pod only, and all pods of the job have to share it",
                         name, source)  # fmt: skip
    if source not in allowed:
        raise FieldError(f"unknown volume source {shown(source)}{did_you_mean(source, allowed)}; "
                         f"allowed: {', '.join(allowed)}", name)  # fmt: skip
    if not isinstance(value, Mapping):
        raise FieldError("expected a mapping", name, source)


def check_pod_template(template: Mapping[str, Any]) -> None:
    """Refuse a template that is none, or that sets what the operator has to set.

    Raises:
        FieldError: with the path of the field below ``podTemplate``.
    """
    for name in template:
        if name not in ("metadata", "spec"):
            raise FieldError(f"unknown field {shown(name)}; allowed: metadata, spec", "podTemplate")
        if not isinstance(template[name], Mapping):
            raise FieldError("expected a mapping", "podTemplate", name)
    spec = template.get("spec", {})
    for name in _OPERATORS_OWN:
        if name in spec:
            remedy = "; use spec.serviceAccount" if name == "serviceAccountName" else ""
            raise FieldError(f"is set by the operator{remedy}", "podTemplate", "spec", name)
    for name in ("containers", "initContainers", "volumes"):
        _check_named_items(spec.get(name, ()), "podTemplate", "spec", name)


def check_env(env: Iterable[Mapping[str, Any]]) -> None:
    """Refuse what is no list of core/v1 EnvVar.

    Raises:
        FieldError: with the path of the field below ``env``.
    """
    first: dict[str, int] = {}
    for index, variable in enumerate(env):
        name = variable.get("name")
        if not isinstance(name, str) or not _ENV_NAME.fullmatch(name):
            raise FieldError("needs a name without '='", "env", index, "name")
        if name in OUR_VARIABLES:
            raise FieldError(f"{name} is set by the operator", "env", index, "name")
        if first.setdefault(name, index) != index:
            raise FieldError(f"{shown(name)} is already the name of env[{first[name]}]", "env", index, "name")
        for key in variable:
            if key not in ("name", "value", "valueFrom"):
                raise FieldError(f"unknown field {shown(key)}; allowed: name, value, valueFrom", "env", index)
        if "value" in variable and "valueFrom" in variable:
            raise FieldError("needs one of value, valueFrom, not both", "env", index)
        if not isinstance(variable.get("value", ""), str):
            raise FieldError("expected a string; quote it", "env", index, "value")
        if not isinstance(variable.get("valueFrom", {}), Mapping):
            raise FieldError("expected a mapping", "env", index, "valueFrom")


def _check_named_items(items: object, *path: str) -> None:
    if not isinstance(items, list | tuple):
        raise FieldError("expected a list", *path)
    for index, item in enumerate(items):
        if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
            raise FieldError("expected a mapping with a name", *path, index)


def _check_range(value: int, name: str, most: int) -> None:
    if value < 1:
        raise FieldError(f"{value} is less than 1", name)
    if value > most:
        raise FieldError(f"{value} is more than {most}", name)
