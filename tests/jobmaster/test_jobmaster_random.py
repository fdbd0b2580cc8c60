"""Random worlds: whatever goes wrong in whatever order, the promises hold and the job ends as it should.

A seed that breaks a promise is told with the history that led there, and ``World(…, seed=…)`` runs it again.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flinkjob.api.job import Partitioner
from flinkjob.graph.states import JobStatus
from flinkjob.jobmaster.restart import ExponentialDelay, FixedDelay

from . import faults
from .jobs import BROADCAST, FORWARD, HASH, REBALANCE, SHAPES, job, vertex
from .world import World, options

EXPONENTIAL = ExponentialDelay(
    initial_backoff=100, max_backoff=5000, multiplier=2.0, reset_threshold=10_000, jitter_factor=0.2, attempts=10**6
)
BLOCKS = pytest.mark.parametrize("block", range(4))


def seeds(block: int, count: int) -> range:
    """A block of seeds of its own."""
    return range(block * count, (block + 1) * count)


@BLOCKS
def test_a_job_finishes_with_the_right_result_whatever_goes_wrong(block: int) -> None:
    for seed in seeds(block, 150):
        world = World(SHAPES[seed % len(SHAPES)](), seed=seed)
        faults.storm(world, steps=150)
        assert world.settle() is JobStatus.FINISHED


def test_a_job_that_restarts_in_full_finishes_whatever_goes_wrong() -> None:
    for seed in seeds(1, 150):
        world = World(SHAPES[seed % len(SHAPES)](), seed=seed, options=options(EXPONENTIAL, full=True))
        faults.storm(world, steps=150)
        assert world.settle() is JobStatus.FINISHED


@BLOCKS
def test_killed_leaders_and_broken_connections_alone_restart_nothing(block: int) -> None:
    for seed in seeds(block, 40):
        world = World(SHAPES[seed % len(SHAPES)](), seed=seed)
        faults.storm(world, steps=300, faults=(faults.kill_leader, faults.break_connection), rate=0.15)
        assert world.settle() is JobStatus.FINISHED
        assert all(count == 1 for count in world.starts.values())
        assert not any(attempt.attempt for attempt in world.starts), "each task had one attempt"


def test_a_job_that_is_cancelled_at_any_time_is_over_soon() -> None:
    ends = set()
    for seed in seeds(2, 200):
        world = World(SHAPES[seed % len(SHAPES)](), seed=seed)
        faults.storm(world, steps=seed % 90)
        faults.storm(world, steps=60, faults=(*faults.ALL, faults.cancel, faults.cancel, faults.cancel))
        ends.add(world.settle())
    assert ends == {JobStatus.FINISHED, JobStatus.CANCELED}


def test_a_small_budget_is_kept_and_the_job_ends_this_way_or_the_other() -> None:
    ends = set()
    for seed in seeds(3, 150):
        world = World(SHAPES[seed % len(SHAPES)](), seed=seed, options=options(FixedDelay(2, 1000)))
        faults.storm(world, steps=120)
        ends.add(world.settle())
    assert ends == {JobStatus.FINISHED, JobStatus.FAILED}


@settings(max_examples=100)
@given(
    sizes=st.tuples(*[st.integers(1, 4)] * 4),
    edges=st.tuples(*[st.sampled_from([HASH, REBALANCE, BROADCAST, FORWARD])] * 4),
    slots=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    full=st.booleans(),
    rate=st.sampled_from([0.02, 0.1, 0.3]),
    seed=st.integers(0, 2**32),
)
def test_jobs_of_any_shape_on_any_taskmanagers_finish(
    sizes: tuple[int, ...], edges: tuple[Partitioner, ...], slots: list[int], full: bool, rate: float, seed: int
) -> None:
    names = ("a", "b", "c", "d")
    vertices = [vertex("a", sizes[0], splits=bool(seed % 2)), vertex("b", sizes[1])]
    for number, sources in ((2, (0, 1)), (3, (2, 0))):
        reads: dict[str, Partitioner] = {}
        for source in sources:
            wanted = edges[number - 2 + source]
            possible = wanted is not FORWARD or sizes[source] == sizes[number]
            reads[names[source]] = wanted if possible else HASH
        vertices.append(vertex(names[number], sizes[number], reads=reads))
    taskmanagers = [(f"tm-{number}", count) for number, count in enumerate(slots)]
    world = World(job(*vertices), taskmanagers=taskmanagers, options=options(full=full), seed=seed)
    faults.storm(world, steps=200, rate=rate)
    assert world.settle() is JobStatus.FINISHED


def test_a_broken_promise_is_told_with_its_history() -> None:
    world = World(SHAPES[0](), seed=7)
    world.run_to(durable=12)
    attempt = next(iter(world.taskmanagers["tm-0"].attempts))
    world.taskmanagers["tm-1"].attempts[attempt] = world.taskmanagers["tm-0"].attempts[attempt]
    with pytest.raises(AssertionError, match=r"(?s)runs twice.*seed 7.*start_leader.*flush_one"):
        world.act((world.flush, (0,)))
