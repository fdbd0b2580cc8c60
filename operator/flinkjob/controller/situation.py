"""What the observed objects mean: which phase of its life a job is in, who leads it, and how far that is to be believed.

A leader's word in the status outlives the leader. It counts only while the pod that it names is ready and has been running
since before the word was given, and only for the run of the job that the FlinkJob asks for.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import msgspec

from flinkjob.api.status import JobStatusInfo, LeaderStatus, LogStatus, Trouble
from flinkjob.controller import names
from flinkjob.controller.observed import Observed, Pod, parse_time
from flinkjob.controller.target import Target
from flinkjob.graph.states import TERMINAL_JOB_STATUSES

StructT = TypeVar("StructT", bound=msgspec.Struct)

ENDED = frozenset(state.name for state in TERMINAL_JOB_STATUSES)
"""Job states that nothing follows."""


class Phase(enum.StrEnum):
    """What the operator is about.

    Attributes:
        RUNNING: the job is to run.
        SUSPENDED: nothing is to run.
        RESTARTING: an earlier run of the job is being stopped; the next one begins when its JobManagers are gone.
        ENDED: the job has come to its end; one JobManager answers questions.
    """

    RUNNING = "running"
    SUSPENDED = "suspended"
    RESTARTING = "restarting"
    ENDED = "ended"


@dataclass(frozen=True)
class Situation:
    """The observed objects in the light of what is asked for."""

    observed: Observed
    target: Target
    now: float

    @cached_property
    def jobmanagers(self) -> tuple[Pod, ...]:
        """The JobManagers' pods."""
        return self.observed.component(names.JOBMANAGER)

    @cached_property
    def taskmanagers(self) -> tuple[Pod, ...]:
        """The TaskManagers' pods."""
        return self.observed.component(names.TASKMANAGER)

    @cached_property
    def job_status(self) -> JobStatusInfo:
        """The job as a leader of this run told it last, possibly long ago; empty when none has."""
        told = typed(self.observed.status.get("jobStatus"), JobStatusInfo)
        return told if told is not None and told.job_id == self.target.job_id else JobStatusInfo()

    @property
    def ended(self) -> bool:
        """Whether this run of the job is over: that is true for ever, whoever said it."""
        return self.job_status.state in ENDED

    @cached_property
    def phase(self) -> Phase:
        """What the operator is about."""
        if any(pod.run != self.target.run and not pod.dead for pod in self.jobmanagers):
            return Phase.RESTARTING
        if self.ended:
            return Phase.ENDED
        return Phase.SUSPENDED if self.target.suspended else Phase.RUNNING

    @property
    def wanted_jobmanagers(self) -> int:
        """How many JobManagers there should be now."""
        if self.phase is Phase.RUNNING:
            return self.target.job.spec.job_manager.replicas
        return int(self.phase is Phase.ENDED and not self.target.suspended)

    @property
    def wanted_taskmanagers(self) -> int:
        """How many TaskManagers there should be now.

        A job is stopped from its head: while a JobManager lives, losing its TaskManagers would be failures of its tasks.
        """
        replicas = self.target.job.spec.task_manager.replicas
        if self.phase is Phase.RUNNING:
            return replicas
        if self.phase is Phase.SUSPENDED and self.jobmanagers:
            return min(replicas, sum(pod.counts for pod in self.taskmanagers))
        return 0

    @cached_property
    def leader_status(self) -> LeaderStatus | None:
        """What the status says of the leader."""
        return typed(self.observed.status.get("leader"), LeaderStatus)

    @cached_property
    def leader(self) -> Pod | None:
        """The pod that leads, where that is certain."""
        told = self.leader_status
        if told is None or not self.job_status.job_id or self.trouble is not None:
            return None
        pod = self._speaker
        return pod if pod is not None and pod.ready else None

    @cached_property
    def trouble(self) -> Trouble | None:
        """What keeps the one who holds the Lease from leading, in its own words."""
        told = typed(self.observed.status.get("trouble"), Trouble)
        return told if self.job_status.job_id and self._speaker is not None else None

    @cached_property
    def _speaker(self) -> Pod | None:
        """The pod that was the last to call itself elected, where its container is still the same."""
        told = self.leader_status
        pod = next((pod for pod in self.jobmanagers if told is not None and pod.name == told.pod), None)
        return pod if told is not None and pod is not None and pod.counts and _ran_before(pod, told) >= 0 else None

    @property
    def standbys(self) -> tuple[Pod, ...]:
        """JobManagers that are ready to lead."""
        return tuple(pod for pod in self.jobmanagers if pod.counts and pod.ready and pod is not self.leader)

    @property
    def reconciling(self) -> bool:
        """Whether a living leader says that it still compares the log with what its TaskManagers report."""
        return self.leader is not None and bool(self.observed.status.get("reconciling"))

    @cached_property
    def log(self) -> LogStatus | None:
        """The operation log as a living leader sees it."""
        return typed(self.observed.status.get("log"), LogStatus) if self.leader is not None else None

    @property
    def ready_taskmanagers(self) -> int:
        """TaskManagers that are ready."""
        return sum(pod.counts and pod.ready and pod.run == self.target.run for pod in self.taskmanagers)

    @property
    def ready_jobmanagers(self) -> int:
        """JobManagers that are ready."""
        return sum(pod.counts and pod.ready for pod in self.jobmanagers)


def typed(value: Mapping[str, Any] | None, struct: type[StructT]) -> StructT | None:
    """A part of the status; None where it is missing or of a shape that this version does not know."""
    try:
        return None if value is None else msgspec.convert(value, struct)
    except msgspec.ValidationError:
        return None


def leader_may_be_dead(observed: Observed) -> bool:
    """Whether the Lease is worth a look: whoever led last is not, or not for certain, among the JobManagers that run."""
    jobmanagers = observed.component(names.JOBMANAGER)
    told = typed(observed.status.get("leader"), LeaderStatus)
    if told is None:
        return any(pod.ended is not None for pod in jobmanagers)
    pod = next((pod for pod in jobmanagers if pod.name == told.pod), None)
    return pod is None or pod.dead or _ran_before(pod, told) <= 0


def _ran_before(pod: Pod, leader: LeaderStatus) -> int:
    """Whole seconds that the pod's container had been running when the leader began to lead; -1 where that is not told.

    Both times are of the clock of the pod's own node, the kubelet's exact to a second. Below zero it is a successor of
    the one who began to lead. Zero may be either: such a pod is believed, and a look at the Lease tells.
    """
    since = parse_time(leader.since)
    return -1 if since is None or pod.started is None else int(since) - int(pod.started)
