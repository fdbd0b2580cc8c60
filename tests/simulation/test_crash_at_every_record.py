"""One job, run once, and then again for each record of its log: the leader dies right before that is durable, or right after.

The log is the real one, in its real format, with one operation to a block: so every operation is the last one that a
successor finds. The job has three vertices, splits, and a task that fails; its restart budget is just enough for that.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import pytest

from flinkjob.graph.states import ExecutionState, JobStatus
from flinkjob.graph.vertex import TaskId
from flinkjob.jobmaster.restart import FixedDelay

from . import mutations as bugs
from .cluster import Cluster
from .jobmanager import JobManager
from .journal import Pen
from .logstore import history
from .scheduler import Trap
from .setting import Setting

FAILING = TaskId(0, 1)
SEEDS = (4, 7, 11)
"""How long each step takes."""
SETTING = Setting(
    job="word_count",
    restarts="for ever",
    restart_all=False,
    reconcile_timeout=6000,
    slowness=6,
    jobmanagers=2,
    slots=(2, 2),
    wrong_clocks=False,
    operator=True,
)

BEFORE = {
    "before-the-sync-and-it-is-lost": ("written", 0.0),
    "before-the-sync-and-it-is-torn": ("written", 0.5),
    "before-the-sync-and-it-is-there": ("written", 1.0),
}
AFTER = {
    "before-the-fence-was-asked": ("synced", 1.0),
    "before-anybody-knows": ("checked", 1.0),
    "after-the-first-effect": ("released", 1.0),
}
MOMENTS = {**BEFORE, **AFTER}
"""Where the leader dies, and how much is left of what it has not synced."""


class Certain(Cluster):
    """A cluster in which nothing goes wrong but that one leader after the other dies, each after so many records."""

    def __init__(self, seed: int, moment: str = "", records: Sequence[int] = ()) -> None:
        super().__init__(seed, [], SETTING)
        self.options = replace(self.options, restart_strategy=FixedDelay(1, 300))
        self.doomed[FAILING] = 1
        self.killed = 0
        self._point, self._keep = MOMENTS.get(moment, ("", 1.0))
        self._records = list(records)
        self._set_trap()

    def jobmanager_died(self, jobmanager: JobManager, told_after: int) -> None:
        if jobmanager.term is not None:
            self.store.forget(jobmanager.term.epoch, self._keep)
        self.killed += 1
        self._set_trap()
        super().jobmanager_died(jobmanager, told_after)

    def _set_trap(self) -> None:
        """For whoever leads next; nobody else comes to these points."""
        records = self._records.pop(0) if self._records else None
        for jobmanager in self.jobmanagers.values():
            jobmanager.trap = None if records is None else Trap(self._point, records)

    def outcome(self) -> tuple[JobStatus, set[TaskId], list[list[int]], int]:
        """What has to be the same with and without kills: the end, who finished, in which attempt, restarts used up."""
        graph = self.graph
        finished = set(graph.tasks_in(ExecutionState.FINISHED))
        return graph.status, finished, [list(v.attempt) for v in graph.vertices], graph.restart_state.restarts


@pytest.fixture(autouse=True)
def _one_operation_to_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pen, "most", 1)


@cache
def undisturbed(seed: int) -> Certain:
    """The run that all others are compared with."""
    calm = Certain(seed)
    calm.run()
    assert calm.killed == 0
    everybody = {TaskId(v.index, n) for v in calm.job_graph.vertices for n in range(v.parallelism)}
    assert calm.outcome() == (JobStatus.FINISHED, everybody, [[0, 1], [0, 0], [0]], 1)
    return calm


def check(stormy: Certain) -> None:
    """The promises are the simulator's own; beside them, all is as in the undisturbed run, and each attempt began once."""
    stormy.run()
    assert stormy.outcome() == undisturbed(stormy.seed).outcome(), "\n".join(stormy.tell())
    assert set(stormy.starts.values()) == {1}
    assert {TaskId(attempt.vertex, attempt.subtask) for attempt in stormy.broken} == {FAILING}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_each_record_the_job_ends_as_undisturbed(seed: int, moment: str) -> None:
    records = len(history(undisturbed(seed).truth.node))
    assert records > 25
    kills = 0
    for position in range(records):
        stormy = Certain(seed, moment, [position])
        check(stormy)
        kills += stormy.killed
    # There are fewer effects than records; at every other moment there is a death for each record but the job's end.
    assert kills >= (records * 0.4 if moment == "after-the-first-effect" else records - 1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_twice_in_a_row_the_job_ends_as_undisturbed(seed: int, moment: str) -> None:
    records = len(history(undisturbed(seed).truth.node))
    twice = 0
    for position in range(records):
        for distance in (0, 1, 2, 3, 5, 8):
            stormy = Certain(seed, moment, [position, distance])
            check(stormy)
            twice += stormy.killed == 2
    assert twice > 2 * records


@pytest.mark.parametrize(
    "bug",
    [
        bugs.effects_are_released_before_they_are_durable,
        bugs.the_last_block_is_taken_for_torn,
        bugs.a_torn_end_is_damage,
        bugs.a_failover_renews_the_budget,
        bugs.a_running_task_is_a_conflict,
        bugs.a_deployment_that_never_arrived_is_continued,
        bugs.a_split_is_not_asked_for_again,
    ],
    ids=lambda bug: bug.__name__,
)
def test_a_bug_does_not_get_through(bug: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed(SEEDS[0])
    records = len(history(undisturbed(SEEDS[0]).truth.node))
    bug(monkeypatch)
    with pytest.raises(AssertionError):  # noqa: PT012 - which of them fails is not the point
        for moment in MOMENTS:
            for position in range(records):
                check(Certain(SEEDS[0], moment, [position]))
