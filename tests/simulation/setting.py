"""What a run begins with, beside its faults: drawn from the seed, or kept, in words that go on meaning the same."""

from random import Random

import msgspec

from flinkjob.graph.jobgraph import JobGraph
from flinkjob.jobmaster.restart import ExponentialDelay, FixedDelay, RestartStrategy
from jobmaster.jobs import SHAPES

_JOBS: dict[str, JobGraph] = {shape.__name__: shape() for shape in SHAPES}
_STRATEGIES: dict[str, RestartStrategy] = {
    "for ever": FixedDelay(attempts=1_000_000, delay=300),
    "backing off": ExponentialDelay(
        initial_backoff=100, max_backoff=2000, multiplier=2.0, reset_threshold=5000, jitter_factor=0.2, attempts=10**6
    ),
    "twice": FixedDelay(2, 200),
}


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster and its job.

    Attributes:
        job: the shape of its graph. restarts: the restart strategy. restart_all: the failover strategy is ``full``.
        reconcile_timeout: as in JobMasterOptions. slowness: the longest that a usual step takes; both in milliseconds.
        jobmanagers: how many there are. slots: those of each TaskManager.
        wrong_clocks: clocks run at rates that differ by more than the election allows.
        operator: somebody tells of the dead and empties their leases.
    """

    job: str
    restarts: str
    restart_all: bool
    reconcile_timeout: int
    slowness: int
    jobmanagers: int
    slots: tuple[int, ...]
    wrong_clocks: bool
    operator: bool

    @classmethod
    def drawn(cls, random: Random) -> "Setting":
        """Any setting."""
        return cls(
            job=random.choice(tuple(_JOBS)),
            restarts=random.choice(("for ever", "for ever", "backing off", "twice")),
            restart_all=random.random() < 0.2,
            reconcile_timeout=random.choice((3000, 6000)),
            slowness=random.choice((3, 6, 6, 20)),
            jobmanagers=random.choice((2, 2, 3)),
            slots=tuple(random.choice((1, 2, 2)) for _ in range(random.choice((1, 2, 2, 3)))),
            wrong_clocks=random.random() < 0.1,
            operator=random.random() < 0.8,
        )

    @property
    def job_graph(self) -> JobGraph:
        """The job."""
        return _JOBS[self.job]

    @property
    def strategy(self) -> RestartStrategy:
        """The restart strategy."""
        return _STRATEGIES[self.restarts]

    @property
    def may_fail(self) -> bool:
        """Whether there are more failures than the restart strategy allows for."""
        return self.restarts == "twice"
