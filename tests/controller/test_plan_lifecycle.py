"""A FlinkJob from its creation to its end, in a world where operator and cluster work in turn."""

import copy
from typing import Any

import pytest

from controller.world import World, flinkjob
from flinkjob.controller import children, names
from flinkjob.controller.observed import ChildKey
from flinkjob.controller.target import OperatorSettings


@pytest.fixture
def world() -> World:
    world = World(flinkjob())
    world.settle(ticks=5)
    return world


def container_ids(world: World, component: str) -> dict[str, str]:
    """The pods that run, with their uids."""
    return {x: world.objects[ChildKey("Pod", x)]["metadata"]["uid"] for x in world.running(component)}


def test_a_new_job_gets_everything_it_needs_and_runs(world: World) -> None:
    assert set(children.all_keys("wordcount")) <= set(world.objects)
    assert world.running(names.JOBMANAGER) == ["wordcount-jobmanager-0", "wordcount-jobmanager-1"]
    assert len(world.running(names.TASKMANAGER)) == 2
    assert world.condition("Ready") == "True Running"
    assert world.condition("Protected") == "True Protected"
    assert world.status["tasks"] == "2/1/4"
    assert world.status["taskManagers"] == {"wanted": 2, "ready": 2}


def test_nothing_is_done_to_a_job_that_is_as_it_should_be(world: World) -> None:
    before = copy.deepcopy(world.objects)
    world.calls = 0
    for _ in range(3):
        assert world.reconcile().idle
        assert world.plan().requeue_after is None
    assert (world.calls, world.objects) == (0, before)


def test_taskmanagers_are_scaled_and_jobmanagers_do_not_notice(world: World) -> None:
    before = container_ids(world, names.JOBMANAGER)
    world.edit(taskManager={"replicas": 5})
    world.settle(ticks=4)
    assert len(world.running(names.TASKMANAGER)) == 5
    kept = container_ids(world, names.TASKMANAGER)
    world.edit(taskManager={"replicas": 3})
    world.settle(ticks=4)
    assert container_ids(world, names.TASKMANAGER).items() <= kept.items()
    assert len(world.running(names.TASKMANAGER)) == 3
    assert container_ids(world, names.JOBMANAGER) == before


def test_jobmanagers_are_scaled_and_taskmanagers_do_not_notice(world: World) -> None:
    before = container_ids(world, names.TASKMANAGER)
    world.edit(jobManager={"replicas": 3})
    world.settle(ticks=4)
    assert len(world.running(names.JOBMANAGER)) == 3
    world.edit(jobManager={"replicas": 1})
    world.settle(ticks=4)
    assert world.running(names.JOBMANAGER) == ["wordcount-jobmanager-0"]
    assert container_ids(world, names.TASKMANAGER) == before
    assert world.condition("Protected") == "False NoStandby"


def test_the_lease_of_a_leader_whose_pod_is_gone_is_emptied_at_once(world: World) -> None:
    world.kill("wordcount-jobmanager-0")
    world.reconcile()
    assert world.releases == [("wordcount-jobmanager-0", False)]
    assert world.condition("Ready") == "False WaitingForLeader"
    assert world.condition("Protected") == "False NoLeader"
    world.settle(ticks=3)
    assert world.leader() == "wordcount-jobmanager-1"
    assert world.condition("Protected") == "True Protected"
    assert world.status["leader"]["epoch"] == 2


def test_the_lease_of_a_leader_whose_container_has_ended_is_emptied(world: World) -> None:
    world.settle(ticks=2)
    world.crash("wordcount-jobmanager-0", exit_code=137)
    world.reconcile()
    assert world.releases == [("wordcount-jobmanager-0", False)]


def test_a_node_that_cannot_be_reached_proves_nothing(world: World) -> None:
    world.lost_nodes.add("node-wordcount-jobmanager-0")
    world.settle(ticks=5)
    assert world.releases == []
    assert world.condition("Ready") == "False WaitingForLeader"
    world.delete(ChildKey("Pod", "wordcount-jobmanager-0"))  # the node's pods are evicted
    world.settle(ticks=5)
    assert world.releases == []


