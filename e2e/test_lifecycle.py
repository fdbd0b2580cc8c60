"""A job's life as its owner steers it: scale, suspend, restart, upgrade, delete; and what is refused."""

import subprocess

import pytest

from jobs import Job
from kubernetes_cluster import eventually


def test_a_job_runs_to_its_end(job: Job) -> None:
    job.create()
    job.holding()
    printed = job.kubectl("get", "flinkjob", job.name)
    assert printed.split()[:8] == ["NAME", "STATE", "LEADER", "EPOCH", "TASKS", "FAILOVERS", "PROTECTED", "AGE"]
    assert printed.splitlines()[1].split()[1:6] == ["RUNNING", job.leader(), "1", "4/2/7", "0"]
    assert printed.splitlines()[1].split()[6] == "True"
    job.finish()
    eventually(lambda: job.condition("Finished").get("status") == "True", "the condition Finished")


def test_taskmanagers_are_scaled_up_without_a_word_to_running_tasks(job: Job) -> None:
    job.create()
    before = job.holding()
    job.kubectl("scale", "flinkjob", job.name, "--replicas=3")
    eventually(lambda: job.status()["taskManagers"] == {"wanted": 3, "ready": 3}, "three TaskManagers are ready")
    job.unnoticed(before)
    job.finish()
    assert job.starts() == job.once()


def test_jobmanagers_are_scaled_up_and_down_without_a_word_to_running_tasks(job: Job) -> None:
    job.create()
    before, leader = job.holding(), job.leader()
    for replicas in (3, 2):
        job.patch(jobManager={"replicas": replicas})
        eventually(lambda wanted=replicas: _jobmanagers(job) == (wanted, wanted), f"{replicas} JobManagers are ready")  # type: ignore[misc]  # mypy has no type for a lambda's default
        job.unnoticed(before)
        assert job.leader() == leader
    job.finish()
    assert job.starts() == job.once()


def _jobmanagers(job: Job) -> tuple[int, int]:
    """How many pods there are, and how many of them are ready."""
    status = job.kubernetes.get(job.namespace, "statefulset", f"{job.name}-jobmanager")["status"]
    return status["replicas"], status.get("readyReplicas", 0)


def test_a_suspended_job_goes_on_where_it_was(job: Job) -> None:
    job.create()
    job.holding()
    job.patch(job={"state": "suspended"})
    eventually(lambda: job.state() == "SUSPENDED", "the job is suspended")
    eventually(lambda: not job.kubernetes.get(job.namespace, "pods")["items"], "no pod is left")
    job.patch(job={"state": "running"})
    job.holding(epoch=2)
    counts = job.status()["jobStatus"]["tasks"]
    assert counts["finished"] == 2, "what had finished was not run again"
    job.finish()


def test_a_restart_nonce_begins_anew(job: Job) -> None:
    job.create()
    before = job.holding()
    job.patch(restartNonce=1)
    eventually(lambda: set(job.starts().values()) == {2}, "every task has begun again")
    after = job.holding()
    assert {task.pod for task in after.values()}.isdisjoint({task.pod for task in before.values()})
    job.finish()
    assert job.starts() == dict.fromkeys(range(4), 2)


@pytest.mark.alone
def test_a_drained_node_is_a_planned_handover(job: Job) -> None:
    """It takes with it what runs there: the leader hands over, and only the tasks of that node begin again."""
    nodes = job.kubernetes.nodes
    if nodes is None:
        pytest.skip("the nodes of a cluster that was given are not drained")
    job.create()
    before = job.holding()
    leader = job.leader()
    node = str(job.kubernetes.get(job.namespace, "pod", leader)["spec"]["nodeName"])
    pods = {task.pod for task in before.values()}
    gone = {pod for pod in pods if job.kubernetes.get(job.namespace, "pod", pod)["spec"]["nodeName"] == node}
    kept = {key: task for key, task in before.items() if task.pod not in gone}
    try:
        job.kubernetes.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=180s")
        after = job.holding(epoch=2)
        assert {key for key in before if after[key] == before[key]} == kept.keys()
        job.counting_on(kept)
    finally:
        job.kubernetes.kubectl("uncordon", node)
    assert job.leader() != leader
    job.finish()
    assert job.starts() == {index: 1 + (task.pod in gone) for (_, index), task in before.items()}


def test_without_a_log_a_failover_restarts_the_job(job: Job) -> None:
    """The log store ``none`` is Flink's behaviour, and the resource says that it protects nothing."""
    job.create(flinkConfiguration={"jobmanager.failover.operation-log-store": "none"})
    eventually(lambda: set(job.starts().values()) == {1} and len(job.starts()) == 4, "all tasks hold")
    assert job.condition("Protected")["status"] == "False"
    job.kubectl("delete", "pod", job.leader(), "--force", "--grace-period=0")
    # On a busy machine a leader may lose its Lease once more, and only the Lease protects this one.
    eventually(lambda: min(job.starts().values()) >= 2, "all tasks have begun again")
    job.finish()
    assert min(job.starts().values()) >= 2


@pytest.mark.parametrize("policy", ["Delete", "Retain"])
def test_deletion_keeps_or_removes_the_data_as_told(job: Job, policy: str) -> None:
    job.create(deletionPolicy=policy)
    job.holding()
    uid = job.get()["metadata"]["uid"]
    job.kubectl("delete", "flinkjob", job.name, "--timeout=180s")
    eventually(lambda: not job.kubernetes.get(job.namespace, "pods")["items"], "no pod is left")
    for kind in ("statefulset", "lease", "secret", "service", "poddisruptionbudget"):
        assert not [
            each
            for each in job.kubernetes.get(job.namespace, kind)["items"]
            if each["metadata"]["name"].startswith(job.name)
        ]
    nodes = job.kubernetes.nodes
    if nodes is not None:
        directory = f"/var/local/flinkjob/{job.namespace}/{job.name}-{uid}"
        left = nodes.on_node(nodes.workers()[0], "sh", "-c", f"test -e {directory} && echo kept || echo gone")
        assert left.strip() == {"Delete": "gone", "Retain": "kept"}[policy]


def test_two_jobs_of_one_name_in_two_namespaces(job: Job, other_namespace: str) -> None:
    other = Job(job.kubernetes, other_namespace)
    for each in (job, other):
        each.create()
    before, others = job.holding(), other.holding()
    leader = other.leader()
    job.kubectl("delete", "pod", job.leader(), "--force", "--grace-period=0")
    job.unnoticed(before, epoch=2)
    other.unnoticed(others)
    assert other.leader() == leader
    job.finish()
    assert other.state() == "RUNNING"
    other.unnoticed(others)
    other.finish()
    for each in (job, other):
        assert each.starts() == job.once()


def test_what_cannot_be_is_refused_with_the_fields_name(job: Job) -> None:
    wrong = job.manifest()
    wrong["spec"]["jobManager"]["replicas"] = 0
    with pytest.raises(subprocess.CalledProcessError) as refused:
        job.apply(wrong)
    assert "spec.jobManager.replicas" in refused.value.stderr


def test_what_only_the_operator_sees_becomes_a_condition(job: Job) -> None:
    job.create(flinkConfiguration={"no.such.option": "1"})
    ready = eventually(lambda: job.condition("Ready"), "the operator has looked at it")
    assert ready["status"] == "False"
    assert "no.such.option" in ready["message"]
    assert not job.kubernetes.get(job.namespace, "pods")["items"]
