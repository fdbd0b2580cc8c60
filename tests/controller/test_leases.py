"""A Lease is taken only from a leader that cannot be running any more."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flinkjob.controller.leases import emptied, holder, proof_of_death
from flinkjob.controller.observed import format_time

LEASE: dict[str, Any] = {
    "metadata": {
        "name": "job-leader",
        "resourceVersion": "7",
        "annotations": {"flinkjob.io/address": "a:1", "flinkjob.io/rest": "a:2", "mine": "x"},
    },
    "spec": {
        "holderIdentity": "job-jobmanager-0_uid-1_0a1b2c3d",
        "acquireTime": "2026-01-01T10:00:00.500000Z",
        "renewTime": "2026-01-01T10:00:40.250000Z",
        "leaseTransitions": 3,
    },
}


def pod(uid: str = "uid-1", **state: Any) -> dict[str, Any]:
    """A JobManager's pod whose main container is in this state."""
    return {
        "kind": "Pod",
        "metadata": {
            "name": "job-jobmanager-0",
            "uid": uid,
            "labels": {"app.kubernetes.io/component": "jobmanager"},
        },
        "status": {"phase": "Running", "containerStatuses": [{"name": "jobmanager", **state}]},
    }


def ended(at: str) -> dict[str, Any]:
    return {"terminated": {"exitCode": 137, "finishedAt": at, "startedAt": "2026-01-01T09:59:00Z"}}


RUNNING = {"running": {"startedAt": "2026-01-01T09:59:00Z"}}


def test_the_holder_is_the_pod_of_the_identity() -> None:
    assert holder(LEASE) == ("job-jobmanager-0", "uid-1")


@pytest.mark.parametrize("identity", ["", None, "someone", "job-jobmanager-0_"])
def test_a_holder_that_is_no_pod_is_left_alone(identity: str | None) -> None:
    lease = {**LEASE, "spec": {**LEASE["spec"], "holderIdentity": identity}}
    assert holder(lease) is None
    assert proof_of_death(lease, None) is None


def test_a_pod_that_is_gone_is_dead() -> None:
    assert proof_of_death(LEASE, None) == "the pod job-jobmanager-0 is gone"
    assert proof_of_death(LEASE, pod("uid-2", state=RUNNING)) == "the pod job-jobmanager-0 is gone"


@pytest.mark.parametrize(
    "state",
    [
        {"state": ended("2026-01-01T10:00:41Z")},
        {"state": ended("2026-01-01T10:00:40Z")},
        {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended("2026-01-01T10:00:41Z")},
    ],
)
def test_a_container_that_ended_after_it_had_taken_the_lease_is_dead(state: dict[str, Any]) -> None:
    assert proof_of_death(LEASE, pod(**state)) == "the container of job-jobmanager-0 has ended with exit code 137"


@pytest.mark.parametrize(
    "seen",
    [
        pod(state=RUNNING),
        pod(state=RUNNING, lastState=ended("2026-01-01T10:00:41Z")),
        pod(state={"waiting": {"reason": "ContainerCreating"}}),
        pod(state=ended("2026-01-01T10:00:00Z")),  # the lease may have been taken later in that second, by the next one
        pod(state=ended("2026-01-01T10:00:39Z")),  # renewed after that
        pod(state={"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown"}}),
        {**pod(state=RUNNING), "status": {"phase": "Failed", "reason": "NodeLost"}},
        {**pod(), "status": {}},
    ],
)
def test_whoever_may_be_running_keeps_the_lease(seen: dict[str, Any]) -> None:
    assert proof_of_death(LEASE, seen) is None


def test_a_pod_on_its_way_out_may_be_running() -> None:
    seen = pod(state=RUNNING)
    seen["metadata"]["deletionTimestamp"] = "2026-01-01T10:00:41Z"
    assert proof_of_death(LEASE, seen) is None


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 5))
def test_a_leader_that_was_started_anew_is_never_taken_for_its_predecessor(
    died: float, pause: float, lag: float
) -> None:
    """The kubelet's news of the restart may come late; its times are of whole seconds."""
    start = 1_800_000_000.0
    acquired = start + died + pause + 0.01
    lease = {
        **LEASE,
        "spec": {**LEASE["spec"], "acquireTime": _micro(acquired), "renewTime": _micro(acquired + lag)},
    }
    assert proof_of_death(lease, pod(state=ended(format_time(start + died)))) is None


def test_an_emptied_lease_keeps_all_but_its_holder() -> None:
    told = emptied(LEASE, "the pod is gone")
    assert told["metadata"]["annotations"] == {"mine": "x", "flinkjob.io/ended": "the pod is gone"}
    free = emptied(told)
    assert free["spec"] == {**LEASE["spec"], "holderIdentity": ""}
    assert free["metadata"] == {**LEASE["metadata"], "annotations": {"mine": "x"}}
    assert LEASE["spec"]["holderIdentity"], "the original is as it was"


def _micro(seconds: float) -> str:
    return f"{format_time(seconds)[:-1]}.{int(seconds % 1 * 1_000_000):06d}Z"
