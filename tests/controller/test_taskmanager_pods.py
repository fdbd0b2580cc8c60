"""Which TaskManager pods are made and which deleted."""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flinkjob.api.status import Crashes
from flinkjob.controller import names
from flinkjob.controller.observed import Ended, Pod, format_time
from flinkjob.controller.pods import FIRST_DELAY, LONGEST_DELAY, TaskManagerPlan, delay, plan_taskmanagers

NOW = 1_800_000_000.0


def pod(name: str, **values: Any) -> Pod:
    """A TaskManager that runs and is as it should be."""
    defaults: dict[str, Any] = {
        "uid": f"uid-{name}",
        "component": names.TASKMANAGER,
        "created": NOW - 1000,
        "phase": "Running",
        "ready": True,
        "spec_hash": "new",
        "run": "run",
    }
    return Pod(name=name, **{**defaults, **values})


def dead(name: str, *, ago: float = 1, ran: float = 5, exit_code: int = 1, **values: Any) -> Pod:
    """A TaskManager that has ended."""
    ended = Ended(exit_code=exit_code, reason="Error", message="first\nlast words", at=NOW - ago, ran=ran)
    phase = "Failed" if exit_code else "Succeeded"
    return pod(name, phase=phase, ready=False, ended=ended, **values)


def planned(pods: Sequence[Pod], wanted: int, crashes: Crashes | None = None, **values: Any) -> TaskManagerPlan:
    number = count()
    suffix: Callable[[], str] = lambda: f"{next(number):05d}"  # noqa: E731  # as short as its use
    more = {"running_tasks": {}, "now": NOW, **values}
    return plan_taskmanagers(
        pods, job="j", wanted=wanted, spec_hash="new", run="run", crashes=crashes, suffix=suffix, **more
    )


def deleted(plan: TaskManagerPlan) -> list[str]:
    return [victim.pod.name for victim in plan.delete]


def test_missing_pods_are_made_under_names_that_nobody_has() -> None:
    taken = pod("j-taskmanager-00000", deleting=True)
    assert planned([taken], 2).create == ("j-taskmanager-00001", "j-taskmanager-00002")


def test_whatever_is_least_lost_goes_first() -> None:
    pods = [
        pod("busy"),
        pod("idle"),
        pod("young", created=NOW - 1),
        pod("not-ready", ready=False),
        pod("pending", phase="Pending", ready=False),
        pod("outdated", spec_hash="old"),
    ]
    tasks = {"busy": 3, "idle": 0, "young": 0}
    order = [deleted(planned(pods, wanted, running_tasks=tasks)) for wanted in (5, 4, 3, 2, 1, 0)]
    assert order[-1] == ["pending", "not-ready", "outdated", "young", "idle", "busy"]
    assert [len(each) for each in order] == [1, 2, 3, 4, 5, 6]
    assert all(each == order[-1][: len(each)] for each in order)


def test_changed_pods_are_replaced_one_after_the_other() -> None:
    old = [pod(name, spec_hash="old") for name in "ab"]
    assert len(deleted(planned([*old, pod("c")], 3))) == 1
    assert deleted(planned([*old, pod("c", ready=False)], 3)) == []
    assert deleted(planned([pod("a", spec_hash="old", ready=False), pod("b", spec_hash="old"), pod("c")], 3)) == ["a"]
    assert planned([old[0], pod("b", deleting=True), pod("c")], 3).delete == ()


def test_pods_of_an_earlier_run_go_at_once() -> None:
    plan = planned([pod("a", run="earlier"), pod("b")], 1)
    assert (deleted(plan), plan.create) == (["a"], ())


