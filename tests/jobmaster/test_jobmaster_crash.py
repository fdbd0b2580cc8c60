"""The leader is killed right after each operation became durable: the job ends as if nothing had happened."""

from collections.abc import Callable

import pytest

from flinkjob.graph.states import JobStatus
from flinkjob.graph.vertex import TaskId
from flinkjob.jobmaster.restart import FixedDelay

from .jobs import word_count
from .world import World, options

FAILING = TaskId(0, 1)


def world(*, full: bool = False) -> World:
    """Three vertices, splits, and a task that fails in its first attempt; the restart budget is just enough for it."""
    made = World(word_count(), options=options(FixedDelay(1, 1000), full=full), seed=1)
    made.doomed[FAILING] = 1
    return made


def outcome(world: World) -> tuple[JobStatus, list[bytes], list[list[int]]]:
    """What has to be the same with and without kills."""
    assert all(count == 1 for count in world.starts.values()), "each process was started once"
    vertices = world.graph.vertices
    return world.graph.status, [bytes(v.state) for v in vertices], [list(v.attempt) for v in vertices]


@pytest.fixture(scope="module", params=[False, True], ids=["region", "full"])
def full(request: pytest.FixtureRequest) -> bool:
    """Whether the failover strategy is ``full``."""
    return bool(request.param)


def undisturbed(full: bool) -> World:
    """The run that all others are compared with."""
    calm = world(full=full)
    calm.run_to(durable=10**9)
    calm.settle()
    assert calm.graph.status is JobStatus.FINISHED
    assert calm.epoch == 1
    return calm


def kill_before_effects(world: World) -> None:
    """The operation is durable, and nothing of what waited for it was done."""
    world.kill_leader()


def kill_after_effects(world: World) -> None:
    """What waited for the operation was sent, and arrives."""
    world.flush(0)
    world.kill_leader(heard=9)


def kill_with_more_on_disk(world: World) -> None:
    """More operations than the leader knew reached the disk."""
    world.kill_leader(survive=2)


KILLS = pytest.mark.parametrize("kill", [kill_before_effects, kill_after_effects, kill_with_more_on_disk])


@KILLS
def test_killed_after_each_operation_the_job_ends_as_undisturbed(full: bool, kill: Callable[[World], None]) -> None:
    calm = undisturbed(full)
    for position in range(1, len(calm.log) + 1):
        stormy = world(full=full)
        assert stormy.run_to(durable=position)
        kill(stormy)
        stormy.settle()
        assert stormy.epoch == 2
        assert outcome(stormy) == outcome(calm), position


@KILLS
def test_killed_twice_in_a_row_the_job_ends_as_undisturbed(full: bool, kill: Callable[[World], None]) -> None:
    calm = undisturbed(full)
    for position in range(1, len(calm.log) + 1, 2):
        for distance in (1, 2, 3, 5):
            stormy = world(full=full)
            assert stormy.run_to(durable=position)
            kill(stormy)
            if not stormy.run_to(durable=stormy.durable + distance):
                break  # the job is over, and a log of one more epoch is not long enough
            kill(stormy)
            stormy.settle()
            assert outcome(stormy) == outcome(calm), (position, distance)


def test_killed_after_each_operation_of_every_term_the_job_gets_on_all_the_same() -> None:
    calm = undisturbed(full=False)
    for distance in (4, 6, 9):
        stormy = world()
        for _ in range(200):
            if not stormy.run_to(durable=stormy.durable + distance):
                break
            stormy.kill_leader()
        stormy.settle()
        assert stormy.epoch > 4
        assert outcome(stormy) == outcome(calm)
