"""Whatever happens, and whenever the operator dies: nothing is done twice, nobody else is hit, and in the end all is well."""

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.world import World, flinkjob
from flinkjob.controller import children, names
from flinkjob.controller.actions import Plan
from flinkjob.controller.observed import ChildKey, format_time

Action = tuple[str, int]

ACTIONS = (
    "reconcile", "tick", "work", "wait", "die", "forget",
    "kill_jobmanager", "kill_taskmanager", "crash_jobmanager", "crash_taskmanager", "lose_node", "heal_nodes", "evict",
    "delete_child", "change_child", "stranger", "no_stranger",
    "jobmanagers", "taskmanagers", "suspend", "resume", "restart", "handover", "image", "bad_image", "invalid", "valid",
    "end",
)  # fmt: skip


class Life:
    """A world to which things happen."""

    def __init__(self, deletion_policy: str = "Retain") -> None:
        self.world = World(flinkjob(deletionPolicy=deletion_policy))
        self.world.broken_images.add("flinkjob:bad")
        self.strangers: dict[ChildKey, Any] = {}

    def happen(self, action: Action) -> None:
        """One thing."""
        name, number = action
        getattr(self, name)(number)
        self.check()

    def check(self) -> None:
        """What holds at any time."""
        assert not any(alive for _, alive in self.world.releases), "a Lease was taken from a leader that runs"
        for key, manifest in self.strangers.items():
            assert self.world.objects[key] == manifest, f"{key} was touched"
        runs = {pod["metadata"]["annotations"][names.JOB_UID] for pod in self.world.pods(names.JOBMANAGER)}
        assert len(runs) <= 1, "JobManagers of two runs of the job at a time"

    def reconcile(self, number: int) -> None:
        self.world.reconcile()

    def tick(self, number: int) -> None:
        self.world.tick(1 + number % 3)

    def work(self, number: int) -> None:
        self.world.settle(ticks=3)

    def wait(self, number: int) -> None:
        self.world.tick(60.0 * (1 + number))

    def die(self, number: int) -> None:
        self.world.reconcile(steps=number)
        self.world.settled = {}

    def forget(self, number: int) -> None:
        self.world.settled = {}

    def kill_jobmanager(self, number: int) -> None:
        self._with_a_pod(names.JOBMANAGER, number, self.world.kill)

    def kill_taskmanager(self, number: int) -> None:
        self._with_a_pod(names.TASKMANAGER, number, self.world.kill)

    def crash_jobmanager(self, number: int) -> None:
        self._with_a_pod(names.JOBMANAGER, number, self.world.crash)

    def crash_taskmanager(self, number: int) -> None:
        self._with_a_pod(
            names.TASKMANAGER, number, lambda pod: self.world.crash(pod, exit_code=number % 2, ran=number * 30)
        )

    def lose_node(self, number: int) -> None:
        component = (names.JOBMANAGER, names.TASKMANAGER)[number % 2]
        self._with_a_pod(component, number, lambda pod: self.world.lost_nodes.add(f"node-{pod}"))

    def heal_nodes(self, number: int) -> None:
        for node in self.world.lost_nodes:
            pod = self.world.objects.get(ChildKey("Pod", node.removeprefix("node-")))
            if pod is not None and pod.get("status"):
                pod["status"]["conditions"] = [{"type": "Ready", "status": str(pod["status"]["phase"] == "Running")}]
        self.world.lost_nodes.clear()

    def evict(self, number: int) -> None:
        for component in (names.JOBMANAGER, names.TASKMANAGER):
            for pod in self.world.pods(component):
                if pod["spec"].get("nodeName") in self.world.lost_nodes:
                    self.world.delete(ChildKey("Pod", pod["metadata"]["name"]))

    def delete_child(self, number: int) -> None:
        key = self._child(number)
        # A StatefulSet that is deleted takes its pods with it; that is no rollout.
        if key in self.world.objects and key not in self.strangers:
            del self.world.objects[key]

    def change_child(self, number: int) -> None:
        key = self._child(number)
        if key in self.world.objects and key not in self.strangers and key.kind in ("Role", "ConfigMap", "Service"):
            self.world.objects[key]["metadata"]["resourceVersion"] = f"9{self.world.now:.0f}{number}"

    def stranger(self, number: int) -> None:
        key = self._child(number)
        if key not in self.world.objects and key.kind not in ("StatefulSet", "Lease"):
            made = self.world.create({"kind": key.kind, "metadata": {"name": key.name}, "data": {"whose": "theirs"}})
            self.strangers[key] = made

    def no_stranger(self, number: int) -> None:
        for key in self.strangers:
            del self.world.objects[key]
        self.strangers.clear()

    def jobmanagers(self, number: int) -> None:
        self.world.edit(jobManager={"replicas": 1 + number % 3})

    def taskmanagers(self, number: int) -> None:
        self.world.edit(taskManager={"replicas": 1 + number % 4})

    def suspend(self, number: int) -> None:
        self.world.edit(job={"entrypoint": "jobs:build", "state": "suspended"})

    def resume(self, number: int) -> None:
        self.world.edit(job={"entrypoint": "jobs:build", "state": "running"})

    def restart(self, number: int) -> None:
        self.world.job_ends = False
        self.world.edit(restartNonce=1 + number % 3)

    def handover(self, number: int) -> None:
        self.world.edit(failoverNonce=number)

    def image(self, number: int) -> None:
        self.world.edit(image=f"flinkjob:{number % 3}")

    def bad_image(self, number: int) -> None:
        self.world.edit(image="flinkjob:bad")

    def invalid(self, number: int) -> None:
        self.world.edit(flinkConfiguration={"no.such.option": number})

    def valid(self, number: int) -> None:
        self.world.edit(flinkConfiguration={})

    def end(self, number: int) -> None:
        self.world.job_ends = True

    def heal(self) -> None:
        """Everything that a person, or a cluster, would put right."""
        self.no_stranger(0)
        self.heal_nodes(0)
        self.world.edit(flinkConfiguration={}, image="flinkjob:1")
        self.world.settle(ticks=8)
        self.world.settle(ticks=30, seconds=25.0)  # longer than crashes are remembered

    def _child(self, number: int) -> ChildKey:
        keys = children.all_keys(self.world.name)
        return keys[number % len(keys)]

    def _with_a_pod(self, component: str, number: int, do: Callable[[str], object]) -> None:
        pods = self.world.running(component)
        if pods:
            do(pods[number % len(pods)])


