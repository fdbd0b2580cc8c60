"""What a plan is made of: the actions that the shell carries out against the API server."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from flinkjob.controller.observed import ChildKey, Manifest, Pod


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A Kubernetes Event about the FlinkJob.

    Attributes:
        reason: a word for programs.
        message: a sentence for people.
        warning: whether it is of type Warning, else Normal.
    """

    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Apply:
    """A child to apply by server-side apply.

    Attributes:
        manifest: all that the operator says of it.
        uid: uid of the child that is there, for ``metadata.uid``, so that no other is hit; "" when there is none: then it
            has to be made only if still nobody has made one of that name.
    """

    manifest: Manifest
    uid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """An object to delete, if it still has this uid.

    Attributes:
        key: its kind and name.
        uid: its uid.
    """

    key: ChildKey
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done, in this order.

    Attributes:
        add_finalizer: whether `names.FINALIZER` has to be put on the FlinkJob.
        status: the operator's part of the status, to be applied as a whole; None when it is as it should be.
        issue_secrets: whether the Secrets are to be looked at: one is missing, or due.
        applies: children to apply.
        creates: pods to create.
        deletes: objects to delete.
        check_lease: whether to look at the Lease, and to empty it where `leases.proof_of_death` allows.
        remove_finalizer: whether `names.FINALIZER` has to go.
        delete_job: whether the FlinkJob itself is to be deleted: its time after the job's end is over.
        events: what to tell people.
        settled: the version of each child that is as it should be; to be handed in with what is observed next, with
            those of the answers to `applies` put in.
        requeue_after: seconds until another look is needed though nothing changes; None when none is.
    """

    add_finalizer: bool = False
    status: Manifest | None = None
    issue_secrets: bool = False
    applies: tuple[Apply, ...] = ()
    creates: tuple[Manifest, ...] = ()
    deletes: tuple[Delete, ...] = ()
    check_lease: bool = False
    remove_finalizer: bool = False
    delete_job: bool = False
    events: tuple[Event, ...] = ()
    settled: Mapping[ChildKey, str] = field(default_factory=dict)
    requeue_after: float | None = None

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (
            self.add_finalizer
            or self.status is not None
            or self.issue_secrets
            or self.applies
            or self.creates
            or self.deletes
            or self.remove_finalizer
            or self.delete_job
        )


def delete_pod(pod: Pod) -> Delete:
    """The deletion of a pod."""
    return Delete(key=ChildKey("Pod", pod.name), uid=pod.uid)
