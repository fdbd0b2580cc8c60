"""Random worlds: whatever goes wrong in whatever order, the promises hold and the job ends as it should."""

import pytest

from flinkjob.graph.states import JobStatus

from . import faults
from .jobs import SHAPES
from .world import World, options

SEEDS_IN_A_BLOCK = 60


@pytest.mark.parametrize("block", range(8))
def test_a_job_finishes_with_the_right_result_whatever_goes_wrong(block: int) -> None:
    for seed in range(block * SEEDS_IN_A_BLOCK, (block + 1) * SEEDS_IN_A_BLOCK):
        world = World(SHAPES[seed % len(SHAPES)](), seed=seed)
        faults.storm(world, steps=150)
        assert world.settle() is JobStatus.FINISHED
