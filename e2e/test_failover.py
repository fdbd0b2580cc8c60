"""The death of a JobManager, in every way that a cluster knows: what the tasks must not notice.

Each test compares for every running task the pod, the container, the processes and the attempt before and after, and that it
has counted on all the while.
"""

import contextlib
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from cluster.kindcluster import Cluster
from jobs import SHARED, Job
from kubernetes_cluster import Tasks, eventually


def check_undisturbed(job: Job, before: Tasks, epoch: int = 2) -> None:
    """Nobody noticed the change to this epoch; the job ends with the exact result, and no task ever began twice."""
    job.unnoticed(before, epoch)
    told = job.failover(epoch)
    assert told["verdicts"]["continued"] == len(before)
    assert told["verdicts"]["restarted"] == 0
    job.finish()
    assert job.starts() == job.once()


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
    node, container = _container(job, dead)
    nodes.on_node(node, "ctr", "--namespace=k8s.io", "tasks", "kill", "--signal=SIGKILL", container)
    eventually(lambda: job.status()["leader"]["epoch"] == 2, "somebody leads the next epoch")
    check_undisturbed(job, before)


# Of the processes of a container the kernel kills the largest first, by this score too; so those that eat are small and many.
# Where it kills all of a container at once (control groups of version 2), that is as well.
_EAT_ALL_MEMORY = """
import os, time
with open('/proc/1/oom_score_adj', 'w') as score:
    score.write('1000')
while True:
    if not os.fork():
        eaten = b'x' * (8 << 20)
        time.sleep(60)
        os._exit(0)
"""


def test_the_kernel_kills_the_leader_for_want_of_memory(job: Job) -> None:
    job.create(jobManager={"replicas": 2, "resource": {"memory": "256Mi"}})
    before = job.holding()
    dead = job.leader()
    with contextlib.suppress(subprocess.CalledProcessError):  # what is executed in a container dies with it
        job.in_pod(dead, "python3", "-c", _EAT_ALL_MEMORY)
    # The reason is mostly OOMKilled, and Error where the runtime heard of the end before it heard of its cause.
    eventually(lambda: _last_end(job, dead).get("exitCode") == 128 + signal.SIGKILL, f"the kernel has killed {dead}")
    check_undisturbed(job, before)


def _last_end(job: Job, pod: str) -> dict[str, Any]:
    (container,) = job.kubernetes.get(job.namespace, "pod", pod)["status"]["containerStatuses"]
    return dict(container["lastState"].get("terminated") or {})


def test_the_leader_dies_twice_in_a_row(job: Job) -> None:
    job.create()
    before = job.holding()
    for epoch in (2, 3):
        dead = job.kubernetes.holder(job.namespace, job.name)
        job.kubectl("delete", "pod", dead.partition("_")[0], "--force", "--grace-period=0")
        # The pod that is made in the place of the dead one has its name, and may be the next leader.
        eventually(
            lambda dead=dead: job.kubernetes.holder(job.namespace, job.name) not in ("", dead),  # type: ignore[misc]  # mypy has no type for a lambda's default
            f"somebody leads epoch {epoch}",
        )
    check_undisturbed(job, before, epoch=3)


# 2 ms of each 100: what a leader does between its claim and its first word takes a second then.
_SLOW = """
for group in $(find /sys/fs/cgroup -type d -name "*$1*"); do
    if [ -e $group/cpu.max ]; then echo '2000 100000' > $group/cpu.max; echo $group
    elif [ -e $group/cpu.cfs_quota_us ]; then echo 2000 > $group/cpu.cfs_quota_us; echo $group
    fi
done
"""
_KILL_AT = """
until [ -e $2 ]; do [ $SECONDS -lt 60 ] || exit 1; sleep 0.01; done
kill -KILL $(cat $1/cgroup.procs)
stat --format=%s $2
"""


def test_a_new_leader_dies_in_the_middle_of_its_replay(job: Job, nodes: Cluster) -> None:
    """It has claimed epoch 2 and told nobody: nobody ever hears of that epoch."""
    job.create()
    before = job.holding()
    dead, standby = job.leader(), job.standby()
    node, container = _container(job, standby)
    (group,) = nodes.on_node(node, "bash", "-ec", _SLOW, "slow", container).split()
    claim = f"{job.data().replace(job.storage, SHARED)}/oplog/0000000002.000000.log"
    # Else the dead leader's next pod might be sooner than the standby, which is slow.
    job.kubectl("create", "quota", "none", "--hard=pods=1")
    with ThreadPoolExecutor() as threads:
        killing = threads.submit(nodes.on_node, node, "bash", "-ec", _KILL_AT, "kill", group, claim)
        job.kubectl("delete", "pod", dead, "--force", "--grace-period=0")
        written = killing.result()
    assert written.strip() == "0", "epoch 2 was over before it had written a word"
    job.kubectl("delete", "quota", "none")
    check_undisturbed(job, before, epoch=3)
    assert [each["epoch"] for each in job.status()["failoverHistory"]] == [3]
    assert {each["epoch"]: each["blocks"] for each in job.log()["epochs"]}[2] == 0


