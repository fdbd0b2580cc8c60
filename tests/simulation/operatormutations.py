"""Deliberate bugs in the operator: each is a patch that somebody might have written."""

from collections.abc import Mapping
from typing import Any

import pytest

from flinkjob.controller import plan as planning
from flinkjob.controller import reconciler
from flinkjob.controller.conditions import Finding
from flinkjob.controller.leases import proof_of_death
from flinkjob.controller.observed import Observed, Pod
from flinkjob.controller.pods import TaskManagerPlan, Victim, plan_taskmanagers
from flinkjob.controller.reconciler import Reconciler
from flinkjob.controller.reporting import as_conditions
from flinkjob.controller.situation import Phase, Situation
from flinkjob.jobmanager import status as leader_status

Patch = pytest.MonkeyPatch


def a_pod_that_is_on_its_way_out_counts_as_dead(patch: Patch) -> None:
    """The Lease is taken from a leader whose pod is being deleted, or whose node is silent."""

    def careless(lease: Mapping[str, Any], pod: Mapping[str, Any] | None) -> str | None:
        if pod is not None and ("deletionTimestamp" in pod["metadata"] or not Pod.of(pod).ready):
            return "it does not look well"
        return proof_of_death(lease, pod)

    patch.setattr(reconciler, "proof_of_death", careless)


def an_earlier_end_of_the_container_counts(patch: Patch) -> None:
    """A leader that was started again is taken for the one that ended before it."""

    def careless(lease: Mapping[str, Any], pod: Mapping[str, Any] | None) -> str | None:
        if pod is not None and Pod.of(pod).ended is not None:
            return "its container has ended"
        return proof_of_death(lease, pod)

    patch.setattr(reconciler, "proof_of_death", careless)


def what_was_done_is_not_remembered(patch: Patch) -> None:
    """The answers of the API server do not go into the cache: the next look knows only what the watches told."""
    patch.setattr(Reconciler, "_keep", lambda self, manifest: None)


def a_taskmanager_that_is_not_ready_is_replaced(patch: Patch) -> None:
    """One that does not look well is deleted at once."""

    def impatient(pods: Any, **more: Any) -> TaskManagerPlan:
        made = plan_taskmanagers(pods, **more)
        useless = [pod for pod in pods if pod.counts and not pod.ready and pod.phase == "Running"]
        return TaskManagerPlan(
            create=made.create,
            delete=(*made.delete, *(Victim(pod=pod, why="it is not ready") for pod in useless)),
            crashes=made.crashes,
            retry_in=made.retry_in,
        )

    patch.setattr(planning, "plan_taskmanagers", impatient)


def an_end_is_told_before_it_is_durable(patch: Patch) -> None:
    """The status tells an end that a failover may still take back."""
    patch.setattr(leader_status, "_certain", lambda leading, status: status)


def one_more_taskmanager_than_needed_is_deleted(patch: Patch) -> None:
    """Where there are more than enough, one fewer is left than is wanted."""

    def greedy(pods: Any, *, wanted: int, **more: Any) -> TaskManagerPlan:
        enough = sum(pod.counts and pod.ready for pod in pods) >= wanted
        return plan_taskmanagers(pods, wanted=wanted - 1 if enough and wanted else wanted, **more)

    patch.setattr(planning, "plan_taskmanagers", greedy)


def the_last_state_told_is_told_for_ever(patch: Patch) -> None:
    """Once Ready, always Ready: the conditions are made once."""

    def stale(observed: Observed, found: list[Finding], now: float) -> list[dict[str, Any]]:
        present: list[dict[str, Any]] = list(observed.status.get("conditions") or ())
        ready = any(each["type"] == "Ready" and each["status"] == "True" for each in present)
        return present if ready else as_conditions(observed, found, now)

    patch.setattr(planning, "as_conditions", stale)


def the_job_is_taken_for_suspended(patch: Patch) -> None:
    """Whatever is asked for, nothing is to run."""
    patch.setattr(Situation, "phase", property(lambda self: Phase.SUSPENDED))
