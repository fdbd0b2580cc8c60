"""What is observed of a FlinkJob, as the plan wants it: the raw resource, its children, its pods.

Objects come as the API server's JSON, in full or without what the plan does not read (`Pod.of` and `Child.of` say what
that is), and are turned into small typed values here. Nothing is believed of an object that does not belong to this very
FlinkJob: one of an earlier FlinkJob of the same name is as foreign as one that somebody made by hand.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from flinkjob.controller import names

Manifest = dict[str, Any]
"""A Kubernetes object as its JSON has it."""


@dataclass(frozen=True, slots=True, order=True)
class ChildKey:
    """A child of a FlinkJob, in the FlinkJob's namespace."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """An object with a name that a child of the FlinkJob has. Its metadata is enough to make one.

    Attributes:
        key: kind and name.
        uid: its uid.
        owner: uid of its controller, "" when it has none.
        owner_name: name of its controller.
        deleting: whether it is on its way out.
        applied: what the operator last applied, `names.APPLIED`.
        version: changes when its content does: its generation, or for kinds that have none its resourceVersion.
        renew_at: when a Secret is to be looked at again, `names.RENEW_AT`; seconds of the Unix epoch.
    """

    key: ChildKey
    uid: str
    owner: str
    owner_name: str
    deleting: bool
    applied: str
    version: str
    renew_at: float | None = None

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Self:
        """The child that an object is."""
        metadata = manifest["metadata"]
        annotations = metadata.get("annotations") or {}
        controller = names.controller_of(manifest) or {}
        return cls(
            key=ChildKey(manifest["kind"], metadata["name"]),
            uid=metadata["uid"],
            owner=controller.get("uid", ""),
            owner_name=controller.get("name", ""),
            deleting="deletionTimestamp" in metadata,
            applied=annotations.get(names.APPLIED, ""),
            version=str(metadata.get("generation") or metadata.get("resourceVersion", "")),
            renew_at=parse_time(annotations.get(names.RENEW_AT)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a pod's main container ended, as the kubelet tells.

    Attributes:
        exit_code: its exit code.
        reason: the kubelet's word for it, such as Error or OOMKilled.
        message: its last words.
        at: when; None where the kubelet did not see it.
        ran: for how many seconds it ran; 0 where it never began.
    """

    exit_code: int
    reason: str
    message: str
    at: float | None
    ran: float = 0.0

    def __str__(self) -> str:
        code = "" if self.exit_code < 0 else f"exit code {self.exit_code}"
        last_words = self.message.splitlines()[-1][:200] if self.message else ""
        reason = "" if self.reason in ("Error", "Completed") else self.reason
        return ", ".join(part for part in (code, reason, last_words) if part) or "no reason given"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod of the job. ``metadata``, ``status`` and ``spec.nodeName`` are enough to make one. Times are seconds of the Unix
    epoch.

    Attributes:
        name: its name.
        uid: its uid.
        component: `names.JOBMANAGER`, `names.TASKMANAGER` or `names.CLEANUP`.
        owner: uid of its controller.
        created: when it was made.
        deleting: whether it is on its way out; it may still run.
        phase: Pending, Running, Succeeded, Failed or Unknown.
        ready: whether the kubelet says so, and can be asked.
        spec_hash: `names.SPEC_HASH` of the pod.
        run: `names.JOB_UID` of the pod.
        restarts: how often its main container was started again.
        node: the node that it is bound to; "" where there is none yet.
        started: since when its main container runs; None where it does not.
        ended: how its main container, or in one that restarts the last run of it, ended.
        trouble: why it does not start, in words: it has no node, or its container waits.
    """

    name: str
    uid: str
    component: str
    owner: str = ""
    created: float = 0.0
    deleting: bool = False
    phase: str = "Pending"
    ready: bool = False
    spec_hash: str = ""
    run: str = ""
    restarts: int = 0
    node: str = ""
    started: float | None = None
    ended: Ended | None = None
    trouble: str = ""

    @property
    def dead(self) -> bool:
        """Whether it has ended for good; a pod that restarts its containers never does by itself."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def counts(self) -> bool:
        """Whether it is, or is about to be, one of the pods that there should be."""
        return not self.dead and not self.deleting

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Self:
        """The pod that an object is."""
        metadata, status = manifest["metadata"], manifest.get("status") or {}
        labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
        component = labels.get(names.COMPONENT_LABEL, "")
        conditions = {each["type"]: each for each in status.get("conditions") or ()}
        container = _main_container(status, component)
        state, last = container.get("state") or {}, container.get("lastState") or {}
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            component=component,
            owner=(names.controller_of(manifest) or {}).get("uid", ""),
            created=parse_time(metadata.get("creationTimestamp")) or 0.0,
            deleting="deletionTimestamp" in metadata,
            phase=status.get("phase", "Pending"),
            ready=conditions.get("Ready", {}).get("status") == "True",
            spec_hash=annotations.get(names.SPEC_HASH, ""),
            run=annotations.get(names.JOB_UID, ""),
            restarts=container.get("restartCount", 0),
            node=(manifest.get("spec") or {}).get("nodeName", ""),
            started=parse_time((state.get("running") or {}).get("startedAt")),
            ended=_ended(state.get("terminated") or last.get("terminated"), status),
            trouble=_trouble(state.get("waiting"), conditions.get("PodScheduled", {}), status),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The PersistentVolumeClaim that the job's storage names.

    Attributes:
        name: its name.
        access_modes: what it was made for, such as ReadWriteMany.
    """

    name: str
    access_modes: tuple[str, ...]

    @property
    def one_node_only(self) -> bool:
        """Whether pods of different nodes cannot use it at the same time."""
        return "ReadWriteMany" not in self.access_modes


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything that a plan is made of, but for the time.

    Attributes:
        flinkjob: the FlinkJob, with its status.
        children: objects of the names that the children have, whoever owns them.
        pods: pods that belong to this FlinkJob.
        settled: the version in which each child was when it was last as it should be.
        claim: the storage's claim; None where there is none, or it is not known.
        claim_missing: whether the storage names a claim that does not exist.
        namespace_deleting: whether the namespace is on its way out, so that nothing can be created.
        refused: what the API server last refused to create for this job, and why; "" once it did.
    """

    flinkjob: Manifest
    children: Mapping[ChildKey, Child] = field(default_factory=dict)
    pods: tuple[Pod, ...] = ()
    settled: Mapping[ChildKey, str] = field(default_factory=dict)
    claim: Claim | None = None
    claim_missing: bool = False
    namespace_deleting: bool = False
    refused: str = ""

    @classmethod
    def of(cls, flinkjob: Manifest, objects: Iterable[Mapping[str, Any]], **more: Any) -> Self:
        """What is observed, from the FlinkJob and all objects that carry its label or one of its children's names."""
        objects = list(objects)
        children = {
            child.key: child for child in (Child.of(x) for x in objects if x["kind"] not in ("Pod", "FlinkJob"))
        }
        pods = (Pod.of(x) for x in objects if x["kind"] == "Pod")
        uid = flinkjob["metadata"]["uid"]
        owners = {uid}
        stateful_set = children.get(ChildKey("StatefulSet", names.jobmanagers(flinkjob["metadata"]["name"])))
        if stateful_set is not None and stateful_set.owner in owners:
            owners.add(stateful_set.uid)
        own = tuple(pod for pod in pods if pod.owner in owners or _outlives_its_owner(pod, uid))
        return cls(flinkjob=flinkjob, children=children, pods=own, **more)

    @property
    def uid(self) -> str:
        """The FlinkJob's uid."""
        return str(self.flinkjob["metadata"]["uid"])

    @property
    def name(self) -> str:
        """The FlinkJob's name."""
        return str(self.flinkjob["metadata"]["name"])

    @property
    def status(self) -> Mapping[str, Any]:
        """The FlinkJob's status."""
        return self.flinkjob.get("status") or {}

    @property
    def running_tasks(self) -> Mapping[str, int]:
        """How many tasks each TaskManager has, by its pod, as a leader told last."""
        told = self.status.get("runningTasks")
        counts = told if isinstance(told, Mapping) else {}
        return {pod: count for pod, count in counts.items() if isinstance(count, int)}

    def component(self, component: str) -> tuple[Pod, ...]:
        """The pods of one kind, by name."""
        return tuple(sorted((pod for pod in self.pods if pod.component == component), key=lambda pod: pod.name))