def _container(job: Job, pod: str) -> tuple[str, str]:
    """The node that a pod is on, and the id of its container there."""
    found = job.kubernetes.get(job.namespace, "pod", pod)
    return found["spec"]["nodeName"], found["status"]["containerStatuses"][0]["containerID"].partition("://")[2]


def test_a_standby_is_lost_and_the_leader_stays(job: Job) -> None:
    job.create()
    before = job.holding()
    leader, standby = job.leader(), job.standby()
    lost = _ready_uid(job, standby)
    job.kubectl("delete", "pod", standby, "--force", "--grace-period=0")
    eventually(lambda: _ready_uid(job, standby) not in ("", lost), "another pod stands by")
    job.unnoticed(before)
    assert job.leader() == leader
    job.finish()
    assert job.starts() == job.once()


def _ready_uid(job: Job, pod: str) -> str:
    found = job.kubernetes.get(job.namespace, "pod", pod)
    conditions = found["status"].get("conditions") or []
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return str(found["metadata"]["uid"]) if ready else ""


@pytest.mark.alone
def test_the_operator_is_away_and_the_lease_runs_out(job: Job, operator_away: None) -> None:
    """Without the operator a failover takes as long as the Lease, and the tasks notice as little."""
    before = job.holding()
    dead = job.leader()
    job.kubectl("delete", "pod", dead, "--force", "--grace-period=0")
    eventually(lambda: job.leader() not in ("", dead), "the standby leads")
    eventually(lambda: job.status()["leader"]["epoch"] == 2, "the new leader tells of itself")
    tasks = eventually(
        lambda: len(found := job.tasks()) == len(before) and found,
        "all tasks run in the new leader's eyes",
    )
    assert tasks == before
    job.counting_on(before)
    job.finish()
    assert job.starts() == job.once()


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
    eventually(lambda: len(_elsewhere(job, lost)) == len(before), "the lost tasks run again")
    after = job.holding()
    job.counting_on({key: task for key, task in before.items() if task.pod != lost})
    for key, task in before.items():
        assert (after[key] == task) == (task.pod != lost)
    job.finish()
    assert job.starts() == {index: 1 + (before["hold", index].pod == lost) for index in range(4)}


def _elsewhere(job: Job, lost: str) -> Tasks:
    return {key: task for key, task in job.tasks().items() if task.pod != lost}


def test_the_leader_and_a_taskmanager_are_lost_at_once(job: Job) -> None:
    job.create()
    before = job.holding()
    lost = before["hold", 0].pod
    job.kubectl("delete", "pod", job.leader(), lost, "--force", "--grace-period=0")
    after = job.holding(epoch=2)
    kept = {key: task for key, task in before.items() if task.pod != lost}
    assert {key for key in before if after[key] == before[key]} == kept.keys()
    job.counting_on(kept)
    job.finish()
    assert job.starts() == {index: 1 + (before["hold", index].pod == lost) for index in range(4)}


@pytest.mark.alone
def test_a_leader_that_is_cut_off_gets_no_command_accepted(job: Job, nodes: Cluster) -> None:
    """Its node has no network, but the TaskManager that is there; tasks end on it all the time, and the leader wants to
    run others. Its Lease is taken and its log fenced meanwhile."""
    job = replace(job, held=2, ticks=400)
    job.create(
        jobManager={"replicas": 2, **_one_on_each_node(job, "jobmanager")},
        taskManager={"replicas": 2, "taskSlots": 3, **_one_on_each_node(job, "taskmanager")},
    )
    # Two hold and four wait to tick: at least one on each node.
    eventually(lambda: len(job.tasks()) == 6 and job.condition("Protected")["status"] == "True", "all slots are used")
    before = _holding(job)
    zombie = job.leader()
    node, _ = _container(job, zombie)
    nodes.cut(node)
    try:
        nodes.on_node(node, "touch", f"{job.gate.replace(job.storage, SHARED)}/ticking")
        eventually(lambda: job.leader() not in ("", zombie), "the standby leads after the Lease has run out")
        eventually(lambda: job.status()["leader"]["epoch"] == 2, "the new leader tells of itself")
    finally:
        nodes.heal(node)
    eventually(lambda: job.condition("Reconciling")["status"] == "False", "the new leader has reconciled")
    after = eventually(lambda: len(found := _holding(job)) == len(before) and found, "both tasks hold in epoch 2")
    assert after == before
    job.counting_on(before)
    job.finish()
    assert job.starts() == job.once()
    assert job.starts("tick") == dict.fromkeys(range(job.ticks), 1)
    log = job.log()
    assert not log["damage"]
    assert log["superseded_blocks"] > 0, "the zombie had decided something"


def _one_on_each_node(job: Job, component: str) -> dict[str, Any]:
    labels = {"flinkjob.io/job": job.name, "app.kubernetes.io/component": component}
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": labels}}
    apart = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    return {"podTemplate": {"spec": {"affinity": apart}}}


def _holding(job: Job) -> Tasks:
    return {key: task for key, task in job.tasks().items() if key[0] == "hold"}