def test_a_lost_taskmanager_is_replaced_under_another_name(world: World) -> None:
    lost, kept = world.running(names.TASKMANAGER)
    world.kill(lost)
    world.settle(ticks=3)
    assert kept in world.running(names.TASKMANAGER)
    assert len(world.running(names.TASKMANAGER)) == 2
    assert lost not in world.running(names.TASKMANAGER)


def test_a_taskmanager_on_a_lost_node_is_replaced_once_it_is_evicted(world: World) -> None:
    lost, _ = world.running(names.TASKMANAGER)
    world.lost_nodes.add(f"node-{lost}")
    world.settle(ticks=3)
    assert world.condition("Ready") == "False TaskManagersStarting"
    world.delete(ChildKey("Pod", lost))
    world.settle(ticks=3)
    assert len(world.pods(names.TASKMANAGER)) == 3
    assert world.condition("Ready") == "True Running"


def test_a_suspended_job_stops_from_its_head_and_goes_on_where_it_was(world: World) -> None:
    taskmanagers = world.running(names.TASKMANAGER)
    world.edit(job={"entrypoint": "jobs:build", "state": "suspended"})
    while world.pods(names.JOBMANAGER):
        world.reconcile()
        assert world.running(names.TASKMANAGER) == taskmanagers
        assert not any("deletionTimestamp" in pod["metadata"] for pod in world.pods(names.TASKMANAGER))
        world.tick()
    world.settle(ticks=5)
    assert world.pods(names.JOBMANAGER) == world.pods(names.TASKMANAGER) == []
    assert world.condition("Ready") == "False Suspended"
    assert world.condition("Protected") == ""
    assert world.status["jobStatus"]["state"] == "SUSPENDED"
    id = world.status["jobStatus"]["jobId"]
    world.edit(job={"entrypoint": "jobs:build", "state": "running"})
    world.settle(ticks=5)
    assert world.condition("Ready") == "True Running"
    assert (world.status["jobStatus"]["state"], world.status["jobStatus"]["jobId"]) == ("RUNNING", id)


def test_a_restart_ends_the_old_run_before_the_new_one_begins(world: World) -> None:
    old = world.status["jobStatus"]["jobId"]
    world.edit(restartNonce=1)
    for _ in range(10):
        world.reconcile()
        world.tick()
        runs = {pod["metadata"]["annotations"][names.JOB_UID] for pod in world.pods(names.JOBMANAGER)}
        assert len(runs) <= 1, "JobManagers of two runs at a time"
    assert world.condition("Ready") == "True Running"
    assert world.status["jobStatus"]["jobId"] != old
    runs = {pod["metadata"]["annotations"][names.JOB_UID] for pod in world.pods(names.TASKMANAGER)}
    assert runs == {world.status["run"]}
    assert runs != {world.job["metadata"]["uid"]}


def test_a_restart_nonce_of_the_past_does_not_bring_back_the_run_that_it_began(world: World) -> None:
    runs = [world.status["run"]]
    for nonce in (1, 0, 1, 2, 1):
        world.job_ends = True
        world.settle(ticks=6)
        assert world.condition("Finished") == "True JobFinished"
        world.job_ends = False
        world.edit(restartNonce=nonce)
        world.settle(ticks=8)
        assert world.condition("Ready") == "True Running"
        runs.append(world.status["run"])
    assert len(set(runs)) == len(runs)


def test_an_operator_that_starts_anew_goes_on_with_the_run_that_its_predecessor_began(world: World) -> None:
    world.edit(restartNonce=3)
    world.reconcile(steps=1)  # it dies after it has written the status
    world.edit(failoverNonce=1)
    run = world.status["run"]
    world.settled = {}
    world.settle(ticks=8)
    assert world.status["run"] == run
    world.edit(taskManager={"replicas": 3})
    world.settle(ticks=4)
    assert world.status["run"] == run


def test_an_operator_leaves_a_job_alone_of_which_an_earlier_one_did_not_write_down_the_nonce(world: World) -> None:
    world.edit(restartNonce=3)
    world.settle(ticks=8)
    run = world.status["run"]
    del world.status["restartNonce"]
    world.settle(ticks=4)
    assert (world.status["run"], world.status["restartNonce"]) == (run, 3)


