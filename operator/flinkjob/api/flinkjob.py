"""The FlinkJob resource: what a manifest says, checked and typed.

The same text serves the command line and Kubernetes. A refusal is one sentence that has the source, the path of the
field, what is wrong and what is allowed.
"""

import enum
import hashlib
import re
from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct, field

from flinkjob.api.decode import decode
from flinkjob.api.errors import InvalidManifest, InvalidOption
from flinkjob.api.fields import FieldError, Step, shown
from flinkjob.api.job import JobSpec
from flinkjob.api.options import (
    NUMBER_OF_TASK_SLOTS,
    OPERATION_LOG_STORE,
    STORAGE_DIR,
    Configuration,
    OperationLogStore,
    Scalar,
)
from flinkjob.api.pods import MODULE_SOURCES, JobManagerSpec, StorageSpec, TaskManagerSpec, check_env, check_volume
from flinkjob.api.yamltext import load_yaml

GROUP = "flinkjob.io"
VERSION = "v1alpha1"
API_VERSION: Literal["flinkjob.io/v1alpha1"] = "flinkjob.io/v1alpha1"
KIND: Literal["FlinkJob"] = "FlinkJob"

MAX_JOB_NAME = 41
"""The longest name of a job on Kubernetes: ``NAME-jobmanager`` and the hash of its revision make a label of 63."""
JOB_NAME_PATTERN = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
"""RE2, for the schema: a Service's name begins with a letter."""

_JOB_NAME = re.compile(JOB_NAME_PATTERN)
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_IMAGE = re.compile(r"[^\s\0]{1,1024}")
_UID = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?")