def parse_time(text: object) -> float | None:
    """Seconds of the Unix epoch of an RFC 3339 time; None of anything else."""
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def format_time(seconds: float) -> str:
    """RFC 3339 in UTC, to the second, as Kubernetes writes it."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _outlives_its_owner(pod: Pod, uid: str) -> bool:
    """Whether the pod is this FlinkJob's though nothing that is there owns it: a JobManager whose StatefulSet went first, or
    the clean-up, which has no owner because it works while all that has one is being deleted."""
    return pod.component in (names.JOBMANAGER, names.CLEANUP) and pod.run.partition("-r")[0] == uid


def _main_container(status: Mapping[str, Any], component: str) -> Mapping[str, Any]:
    statuses = status.get("containerStatuses") or ()
    return next((each for each in statuses if each.get("name") == component), {})


def _ended(terminated: Mapping[str, Any] | None, status: Mapping[str, Any]) -> Ended | None:
    if terminated is not None:
        at, since = parse_time(terminated.get("finishedAt")), parse_time(terminated.get("startedAt"))
        return Ended(
            exit_code=terminated.get("exitCode", 0),
            reason=terminated.get("reason", ""),
            message=(terminated.get("message") or "").strip(),
            at=at,
            ran=at - since if at is not None and since is not None else 0.0,
        )
    if status.get("phase") == "Failed":  # a pod that was refused or evicted before its container ran
        return Ended(exit_code=-1, reason=status.get("reason", ""), message=status.get("message") or "", at=None)
    return None


def _trouble(waiting: Mapping[str, Any] | None, scheduled: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    if scheduled.get("status") == "False":
        return f"no node takes it: {scheduled.get('message', scheduled.get('reason', ''))}"
    if waiting and waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
        return ": ".join(part for part in (waiting["reason"], waiting.get("message")) if part)
    if status.get("phase") == "Pending" and status.get("reason"):
        return f"{status['reason']}: {status.get('message', '')}"
    return ""