def test_a_handover_is_done_once_for_each_nonce(world: World) -> None:
    world.edit(failoverNonce=4)
    world.settle(ticks=6)
    assert world.status["leader"] | {"since": ""} == {"pod": "wordcount-jobmanager-1", "epoch": 2, "since": ""}
    assert world.releases == [], "the leader hands over by itself"
    world.settle(ticks=6)
    assert world.status["leader"]["epoch"] == 2
    world.edit(failoverNonce=5)
    world.settle(ticks=6)
    assert world.status["leader"]["epoch"] == 3


def test_a_handover_that_the_operator_began_and_did_not_live_to_do_is_done(world: World) -> None:
    world.edit(failoverNonce=1)
    world.reconcile(steps=1)
    assert world.status["handover"]["nonce"] == 1
    assert "wordcount-jobmanager-0" in world.running(names.JOBMANAGER)
    world.settle(ticks=5)
    assert world.status["leader"]["epoch"] == 2


def test_a_handover_that_has_to_wait_for_a_standby_is_told_of_once(world: World) -> None:
    world.kill("wordcount-jobmanager-1")
    for nonce in (4, 5):
        world.edit(failoverNonce=nonce)
        world.reconcile()
        world.reconcile()
        assert world.status["handover"]["waiting"] == nonce
    assert world.events.count("HandoverWaits") == 2
    world.settle(ticks=8)
    assert (world.status["handover"]["nonce"], world.status["leader"]["epoch"]) == (5, 2)


def test_the_nonce_that_a_job_is_created_with_asks_for_nothing() -> None:
    world = World(flinkjob(failoverNonce=9))
    world.settle(ticks=8)
    assert world.status["leader"]["epoch"] == 1


def test_an_upgrade_replaces_standbys_first_and_hands_over_once(world: World) -> None:
    world.edit(image="flinkjob:2")
    for _ in range(20):
        world.reconcile()
        world.tick()
        assert len(world.running(names.JOBMANAGER)) >= 1
        assert len(world.running(names.TASKMANAGER)) >= 1
    pods = world.pods(names.JOBMANAGER) + world.pods(names.TASKMANAGER)
    assert {pod["spec"]["containers"][0]["image"] for pod in pods} == {"flinkjob:2"}
    assert world.status["leader"]["epoch"] == 2
    assert world.condition("Ready") == "True Running"


def test_an_upgrade_that_does_not_start_stops_where_the_job_still_runs(world: World) -> None:
    world.broken_images.add("flinkjob:bad")
    world.edit(image="flinkjob:bad")
    world.settle(ticks=60)
    assert world.leader() == "wordcount-jobmanager-0"
    assert world.running(names.JOBMANAGER) == ["wordcount-jobmanager-0"]
    assert len(world.running(names.TASKMANAGER)) == 1
    assert world.condition("Protected") == "False PodsNotStarting"
    world.edit(image="flinkjob:1")
    world.settle(ticks=10)
    assert world.condition("Protected") == "True Protected"
    assert world.status["leader"]["epoch"] == 1


def test_a_new_operator_with_another_default_image_leaves_jobs_alone(world: World) -> None:
    before = container_ids(world, names.JOBMANAGER) | container_ids(world, names.TASKMANAGER)
    newer = OperatorSettings(image="flinkjob:99")
    for _ in range(5):
        world.reconcile(settings=newer)
        world.tick()
    assert container_ids(world, names.JOBMANAGER) | container_ids(world, names.TASKMANAGER) == before
    world.edit(restartNonce=1)
    for _ in range(8):
        world.reconcile(settings=newer)
        world.tick()
    assert world.pods(names.TASKMANAGER)[0]["spec"]["containers"][0]["image"] == "flinkjob:99"


def test_a_finished_job_keeps_one_jobmanager_to_answer_questions(world: World) -> None:
    world.job_ends = True
    world.settle(ticks=6)
    assert len(world.pods(names.JOBMANAGER)) == 1
    assert world.pods(names.TASKMANAGER) == []
    assert world.condition("Finished") == "True JobFinished"
    assert world.condition("Ready") == "False JobFinished"
    assert world.condition("Protected") == ""
    world.edit(image="flinkjob:7")
    world.settle(ticks=4)
    assert world.condition("Finished") == "True JobFinished"