class Metadata(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What identifies the resource. Kubernetes' other metadata fields are accepted and left alone.

    Attributes:
        name: DNS-1123 label.
        namespace: DNS-1123 label.
        uid: tells apart two jobs that had the same name one after the other; Kubernetes gives it.
        labels: labels.
        annotations: annotations.

    Raises:
        FieldError: a malformed name, namespace or uid.
    """

    name: str
    namespace: str = "default"
    uid: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}

    def __post_init__(self) -> None:
        _check_label(self.name, "name")
        _check_label(self.namespace, "namespace")
        if self.uid is not None and not _UID.fullmatch(self.uid):
            raise FieldError(f"{shown(self.uid)} is not a uid: 1 to 63 letters, digits and inner '-'", "uid")


class DeletionPolicy(enum.StrEnum):
    """What becomes of the job's directory below ``high-availability.storageDir`` when the FlinkJob is deleted.

    Attributes:
        RETAIN: it stays.
        DELETE: it is removed before the FlinkJob goes, of all runs in the storage that the FlinkJob names by then; what
            earlier runs have left in another one stays.
    """

    RETAIN = "Retain"
    DELETE = "Delete"


class PullPolicy(enum.StrEnum):
    """When the image is pulled (core/v1 ``Container``).

    Attributes:
        ALWAYS: at every start of a pod.
        IF_NOT_PRESENT: when the node does not have it.
        NEVER: never; the node has it.
    """

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class FlinkJobSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """What is wanted.

    Attributes:
        flink_configuration: options by key; ``flinkjob options`` lists them.
        image: what all pods of the job run; what is left out is the operator's own image.
        image_pull_policy: when the image is pulled.
        image_pull_secrets: names of the Secrets with which it is pulled.
        service_account: a ServiceAccount to run the pods as, in place of those that the operator makes.
        job_manager: the JobManagers.
        task_manager: the TaskManagers.
        storage: a volume for the operation log and the partitions; object stores need none.
        modules: one source of a core/v1 Volume with the tasks' Python modules and files, such as
            ``configMap: {name: wordcount}``; what is left out is taken from the image, /opt/flinkjob/usrlib.
        env: environment variables of all pods, as core/v1 EnvVar.
        secrets: names of Secrets whose keys become environment variables of all pods.
        job: the job itself.
        restart_nonce: any other number than before runs the job anew, from its start.
        failover_nonce: any other number than before makes the leader hand over to a standby.
        ttl_seconds_after_finished: seconds after the job's end at which the FlinkJob is deleted; never when left out.
        deletion_policy: what becomes of the job's data when the FlinkJob is deleted.

    Raises:
        InvalidOption: an unknown option or a malformed value.
        FieldError: the number of slots given twice, differently, or a malformed field.
    """

    flink_configuration: dict[str, Scalar] = {}
    image: str | None = None
    image_pull_policy: PullPolicy | None = None
    image_pull_secrets: tuple[str, ...] = ()
    service_account: str | None = None
    job_manager: JobManagerSpec = field(default_factory=JobManagerSpec)
    task_manager: TaskManagerSpec = field(default_factory=TaskManagerSpec)
    storage: StorageSpec | None = None
    modules: dict[str, Any] | None = None
    env: tuple[dict[str, Any], ...] = ()
    secrets: tuple[str, ...] = ()
    job: JobSpec
    restart_nonce: int = 0
    failover_nonce: int = 0
    ttl_seconds_after_finished: int | None = None
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN

    def __post_init__(self) -> None:
        self._check_slots()
        self._check_names()
        if self.modules is not None:
            check_volume(self.modules, "modules", allowed=MODULE_SOURCES)
        check_env(self.env)
        for name, value in (
            ("restartNonce", self.restart_nonce),
            ("failoverNonce", self.failover_nonce),
            ("ttlSecondsAfterFinished", self.ttl_seconds_after_finished or 0),
        ):
            if not 0 <= value < 2**31:
                raise FieldError(f"{value} is not between 0 and {2**31 - 1}", name)

    @property
    def configuration(self) -> Configuration:
        """The options as typed values, ``taskManager.taskSlots`` among them; what they demand of each other is not
        checked yet."""
        configuration = Configuration(self.flink_configuration)
        if self.task_manager.task_slots is None:
            return configuration
        return configuration.with_defaults({NUMBER_OF_TASK_SLOTS.key: self.task_manager.task_slots})

    @property
    def cluster_configuration(self) -> Configuration:
        """The options as the job's pods get them: a volume is where the state is kept, and whoever says where it is kept
        wants the log."""
        configuration = self.configuration
        if self.storage is not None:
            configuration = configuration.with_defaults({STORAGE_DIR.key: self.storage.mount_path})
        if configuration.get(STORAGE_DIR) is not None:
            configuration = configuration.with_defaults({OPERATION_LOG_STORE.key: OperationLogStore.FILESYSTEM.value})
        return configuration

    def _check_slots(self) -> None:
        slots, configured = self.task_manager.task_slots, self.configuration.get(NUMBER_OF_TASK_SLOTS)
        if slots is not None and slots != configured:
            raise FieldError(
                f"{slots} contradicts {NUMBER_OF_TASK_SLOTS.key}: {configured} in flinkConfiguration; set only one",
                "taskManager",
                "taskSlots",
            )

    def _check_names(self) -> None:
        if self.image is not None and not _IMAGE.fullmatch(self.image):
            raise FieldError(f"{shown(self.image)} is not the name of an image", "image")
        if self.service_account is not None:
            _check_object_name(self.service_account, "serviceAccount")
        for field_name, names in (("imagePullSecrets", self.image_pull_secrets), ("secrets", self.secrets)):
            for index, name in enumerate(names):
                _check_object_name(name, field_name, index)
                if name in names[:index]:
                    raise FieldError(f"{shown(name)} is in the list already", field_name, index)


class FlinkJob(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A FlinkJob, without its status.

    Attributes:
        api_version: `API_VERSION`.
        kind: `KIND`.
        metadata: what identifies it.
        spec: what is wanted.
    """

    api_version: Literal["flinkjob.io/v1alpha1"] = API_VERSION
    kind: Literal["FlinkJob"] = KIND
    metadata: Metadata
    spec: FlinkJobSpec


def is_job_name(name: str) -> bool:
    """Whether a job of this name can run on Kubernetes, whose objects are named after it."""
    return len(name) <= MAX_JOB_NAME and _JOB_NAME.fullmatch(name) is not None


def job_id(namespace: str, name: str, uid: str) -> str:
    """A job's id: 32 hexadecimal digits, as Flink's JobID, the same in every process."""
    return hashlib.md5(f"{namespace}/{name}/{uid}".encode(), usedforsecurity=False).hexdigest()


def parse_manifest(text: str, source: str = "manifest") -> FlinkJob:
    """The FlinkJob that a YAML text describes.

    Args:
        text: one YAML document.
        source: what a message calls the text, such as the file's name.

    Raises:
        InvalidManifest: the text is no YAML, or a field is missing, unknown or malformed.
        InvalidOption: so is an option of ``spec.flinkConfiguration``.
    """
    try:
        manifest = load_yaml(text)
    except InvalidManifest as error:
        raise InvalidManifest(f"{source}: {error}") from None
    return decode_manifest(manifest, source)


def decode_manifest(manifest: object, source: str = "manifest") -> FlinkJob:
    """The FlinkJob that plain values describe, such as the API server returns; a status is left aside.

    Raises:
        InvalidManifest: a field is missing, unknown or malformed.
        InvalidOption: an option of ``spec.flinkConfiguration`` is unknown or malformed.
    """
    try:
        return decode(_without_status(manifest), FlinkJob)
    except InvalidManifest as error:
        raise InvalidManifest(f"{source}: {error}") from None
    except InvalidOption as error:
        raise InvalidOption(f"{source}: spec.flinkConfiguration: {error}") from None


def _without_status(manifest: object) -> object:
    if not isinstance(manifest, Mapping):
        return manifest
    described: dict[str, Any] = {key: value for key, value in manifest.items() if key != "status"}
    for key, value in (("apiVersion", API_VERSION), ("kind", KIND)):
        if described.get(key) is None:
            raise FieldError(f"is missing: {value} is needed here", key)
    return described


def _check_label(value: str, name: str) -> None:
    if not _DNS_LABEL.fullmatch(value):
        raise FieldError(
            f"{shown(value)} is not a DNS-1123 label: 1 to 63 lower-case letters, digits and inner '-'", name
        )


def _check_object_name(value: str, *path: Step) -> None:
    if not _OBJECT_NAME.fullmatch(value):
        raise FieldError(
            f"{shown(value)} is not a name: up to 253 lower-case letters, digits, inner '-' and '.'", *path
        )
