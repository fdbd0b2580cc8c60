"""A condition never says more than is true, and says what can be done."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.world import SETTINGS, World, flinkjob
from flinkjob.controller import conditions, names
from flinkjob.controller.observed import ChildKey, Claim, Observed
from flinkjob.controller.plan import plan

PACKAGE = Path(conditions.__file__).parent


@pytest.fixture
def world() -> World:
    world = World(flinkjob())
    world.settle(ticks=5)
    return world


def told(world: World, type: str, **observed: Any) -> tuple[str, str]:
    """A condition as the plan tells it now, and its message."""
    seen = world.observed()
    values = {name: getattr(seen, name) for name in Observed.__slots__}
    made = plan(Observed(**{**values, **observed}), now=world.now, settings=SETTINGS, suffix=world.suffix)
    all_told = made.status["conditions"] if made.status is not None else world.status["conditions"]
    (found,) = (each for each in all_told if each["type"] == type)
    return f"{found['status']} {found['reason']}", found["message"]


def scheduled(holds: bool, message: str = "") -> dict[str, Any]:
    """What the scheduler says of a pod."""
    said = {"type": "PodScheduled", "status": str(holds), "reason": "Unschedulable", "message": message}
    return {"conditions": [said]}


def waiting(reason: str) -> dict[str, Any]:
    """What the kubelet says of a container that does not run yet."""
    return {"containerStatuses": [{"name": "jobmanager", "state": {"waiting": {"reason": reason}}}]}


def test_every_reason_that_is_given_is_in_the_list_and_the_other_way_round() -> None:
    text = "".join((PACKAGE / f"{name}.py").read_text() for name in ("conditions", "plan", "deleting", "reporting"))
    given_reasons = set(
        re.findall(r'"([A-Z][A-Za-z]+)"', text.replace(text[text.index("REASONS") : text.index("ALARMING")], ""))
    )
    listed = set(conditions.REASONS)
    assert listed <= given_reasons, f"nobody gives {listed - given_reasons}"
    assert listed >= conditions.ALARMING


@pytest.mark.parametrize(
    ("log", "expected", "words"),
    [
        (
            {"writable": False, "lagMs": 0, "problem": "no space left"},
            "False LogNotWritable",
            "no space left; make the",
        ),
        ({"writable": True, "lagMs": 60_000}, "False LogLagging", "operations wait 60 s"),
        ({"writable": True, "lagMs": 5_000}, "True Protected", "wordcount-jobmanager-1 can take over"),
        (None, "False NoLeader", "no JobManager is known"),
    ],
)
def test_a_job_is_protected_only_while_its_log_is_written(world: World, log: Any, expected: str, words: str) -> None:
    world.status["log"] = log
    condition, message = told(world, "Protected")
    assert condition == expected
    assert words in message


def test_a_job_without_a_log_is_not_protected() -> None:
    world = World(flinkjob(flinkConfiguration={"jobmanager.failover.operation-log-store": "none"}))
    world.settle(ticks=5)
    assert world.condition("Ready") == "True Running"
    assert world.condition("Protected") == "False NoOperationLog"


def test_a_job_without_a_standby_is_told_how_to_get_one() -> None:
    world = World(flinkjob(jobManager={"replicas": 1}))
    world.settle(ticks=5)
    condition, message = told(world, "Protected")
    assert condition == "False NoStandby"
    assert message.endswith("set spec.jobManager.replicas to 2 or more")


def test_the_last_word_of_a_leader_that_is_gone_counts_no_more(world: World) -> None:
    world.kill("wordcount-jobmanager-0")
    assert told(world, "Ready")[0] == "False WaitingForLeader"
    assert told(world, "Protected")[0] == "False NoLeader"
    assert told(world, "Reconciling")[0] == "False NoLeader"


def test_nor_does_that_of_one_whose_container_was_started_anew(world: World) -> None:
    world.settle(ticks=2)
    world.crash("wordcount-jobmanager-0")
    world.tick()
    world.objects.pop(ChildKey("Lease", "wordcount-leader"))
    world.tick()
    assert "wordcount-jobmanager-0" in world.running(names.JOBMANAGER)
    assert world.status["leader"]["pod"] == "wordcount-jobmanager-0"
    assert told(world, "Ready")[0] == "False WaitingForLeader"


def test_one_that_leads_since_the_second_of_its_start_is_believed_and_the_lease_is_looked_at(world: World) -> None:
    world.settle(ticks=2)
    assert not world.plan().check_lease
    leader = world.objects[ChildKey("Pod", world.status["leader"]["pod"])]
    state = leader["status"]["containerStatuses"][0]["state"]
    world.status["leader"]["since"] = state["running"]["startedAt"]
    assert told(world, "Ready")[0] == "True Running"
    assert world.plan().check_lease


def test_nor_does_that_of_one_that_the_kubelet_no_longer_hears_of(world: World) -> None:
    world.lost_nodes.add("node-wordcount-jobmanager-0")
    world.tick()
    assert told(world, "Protected")[0] == "False NoLeader"


def test_a_leader_that_cannot_replay_the_log_does_not_lead(world: World) -> None:
    world.status["log"] = {"writable": False, "problem": "the block at 17 is damaged"}
    assert told(world, "Ready")[0] == "True Running"
    world.status["trouble"] = {"reason": "LogUnreadable", "message": "the block at 17 is damaged"}
    condition, message = told(world, "Ready")
    assert condition == "False LogUnreadable"
    assert "the block at 17 is damaged; mend the storage" in message
    assert told(world, "Protected")[0] == "False NoLeader"


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("JobInvalid", "correct the module"),
        ("StorageUnsupported", "name another"),
        ("LogUnavailable", "JobManagers go on trying"),
    ],
)
def test_whatever_keeps_the_elected_from_leading_is_told_for_what_it_is(world: World, reason: str, remedy: str) -> None:
    """Also in a run in which nobody has led yet, of which the status has no more than the id."""
    world.status["jobStatus"] = {"jobId": world.status["jobStatus"]["jobId"], "error": "jobs:build is not there"}
    del world.status["log"]
    world.status["trouble"] = {"reason": reason, "message": "jobs:build is not there"}
    condition, message = told(world, "Ready")
    assert condition == f"False {reason}"
    assert message.startswith(f"jobs:build is not there; {remedy}")
    world.kill("wordcount-jobmanager-0")
    assert told(world, "Ready")[0] == "False WaitingForLeader", "who said so is gone"


def test_a_leader_that_is_gone_is_not_the_current_one(world: World) -> None:
    assert world.status["currentLeader"] == "wordcount-jobmanager-0"
    world.kill("wordcount-jobmanager-0")
    world.reconcile()
    assert world.status["leader"]["pod"] == "wordcount-jobmanager-0", "its last word stays"
    assert "currentLeader" not in world.status
    world.settle(ticks=3)
    assert world.status["currentLeader"] == world.status["leader"]["pod"] == "wordcount-jobmanager-1"


def test_of_a_job_that_is_invalid_or_goes_nobody_is_told_to_lead_who_is_gone(world: World) -> None:
    world.edit(flinkConfiguration={"no.such.option": 1})
    world.reconcile()
    assert world.status["currentLeader"] == "wordcount-jobmanager-0"
    world.kill("wordcount-jobmanager-0")
    world.reconcile()
    assert "currentLeader" not in world.status


def test_a_leader_that_reconciles_is_not_ready_yet(world: World) -> None:
    world.status["reconciling"] = True
    assert told(world, "Ready")[0] == "False Reconciling"
    assert told(world, "Reconciling")[0] == "True Reconciling"


def test_a_claim_for_one_node_that_keeps_a_standby_from_starting_is_told_with_the_remedy() -> None:
    world = World(flinkjob())
    world.stuck.add("wordcount-jobmanager-1")
    world.settle(ticks=25)
    claim = Claim(name="flink", access_modes=("ReadWriteOnce",))
    condition, message = told(world, "Protected", claim=claim)
    assert condition == "False VolumeNotShared"
    assert "the claim flink is ReadWriteOnce" in message
    assert "use a claim with ReadWriteMany, or an object store" in message
    condition, message = told(world, "Protected", claim=Claim(name="flink", access_modes=("ReadWriteMany",)))
    assert condition == "False PodsNotStarting"
    assert "its container is still being created" in message


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (scheduled(False, "0/3 nodes are available: 3 Insufficient cpu."), "PodsNotStarting"),
        (scheduled(False, "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity"), "PodsNotStarting"),
        (scheduled(False, "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."), "PodsNotStarting"),
        (scheduled(False, "0/2 nodes are available: 1 node(s) had volume node affinity conflict."), "VolumeNotShared"),
        (scheduled(False, "1 node(s) didn't match PersistentVolume's node affinity"), "VolumeNotShared"),
        (scheduled(False, "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"),
         "VolumeNotShared"),
        (scheduled(True) | waiting("ImagePullBackOff"), "PodsNotStarting"),
        (scheduled(True) | waiting("CreateContainerConfigError"), "PodsNotStarting"),
        (scheduled(True) | waiting("ContainerCreating"), "VolumeNotShared"),
    ],
)  # fmt: skip
def test_a_claim_for_one_node_is_blamed_only_for_what_it_does(status: dict[str, Any], reason: str) -> None:
    world = World(flinkjob())
    world.stuck.add("wordcount-jobmanager-1")
    world.settle(ticks=25)
    world.objects[ChildKey("Pod", "wordcount-jobmanager-1")]["status"] = {"phase": "Pending", **status}
    claim = Claim(name="flink", access_modes=("ReadWriteOnce",))
    assert told(world, "Protected", claim=claim)[0] == f"False {reason}"


def test_a_claim_for_one_node_is_not_blamed_for_a_pod_on_the_node_that_has_it() -> None:
    world = World(flinkjob())
    world.stuck.add("wordcount-jobmanager-1")
    world.settle(ticks=25)
    for pod in world.pods(names.JOBMANAGER) + world.pods(names.TASKMANAGER):
        pod["spec"]["nodeName"] = "node"
    claim = Claim(name="flink", access_modes=("ReadWriteOnce",))
    assert told(world, "Protected", claim=claim)[0] == "False PodsNotStarting"


def test_a_claim_for_one_node_is_told_before_it_keeps_anything_from_starting(world: World) -> None:
    condition, message = told(world, "Protected", claim=Claim(name="flink", access_modes=("ReadWriteOnce",)))
    assert condition == "True OneNodeOnly"
    assert "on the same node; the claim flink is ReadWriteOnce" in message
    assert message.endswith("use a claim with ReadWriteMany, or an object store as high-availability.storageDir")


def test_a_claim_that_does_not_exist_is_told(world: World) -> None:
    assert told(world, "Ready", claim_missing=True)[0] == "False ClaimMissing"


def test_what_the_api_server_refuses_is_told_in_its_words(world: World) -> None:
    condition, message = told(world, "Ready", refused="pods is forbidden: exceeded quota")
    assert (condition, message) == ("False RefusedByApiServer", "pods is forbidden: exceeded quota")


def test_pods_that_do_not_start_are_told_after_a_while_with_the_kubelets_reason() -> None:
    world = World(flinkjob(image="flinkjob:bad"))
    world.broken_images.add("flinkjob:bad")
    world.settle(ticks=5)
    assert world.condition("Ready") == "False JobManagersStarting"
    assert world.plan().requeue_after is not None, "the operator looks again when its patience is over"
    world.settle(ticks=20)
    condition, message = told(world, "Ready")
    assert condition == "False PodsNotStarting"
    assert "ImagePullBackOff: there is no such image" in message


def test_jobmanagers_that_crash_are_told_with_their_exit_code() -> None:
    world = World(flinkjob())
    world.settle(ticks=1)
    for _ in range(3):
        world.tick()
        for name in world.running(names.JOBMANAGER):
            world.crash(name, exit_code=2)
    condition, message = told(world, "Ready")
    assert condition == "False JobManagersCrashing"
    assert "exit code 2" in message


def test_the_time_of_a_transition_is_kept_while_the_status_is() -> None:
    finding = conditions.Finding("Ready", True, "Running", "x")
    (first,) = conditions.conditions([finding], [], generation=1, now=100)
    (same,) = conditions.conditions([finding], conditions.as_values([first]), generation=2, now=200)
    other = conditions.Finding("Ready", False, "Suspended", "x")
    (changed,) = conditions.conditions([other], conditions.as_values([same]), generation=2, now=300)
    assert first.last_transition_time == same.last_transition_time == "1970-01-01T00:01:40Z"
    assert changed.last_transition_time == "1970-01-01T00:05:00Z"
    assert same.observed_generation == 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
PARTS = ("jobStatus", "leader", "trouble", "runningTasks", "log", "handover", "crashes")
INSIDE = ("jobId", "state", "pod", "epoch", "since", "writable", "lagMs", "nonce", "uid", "count", "last", "tasks")


@given(st.dictionaries(st.sampled_from(PARTS), st.dictionaries(st.sampled_from(INSIDE), JSON), max_size=4))
def test_a_status_of_another_version_does_not_stop_the_operator(status: dict[str, Any]) -> None:
    world = World(flinkjob())
    world.settle(ticks=4)
    world.job["status"] = {**world.status, **status}
    assert world.plan().status or told(world, "Ready")