def test_a_finished_job_is_deleted_after_its_time_to_live() -> None:
    world = World(flinkjob(ttlSecondsAfterFinished=100))
    world.job_ends = True
    world.settle(ticks=10)
    due = world.plan().requeue_after
    assert due is not None
    assert 80 < due <= 100
    world.tick(due - 1)
    world.reconcile()
    assert world.job_key in world.objects
    world.tick(1)
    world.reconcile()
    world.settle(ticks=4)
    assert world.objects == {}


def test_a_finished_job_may_run_anew(world: World) -> None:
    world.job_ends = True
    world.settle(ticks=6)
    world.job_ends = False
    world.edit(restartNonce=1)
    for _ in range(8):
        world.reconcile()
        assert world.condition("Finished") == "", "that was the earlier run"
        assert world.objects[ChildKey("StatefulSet", "wordcount-jobmanager")]["spec"]["replicas"] in (0, 2)
        world.tick()
    assert world.condition("Ready") == "True Running"


def test_a_finished_job_that_is_suspended_keeps_no_pod(world: World) -> None:
    world.job_ends = True
    world.settle(ticks=6)
    world.edit(job={"entrypoint": "jobs:build", "state": "suspended"})
    world.settle(ticks=4)
    assert world.pods(names.JOBMANAGER) == []
    assert world.condition("Finished") == "True JobFinished"


def test_with_retain_a_deleted_job_just_goes(world: World) -> None:
    assert "finalizers" not in world.job["metadata"]
    world.delete(world.job_key)
    world.settle(ticks=3)
    assert world.objects == {}


def test_with_delete_the_data_is_removed_after_all_pods_have_ended_and_before_the_job_goes() -> None:
    world = World(flinkjob(deletionPolicy="Delete"))
    world.settle(ticks=5)
    assert world.job["metadata"]["finalizers"] == [names.FINALIZER]
    world.delete(world.job_key)
    cleaned = False
    for _ in range(12):
        world.reconcile()
        if any("deletionTimestamp" not in pod["metadata"] for pod in world.pods(names.CLEANUP)):
            cleaned = True
            assert world.running(names.JOBMANAGER) == world.running(names.TASKMANAGER) == []
            assert world.job_key in world.objects
        world.tick()
    assert cleaned
    assert world.objects == {}


def test_a_clean_up_that_fails_is_told_and_tried_again_until_retain_lets_the_job_go() -> None:
    world = World(flinkjob(deletionPolicy="Delete"))
    world.settle(ticks=5)
    world.delete(world.job_key)
    while not world.pods(names.CLEANUP):
        world.reconcile()
        world.tick(0.1)
        if world.pods(names.CLEANUP):
            world.crash("wordcount-cleanup", exit_code=1, ran=1)
    world.reconcile()
    assert world.condition("Ready") == "False CleanupFailed"
    due = world.plan().requeue_after
    assert due is not None
    world.now += due
    world.reconcile()
    assert "deletionTimestamp" in world.pods(names.CLEANUP)[0]["metadata"]
    world.edit(deletionPolicy="Retain")
    world.settle(ticks=3)
    assert world.objects == {}


def test_a_job_that_never_began_has_no_data_to_remove() -> None:
    world = World(flinkjob(deletionPolicy="Delete", flinkConfiguration={"no.such.option": "1"}))
    world.job["metadata"]["finalizers"] = [names.FINALIZER]
    world.delete(world.job_key)
    world.reconcile()
    assert world.objects == {}


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"flinkConfiguration": {"heartbeat.timout": "1 s"}}, "unknown option 'heartbeat.timout' (did you mean"),
        ({"flinkConfiguration": {"heartbeat.interval": "60 s"}}, "heartbeat.interval (1 min) has to be less than"),
        ({"storage": None}, "spec.storage: is missing"),
        (
            {"job": {"vertices": [{"name": "a", "task": {"command": ["x"]}, "inputs": [{"from": "b"}]}]}},
            "no vertex 'b'",
        ),
        (
            {"job": {"vertices": [{"name": "a", "task": {"command": ["x"]}, "inputs": [{"from": "a"}]}]}},
            "the inputs make a cycle",
        ),
        (
            {"jobManager": {"podTemplate": {"spec": {"restartPolicy": "Never"}}}},
            "restartPolicy: is set by the operator",
        ),
    ],
)
def test_an_invalid_spec_is_told_and_nothing_is_touched(spec: dict[str, Any], problem: str) -> None:
    world = World(flinkjob(**spec))
    world.reconcile()
    assert world.condition("Ready") == "False InvalidSpec"
    assert problem in world.status["conditions"][0]["message"]
    assert set(world.objects) == {world.job_key}
    assert world.reconcile().idle
    assert world.events == ["InvalidSpec"]


