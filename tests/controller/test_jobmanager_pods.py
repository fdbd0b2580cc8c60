"""Which JobManager pods are deleted, and in which order."""

from collections.abc import Sequence
from typing import Any

import pytest

from flinkjob.api.status import Handover
from flinkjob.controller import names
from flinkjob.controller.jobmanagers import JobManagerPlan, plan_jobmanagers
from flinkjob.controller.observed import Pod


def pod(ordinal: int, **values: Any) -> Pod:
    """A JobManager that runs and is as it should be."""
    defaults: dict[str, Any] = {
        "uid": f"uid-{ordinal}",
        "component": names.JOBMANAGER,
        "phase": "Running",
        "ready": True,
        "spec_hash": "new",
    }
    return Pod(name=f"j-jobmanager-{ordinal}", **{**defaults, **values})


def planned(pods: Sequence[Pod], *, leader: int | None = 0, wanted: int | None = None, **values: Any) -> JobManagerPlan:
    more = {"nonce": 0, "handover": Handover(nonce=0), **values}
    leads = next((pod for pod in pods if leader is not None and pod.uid == f"uid-{leader}"), None)
    number = len(pods) if wanted is None else wanted
    return plan_jobmanagers(pods, wanted=number, spec_hash="new", leader=leads, **more)


def deleted(plan: JobManagerPlan) -> list[str]:
    return [victim.pod.uid for victim in plan.delete]


@pytest.mark.parametrize("leader", [0, 1, 2])
def test_a_rollout_goes_from_the_last_standby_to_the_leader(leader: int) -> None:
    pods = [pod(ordinal, spec_hash="old") for ordinal in range(3)]
    order = []
    while step := deleted(planned(pods, leader=leader)):
        order += step
        pods = [pod(x, spec_hash="new" if f"uid-{x}" in order else "old") for x in range(3)]
    assert order == [f"uid-{x}" for x in (2, 1, 0) if x != leader] + [f"uid-{leader}"]


def test_a_rollout_waits_until_all_are_ready_and_somebody_leads() -> None:
    old = [pod(0, spec_hash="old"), pod(1, spec_hash="old")]
    assert deleted(planned([*old, pod(2, ready=False)])) == []
    assert deleted(planned([*old, pod(2, deleting=True)])) == []
    assert deleted(planned(old, wanted=3)) == []
    assert deleted(planned(old, leader=None)) == []


def test_a_pod_that_does_not_work_is_replaced_at_once() -> None:
    pods = [pod(0, spec_hash="old"), pod(1, spec_hash="old", ready=False)]
    assert deleted(planned(pods)) == ["uid-1"]
    assert deleted(planned([pod(0), pod(1, ready=False)])) == [], "it is what is wanted, and may be on its way"


def test_a_single_jobmanager_is_replaced_though_there_is_no_standby() -> None:
    assert deleted(planned([pod(0, spec_hash="old")])) == ["uid-0"]
    assert deleted(planned([pod(0, spec_hash="old")], leader=None)) == ["uid-0"]


def test_nothing_is_replaced_while_nothing_is_wanted() -> None:
    assert deleted(planned([pod(0, spec_hash="old"), pod(1, spec_hash="old")], wanted=0)) == []


def test_a_handover_deletes_the_leader_and_is_remembered() -> None:
    plan = planned([pod(0), pod(1)], leader=1, nonce=5)
    assert (deleted(plan), plan.handover) == (["uid-1"], Handover(nonce=5, uid="uid-1"))
    after = planned([pod(0), pod(1, uid="uid-successor")], leader=0, nonce=5, handover=plan.handover)
    assert (deleted(after), after.handover) == ([], plan.handover)


@pytest.mark.parametrize(
    ("pods", "leader"),
    [([pod(0), pod(1)], None), ([pod(0), pod(1, ready=False)], 0), ([pod(0), pod(1, deleting=True)], 0)],
)
def test_a_handover_waits_for_a_leader_and_a_standby_that_is_ready(pods: list[Pod], leader: int | None) -> None:
    plan = planned(pods, leader=leader, wanted=2, nonce=5)
    assert (deleted(plan), plan.handover) == ([], Handover(nonce=0, waiting=5))


def test_a_handover_of_a_job_that_does_not_run_is_done_by_doing_nothing() -> None:
    plan = planned([], wanted=0, nonce=5)
    assert (deleted(plan), plan.handover) == ([], Handover(nonce=5))