def actions(*chosen: str) -> st.SearchStrategy[list[Action]]:
    """Some of these, one after the other."""
    return st.lists(st.tuples(st.sampled_from(chosen), st.integers(0, 20)), max_size=30)


def is_as_it_should_be(life: Life) -> None:
    """The world holds what the FlinkJob asks for, and the operator leaves it alone."""
    world = life.world
    spec, state = world.job["spec"], world.status.get("jobStatus", {}).get("state")
    made = world.reconcile()
    assert made.idle, made
    assert world.reconcile().idle, "a second look does something"
    if state == "FINISHED":
        assert world.condition("Finished") == "True JobFinished"
        wanted = (int(spec["job"]["state"] == "running"), 0)
    elif spec["job"]["state"] == "suspended":
        assert world.condition("Ready") == "False Suspended"
        wanted = (0, 0)
    else:
        wanted = (spec["jobManager"]["replicas"], spec["taskManager"]["replicas"])
        assert world.condition("Ready") == "True Running"
        assert world.condition("Protected").startswith("True" if wanted[0] > 1 else "False NoStandby")
        assert world.leader() == world.status["leader"]["pod"]
    assert (len(world.running(names.JOBMANAGER)), len(world.running(names.TASKMANAGER))) == wanted
    if state == "FINISHED":
        return  # the pods of a job that is over are not worth a handover
    pods = world.pods(names.JOBMANAGER) + world.pods(names.TASKMANAGER)
    assert {pod["spec"]["containers"][0]["image"] for pod in pods if pod["status"]["phase"] == "Running"} <= {
        "flinkjob:1"
    }


@settings(max_examples=100)
@given(actions(*ACTIONS))
def test_from_whatever_state_the_world_comes_to_what_is_wanted(happenings: list[Action]) -> None:
    life = Life()
    for action in happenings:
        life.happen(action)
    life.heal()
    life.check()
    is_as_it_should_be(life)


@settings(max_examples=60)
@given(actions(*ACTIONS), st.sampled_from(["Retain", "Delete"]))
def test_from_whatever_state_a_deleted_job_goes_and_leaves_nothing(happenings: list[Action], policy: str) -> None:
    life = Life(policy)
    for action in happenings:
        life.happen(action)
    life.no_stranger(0)
    life.heal_nodes(0)
    life.world.edit(flinkConfiguration={}, image="flinkjob:1")
    life.world.delete(life.world.job_key)
    life.world.settle(ticks=80)
    assert life.world.objects == {}


