"""The death of a JobManager, in every way that a cluster knows: what the tasks must not notice.

Each test compares for every running task the pod, the container, the processes and the attempt before and after.
"""

import pytest

from jobs import Job
from kubernetes_cluster import Tasks, eventually


def check_undisturbed(job: Job, before: Tasks, epoch: int = 2) -> None:
    """Nobody noticed the change to this epoch; the job ends with the exact result, and no task ever began twice."""
    assert job.holding(epoch) == before
    told = job.failover(epoch)
    assert told["verdicts"]["continued"] == len(before)
    assert told["verdicts"]["restarted"] == 0
    job.finish()
    assert job.starts() == dict.fromkeys(range(4), 1)


@pytest.mark.parametrize("how", [["--wait=false"], ["--force", "--grace-period=0"]], ids=["gracefully", "by force"])
def test_the_leaders_pod_is_deleted(job: Job, how: list[str]) -> None:
    job.create()
    before = job.holding()
    dead = job.leader()
    job.kubectl("delete", "pod", dead, *how)
    eventually(lambda: job.leader() not in ("", dead), "the standby leads")
    check_undisturbed(job, before)


def test_the_leaders_container_is_killed(job: Job) -> None:
    job.create()
    before = job.holding()
    dead = job.leader()
    nodes = job.kubernetes.nodes
    if nodes is None:
        pytest.skip("the containers of a cluster that was given cannot be killed from outside")
    pod = job.kubernetes.get(job.namespace, "pod", dead)
    container = pod["status"]["containerStatuses"][0]["containerID"].partition("://")[2]
    nodes.on_node(pod["spec"]["nodeName"], "ctr", "--namespace=k8s.io", "tasks", "kill", "--signal=SIGKILL", container)
    eventually(lambda: job.status()["leader"]["epoch"] == 2, "somebody leads the next epoch")
    check_undisturbed(job, before)


def test_the_leader_dies_twice_in_a_row(job: Job) -> None:
    job.create()
    before = job.holding()
    for epoch in (2, 3):
        dead = job.leader()
        job.kubectl("delete", "pod", dead, "--force", "--grace-period=0")
        eventually(lambda dead=dead: job.leader() not in ("", dead), f"somebody leads epoch {epoch}")  # type: ignore[misc]  # mypy has no type for a lambda's default
    check_undisturbed(job, before, epoch=3)


def test_a_standby_is_lost_and_the_leader_stays(job: Job) -> None:
    job.create()
    before = job.holding()
    leader, standby = job.leader(), job.standby()
    job.kubectl("delete", "pod", standby, "--force", "--grace-period=0")
    assert job.holding() == before
    assert job.leader() == leader
    job.finish()
    assert job.starts() == dict.fromkeys(range(4), 1)


def test_the_operator_is_away_and_the_lease_runs_out(job: Job, operator_away: None) -> None:
    """Without the operator a failover takes as long as the Lease, and the tasks notice as little."""
    before = job.holding()
    dead = job.leader()
    job.kubectl("delete", "pod", dead, "--force", "--grace-period=0")
    eventually(lambda: job.leader() not in ("", dead), "the standby leads")
    eventually(lambda: job.status()["leader"]["epoch"] == 2, "the new leader tells of itself")
    tasks = eventually(
        lambda: len(found := job.kubernetes.tasks(job.namespace, job.name)) == len(before) and found,
        "all tasks run in the new leader's eyes",
    )
    assert tasks == before
    job.finish()
    assert job.starts() == dict.fromkeys(range(4), 1)


def test_a_planned_handover_by_the_failover_nonce(job: Job) -> None:
    job.create()
    before = job.holding()
    job.patch(failoverNonce=1)
    check_undisturbed(job, before)


def test_a_lost_taskmanager_costs_its_own_tasks_and_no_others(job: Job) -> None:
    job.create()
    before = job.holding()
    lost = before["hold", 0].pod
    job.kubectl("delete", "pod", lost, "--force", "--grace-period=0")
    eventually(
        lambda: all(task.pod != lost for task in _tasks(job).values()) and len(_tasks(job)) == len(before),
        "the lost tasks run again",
    )
    after = job.holding()
    for key, task in before.items():
        assert (after[key] == task) == (task.pod != lost)
    job.finish()
    assert job.starts() == {index: 1 + (before["hold", index].pod == lost) for index in range(4)}


def test_the_leader_and_a_taskmanager_are_lost_at_once(job: Job) -> None:
    job.create()
    before = job.holding()
    lost = before["hold", 0].pod
    job.kubectl("delete", "pod", job.leader(), lost, "--force", "--grace-period=0")
    after = job.holding(epoch=2)
    assert {key for key in before if after[key] == before[key]} == {k for k, task in before.items() if task.pod != lost}
    job.finish()
    assert job.starts() == {index: 1 + (before["hold", index].pod == lost) for index in range(4)}


def _tasks(job: Job) -> Tasks:
    return job.kubernetes.tasks(job.namespace, job.name)


def test_a_leader_that_is_cut_off_gets_no_command_accepted(job: Job) -> None:
    """Its node has no network: it may think that it leads, but its Lease is taken and the log is fenced."""
    nodes = job.kubernetes.nodes
    if nodes is None:
        pytest.skip("the nodes of a cluster that was given cannot be cut off")
    job.create()
    before = job.holding()
    zombie = job.leader()
    node = job.kubernetes.get(job.namespace, "pod", zombie)["spec"]["nodeName"]
    elsewhere = {key: task for key, task in before.items() if _node(job, task.pod) != node}
    nodes.cut(node)
    try:
        eventually(lambda: job.leader() not in ("", zombie), "the standby leads after the Lease has run out")
        eventually(lambda: job.status()["leader"]["epoch"] == 2, "the new leader tells of itself")
    finally:
        nodes.heal(node)
    after = job.holding(epoch=2)
    assert {key: after[key] for key in elsewhere} == elsewhere
    job.finish()
    starts = job.starts()
    assert all(starts[index] == 1 for (_, index) in elsewhere)


def _node(job: Job, pod: str) -> str:
    return str(job.kubernetes.get(job.namespace, "pod", pod)["spec"]["nodeName"])
