"""The FlinkJob resource: what a manifest says, checked and typed.

The same text serves the command line and Kubernetes. A refusal is one sentence that has the source, the path of the
field, what is wrong and what is allowed.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct, field

from flinkjob.api.decode import decode
from flinkjob.api.errors import InvalidManifest, InvalidOption
from flinkjob.api.fields import FieldError, shown
from flinkjob.api.job import JobSpec
from flinkjob.api.options import NUMBER_OF_TASK_SLOTS, Configuration, Scalar
from flinkjob.api.yamltext import load_yaml

GROUP = "flinkjob.io"
VERSION = "v1alpha1"
API_VERSION: Literal["flinkjob.io/v1alpha1"] = "flinkjob.io/v1alpha1"
KIND: Literal["FlinkJob"] = "FlinkJob"

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
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


class JobManagerSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """The JobManagers.

    Attributes:
        replicas: the leader and its standbys together, at least 1.
    """

    replicas: int = 1

    def __post_init__(self) -> None:
        _check_at_least_one(self.replicas, "replicas")


class TaskManagerSpec(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True
):
    """The TaskManagers.

    Attributes:
        replicas: how many, at least 1.
        task_slots: tasks that one of them runs at a time, at least 1; None leaves it to
            ``taskmanager.numberOfTaskSlots``.
    """

    replicas: int = 1
    task_slots: int | None = None

    def __post_init__(self) -> None:
        _check_at_least_one(self.replicas, "replicas")
        if self.task_slots is not None:
            _check_at_least_one(self.task_slots, "taskSlots")


class FlinkJobSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """What is wanted.

    Attributes:
        flink_configuration: options by key; see `configuration`.
        job_manager: the JobManagers.
        task_manager: the TaskManagers.
        job: the job itself.

    Raises:
        InvalidOption: an unknown option or a malformed value.
        FieldError: the number of slots given twice, differently.
    """

    flink_configuration: dict[str, Scalar] = {}
    job_manager: JobManagerSpec = field(default_factory=JobManagerSpec)
    task_manager: TaskManagerSpec = field(default_factory=TaskManagerSpec)
    job: JobSpec

    def __post_init__(self) -> None:
        slots, configured = self.task_manager.task_slots, self.configuration.get(NUMBER_OF_TASK_SLOTS)
        if slots is not None and slots != configured:
            raise FieldError(
                f"{slots} contradicts {NUMBER_OF_TASK_SLOTS.key}: {configured} in flinkConfiguration; set only one",
                "taskManager",
                "taskSlots",
            )

    @property
    def configuration(self) -> Configuration:
        """The options as typed values, ``taskManager.taskSlots`` among them; what they demand of each other is not
        checked yet."""
        configuration = Configuration(self.flink_configuration)
        if self.task_manager.task_slots is None:
            return configuration
        return configuration.with_defaults({NUMBER_OF_TASK_SLOTS.key: self.task_manager.task_slots})


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


def _check_at_least_one(value: int, name: str) -> None:
    if value < 1:
        raise FieldError(f"{value} is less than 1", name)