def contents(world: World) -> dict[ChildKey, Any]:
    """All there is, without the numbers that count writes."""
    bare = copy.deepcopy(world.objects)
    for manifest in bare.values():
        del manifest["metadata"]["resourceVersion"]
    return bare


def touched(made: Plan) -> set[ChildKey]:
    """The objects that a plan makes, changes or deletes, but for the FlinkJob."""
    made_or_changed = {children.key_of(each) for each in (*(apply.manifest for apply in made.applies), *made.creates)}
    return made_or_changed | {delete.key for delete in made.deletes}


@settings(max_examples=60)
@given(actions(*ACTIONS))
def test_a_plan_that_is_carried_out_twice_changes_nothing_the_second_time(happenings: list[Action]) -> None:
    life = Life()
    for action in happenings:
        life.happen(action)
    made = life.world.reconcile()
    before = contents(life.world)
    life.world.carry_out(made)
    assert contents(life.world) == before


@settings(max_examples=60)
@given(actions(*ACTIONS))
def test_what_a_plan_has_done_is_not_done_again_by_the_next_one(happenings: list[Action]) -> None:
    """The cluster does not move in between. A pod that was made or deleted is seen, and may be what the next step has waited
    for; where the first plan did neither, there is no next step."""
    life = Life()
    for action in happenings:
        life.happen(action)
    first = life.world.reconcile()
    second = life.world.plan()
    assert not touched(first) & touched(second)
    assert not any((second.issue_secrets, second.add_finalizer, second.remove_finalizer, second.applies))
    assert len(second.creates) <= len(first.deletes), "only what was deleted is made up for"
    if not first.creates and not first.deletes:
        assert second.idle, second


@settings(max_examples=100)
@given(actions(*ACTIONS))
def test_plans_come_to_an_end_though_the_cluster_does_not_move(happenings: list[Action]) -> None:
    life = Life()
    for action in happenings:
        life.happen(action)
    for _ in range(8):  # each pod that is deleted may leave room for the next step of a rollout
        life.world.reconcile()
    made = life.world.reconcile()
    assert made.idle, made
    life.world.settled = {}
    assert life.world.reconcile().idle, "an operator that starts anew does something"


@settings(max_examples=80)
@given(
    actions(
        "reconcile", "tick", "work", "kill_jobmanager", "kill_taskmanager", "handover", "image", "taskmanagers", "die"
    )
)
def test_a_job_with_a_standby_never_waits_for_the_lease_to_expire(happenings: list[Action]) -> None:
    life = Life()
    life.world.settle(ticks=4)
    for action in happenings:
        life.happen(action)
    life.world.settle(ticks=5)
    assert life.world.leader() in life.world.running(names.JOBMANAGER)


@settings(max_examples=80)
@given(
    actions(
        "tick", "work", "kill_taskmanager", "crash_taskmanager", "die", "taskmanagers", "lose_node", "evict", "forget"
    )
)
def test_there_are_never_more_taskmanagers_than_are_wanted(happenings: list[Action]) -> None:
    life = Life()
    most = 4
    for action in happenings:
        life.happen(action)
        counted = [
            pod
            for pod in life.world.pods(names.TASKMANAGER)
            if "deletionTimestamp" not in pod["metadata"]
            and pod.get("status", {}).get("phase") not in ("Failed", "Succeeded")
        ]
        assert len(counted) <= most


@pytest.mark.parametrize("ran", [1, 20])
def test_taskmanagers_that_die_at_once_are_replaced_more_and_more_slowly(ran: int) -> None:
    world = World(flinkjob())
    world.settle(ticks=4)
    created = []
    for _ in range(1200):
        made = world.reconcile()
        created += [world.now] * bool(made.creates)
        world.tick()
        for pod in world.running(names.TASKMANAGER):
            world.crash(pod, ran=ran)
    pauses = [round(later - earlier) for earlier, later in itertools.pairwise(created)]
    assert pauses == sorted(pauses)
    assert len(created) <= 9
    assert max(pauses) >= 200
    assert world.condition("Ready") == "False TaskManagersCrashing"
    assert "exit code 1" in world.status["conditions"][0]["message"]
    assert len(world.pods(names.TASKMANAGER)) <= 3, "one dead pod is kept for its log"
    world.edit(image="flinkjob:2")
    world.settle(ticks=20)
    assert world.condition("Ready") == "True Running", "a changed FlinkJob is tried at once"


def test_times_are_written_as_they_are_read() -> None:
    assert format_time(1_800_000_000) == "2027-01-15T08:00:00Z"
