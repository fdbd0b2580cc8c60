"""What a FlinkJob asks for, after everything it leaves open has been decided: the input of all desired objects.

A new operator must not touch a healthy job. So the image that a job began with stays its image, whatever the operator's own
default becomes, and what takes a new pod is judged by the FlinkJob's own words (`Target.jobmanager_hash`,
`Target.taskmanager_hash`), never by the pod that this version of the operator would make of them.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from flinkjob.api import options as opt
from flinkjob.api.errors import InvalidJobGraph, InvalidManifest, InvalidOption
from flinkjob.api.flinkjob import FlinkJob, decode_manifest, job_id
from flinkjob.api.job import JobState
from flinkjob.api.yamltext import MAX_TEXT
from flinkjob.controller import names
from flinkjob.controller.observed import Manifest
from flinkjob.graph.jobgraph import JobGraph

HASHED_REVISION = 1
"""Raised when pods made by an older operator cannot serve this one: all pods of all jobs are then replaced."""

MAX_MANIFEST = 1_000_000
"""The longest manifest, in bytes: a ConfigMap holds 1 MiB in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSettings:
    """What the operator itself is told.

    Attributes:
        image: what a job runs that names no image.
        image_pull_policy: when that is pulled; None leaves it to Kubernetes.
    """

    image: str
    image_pull_policy: str | None = None


@dataclass(frozen=True, kw_only=True)
class Target:
    """A valid FlinkJob of the API server.

    Attributes:
        job: the typed FlinkJob.
        raw_spec: its spec as the user wrote it.
        image: what its pods run.
        image_pull_policy: when that is pulled; None leaves it to Kubernetes.
        run: which run of the job this is; another one has a storage, a log and an id of its own.
    """

    job: FlinkJob
    raw_spec: Mapping[str, Any]
    image: str
    image_pull_policy: str | None
    run: str

    @property
    def name(self) -> str:
        """The job's name."""
        return self.job.metadata.name

    @property
    def namespace(self) -> str:
        """The job's namespace."""
        return self.job.metadata.namespace

    @cached_property
    def job_id(self) -> str:
        """The id of this run, as its leader tells it in the status."""
        return job_id(self.namespace, self.name, self.run)

    @property
    def suspended(self) -> bool:
        """Whether nothing is to run."""
        return self.job.spec.job.state is JobState.SUSPENDED

    @cached_property
    def configuration(self) -> opt.Configuration:
        """The options as the pods get them."""
        return self.job.spec.cluster_configuration

    @property
    def logged(self) -> bool:
        """Whether the job keeps an operation log."""
        return self.configuration.get(opt.OPERATION_LOG_STORE) is opt.OperationLogStore.FILESYSTEM

    @cached_property
    def manifest(self) -> str:
        """The manifest that the JobManagers read: YAML, written as JSON, of which no string can be misread."""
        return _json(
            {
                "apiVersion": self.job.api_version,
                "kind": self.job.kind,
                "metadata": {"name": self.name, "namespace": self.namespace, "uid": self.run},
                "spec": {**self.raw_spec, "flinkConfiguration": self.configuration.to_mapping()},
            }
        )

    @cached_property
    def jobmanager_hash(self) -> str:
        """Changes when a JobManager's pod has to be replaced."""
        return self._hash("jobManager", self.configuration.to_mapping())

    @cached_property
    def taskmanager_hash(self) -> str:
        """Changes when a TaskManager's pod has to be replaced."""
        return self._hash("taskManager", {"slots": str(self.slots)})

    @property
    def slots(self) -> int:
        """Slots of a TaskManager."""
        return self.configuration.get(opt.NUMBER_OF_TASK_SLOTS)

    def _hash(self, component: str, told: Mapping[str, str]) -> str:
        spec, own = self.raw_spec, self.raw_spec.get(component) or {}
        shared = ("imagePullPolicy", "imagePullSecrets", "serviceAccount", "storage", "modules", "env", "secrets")
        return digest(
            [
                HASHED_REVISION,
                self.run,
                self.image,
                {key: spec.get(key) for key in shared},
                {key: own.get(key) for key in ("resource", "podTemplate")},
                told,
            ]
        )


def resolve(flinkjob: Manifest, settings: OperatorSettings) -> Target:
    """What a FlinkJob of the API server asks for.

    Raises:
        InvalidManifest: a field, or the name, is wrong.
        InvalidOption: an option is wrong, or one that all need is missing.
        InvalidJobGraph: the vertices do not make a graph.
    """
    job = decode_manifest(flinkjob, "FlinkJob")
    names.check_name(job.metadata.name)
    check_configuration(job)
    if job.spec.job.vertices is not None:
        _check_graph(job)
    status, run = flinkjob.get("status") or {}, run_of(flinkjob, job.spec.restart_nonce)
    kept = status.get("image") if status.get("run") == run else None
    target = Target(
        job=job,
        raw_spec=flinkjob["spec"],
        image=job.spec.image or kept or settings.image,
        image_pull_policy=job.spec.image_pull_policy or (None if job.spec.image else settings.image_pull_policy),
        run=run,
    )
    size = len(target.manifest.encode())
    if size > min(MAX_MANIFEST, MAX_TEXT):
        raise InvalidManifest(f"spec: {size} bytes are more than the {MAX_MANIFEST} that a ConfigMap takes")
    return target


def run_of(flinkjob: Manifest, restart_nonce: int) -> str:
    """Which run of the job this is: the one that the status names, as long as the nonce is that with which it began.

    Another nonce begins a run that is numbered by the FlinkJob's generation, which the API server counts upwards with each
    change of the spec. So no run is ever entered twice, also where a nonce comes back that there was before.
    """
    metadata, status = flinkjob["metadata"], flinkjob.get("status") or {}
    run, began_with = status.get("run"), status.get("restartNonce", restart_nonce)
    if run and began_with == restart_nonce:
        return str(run)
    generation = metadata.get("generation", 1)
    return names.run_uid(metadata.get("uid") or "", generation if run or generation > 1 else 0)


def check_configuration(job: FlinkJob) -> None:
    """Check what a job needs that runs in pods.

    Raises:
        InvalidOption: an option contradicts another one, or there is no place for the job's data.
    """
    configuration = job.spec.cluster_configuration
    configuration.validate()
    if configuration.get(opt.STORAGE_DIR) is None:
        raise InvalidOption(
            f"spec.storage: is missing, and so is {opt.STORAGE_DIR.key} in spec.flinkConfiguration; the job's results have "
            "to be kept where all pods see them: name a volume that pods can share, or the URL of an object store"
        )


def _check_graph(job: FlinkJob) -> None:
    try:
        JobGraph.build(job_id="", name=job.metadata.name, vertices=job.spec.job.vertices or ())
    except InvalidJobGraph as error:
        raise InvalidJobGraph(f"spec.job.vertices: {error}") from None


def digest(value: Any) -> str:
    """A short hash of plain values, the same in every process."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()[:16]


def _json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"