def test_the_first_crash_is_replaced_at_once_and_the_next_ones_later() -> None:
    first = planned([dead("a", ago=1)], 1)
    assert len(first.create) == 1
    assert first.crashes == Crashes(count=1, last=format_time(NOW - 1), message="a: exit code 1, last words")
    second = planned([dead("a", ago=30), dead("b", ago=1)], 1, Crashes(count=1, last=format_time(NOW - 30)))
    assert second.create == ()
    assert second.retry_in == pytest.approx(FIRST_DELAY - 1)
    assert deleted(second) == ["a"], "the newest dead pod is kept for its log"
    assert second.crashes is not None
    later = planned([dead("b", ago=1)], 1, second.crashes, now=NOW + FIRST_DELAY)
    assert len(later.create) == 1


def test_pods_that_die_together_are_one_crash() -> None:
    plan = planned([dead(name, ago=1) for name in "abc"], 3)
    assert plan.crashes is not None
    assert plan.crashes.count == 1
    assert len(plan.create) == 3


def test_a_pod_that_ran_for_long_is_replaced_at_once_and_is_no_crash() -> None:
    plan = planned([dead("a", ran=3600)], 1)
    assert (len(plan.create), plan.crashes) == (1, None)


def test_a_clean_exit_is_waited_for_a_moment_since_the_job_may_be_over() -> None:
    plan = planned([dead("a", ago=1, ran=3600, exit_code=0)], 1)
    assert plan.create == ()
    assert plan.retry_in == pytest.approx(4)
    assert len(planned([dead("a", ago=6, ran=3600, exit_code=0)], 1).create) == 1


def test_a_pod_that_the_node_refuses_counts_as_a_crash() -> None:
    refused = Ended(exit_code=-1, reason="OutOfcpu", message="no room", at=None)
    plan = planned([pod("a", phase="Failed", ready=False, ended=refused, created=NOW - 2)], 1)
    assert plan.crashes is not None
    assert plan.crashes.message == "a: OutOfcpu, no room"


def test_crashes_are_forgotten_when_all_has_been_well_for_a_while() -> None:
    crashes = Crashes(count=5, last=format_time(NOW - 700))
    assert planned([pod("a")], 1, crashes).crashes is None
    assert planned([pod("a", ready=False)], 1, crashes).crashes == crashes
    recent = Crashes(count=5, last=format_time(NOW - 100))
    assert planned([pod("a")], 1, recent).crashes == recent


def test_nothing_dead_is_kept_when_nothing_is_wanted() -> None:
    assert sorted(deleted(planned([dead("a"), dead("b"), pod("c")], 0))) == ["a", "b", "c"]


def test_delays_grow_and_end() -> None:
    delays = [delay(crashes) for crashes in range(40)]
    assert delays == sorted(delays)
    assert (delays[1], delays[2], delays[-1]) == (0, FIRST_DELAY, LONGEST_DELAY)


PODS = st.lists(
    st.builds(
        lambda number, **values: pod(f"p{number}", **values),
        st.integers(0, 10**6),
        phase=st.sampled_from(["Pending", "Running", "Failed", "Succeeded", "Unknown"]),
        ready=st.booleans(),
        deleting=st.booleans(),
        spec_hash=st.sampled_from(["new", "old"]),
        run=st.sampled_from(["run", "earlier"]),
        created=st.floats(NOW - 1e6, NOW),
    ),
    max_size=8,
    unique_by=lambda pod: pod.name,
)


@given(PODS, st.integers(0, 5))
def test_after_every_plan_there_are_no_more_than_are_wanted_and_none_goes_for_nothing(
    pods: list[Pod], wanted: int
) -> None:
    plan = planned(pods, wanted)
    gone = set(deleted(plan))
    alive = [pod for pod in pods if pod.counts and pod.run == "run"]
    left = [pod for pod in alive if pod.name not in gone]
    assert len(left) + len(plan.create) <= max(wanted, 0)
    assert not (plan.create and [pod for pod in alive if pod.name in gone])
    assert not gone & {pod.name for pod in pods if pod.deleting}
    if plan.retry_in is None and not gone & {pod.name for pod in alive}:
        assert len(left) + len(plan.create) == wanted