def test_a_running_job_goes_on_when_its_spec_becomes_invalid(world: World) -> None:
    before = container_ids(world, names.JOBMANAGER) | container_ids(world, names.TASKMANAGER)
    world.edit(flinkConfiguration={"no.such.option": 1})
    world.settle(ticks=4)
    assert container_ids(world, names.JOBMANAGER) | container_ids(world, names.TASKMANAGER) == before
    assert world.condition("Ready") == "False InvalidSpec"
    world.kill("wordcount-jobmanager-0")
    world.settle(ticks=3)
    assert world.leader() == "wordcount-jobmanager-1"


def test_a_strangers_object_is_never_taken_over() -> None:
    world = World(flinkjob())
    theirs = world.create({"kind": "ConfigMap", "metadata": {"name": "wordcount-job"}, "data": {"mine": "yes"}})
    before = copy.deepcopy(theirs)
    world.settle(ticks=5)
    assert world.objects[ChildKey("ConfigMap", "wordcount-job")] == before
    assert world.condition("Ready") == "False NameTaken"
    assert "ConfigMap wordcount-job" in world.status["conditions"][0]["message"]
    assert set(world.objects) == {world.job_key, ChildKey("ConfigMap", "wordcount-job")}
    world.delete(ChildKey("ConfigMap", "wordcount-job"))
    world.settle(ticks=5)
    assert world.condition("Ready") == "True Running"


def test_objects_of_an_earlier_job_of_the_name_are_waited_for() -> None:
    world = World(flinkjob())
    owner = {"kind": "FlinkJob", "name": "wordcount", "uid": "uid-earlier", "controller": True}
    world.create({"kind": "Service", "metadata": {"name": "wordcount-rest", "ownerReferences": [owner]}})
    assert world.plan().requeue_after is not None
    assert not world.plan().applies


@pytest.mark.parametrize("kind", ["StatefulSet", "Role", "Service", "PodDisruptionBudget", "Lease", "Secret"])
def test_a_child_that_somebody_deletes_comes_back(world: World, kind: str) -> None:
    key = next(key for key in children.all_keys("wordcount") if key.kind == kind)
    del world.objects[key]
    world.settle(ticks=6)
    assert key in world.objects
    assert world.condition("Ready") == "True Running"


def test_a_child_that_somebody_changes_is_put_right_once(world: World) -> None:
    role = world.objects[ChildKey("Role", "wordcount-jobmanager")]
    rules = role["rules"]
    role["rules"] = []
    role["metadata"]["resourceVersion"] = "999999"
    made = world.reconcile()
    assert [apply.manifest["kind"] for apply in made.applies] == ["Role"]
    assert world.objects[ChildKey("Role", "wordcount-jobmanager")]["rules"] == rules
    assert world.reconcile().idle


def test_an_operator_that_starts_anew_changes_nothing(world: World) -> None:
    world.settled = {}
    assert world.reconcile().idle


def test_secrets_are_issued_when_they_are_due(world: World) -> None:
    secret = world.objects[ChildKey("Secret", "wordcount-jobmanager-tls")]
    secret["metadata"]["annotations"] = {names.RENEW_AT: "2027-01-15T08:10:00Z"}
    due = world.plan().requeue_after
    assert due is not None
    assert 0 < due <= 600
    world.now += due
    assert world.plan().issue_secrets
