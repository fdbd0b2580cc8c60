"""Whatever goes wrong around the operator, it does no harm to a healthy job, and in the end all is as it should be."""

from collections.abc import Callable

import pytest

from flinkjob.graph.states import JobStatus

from . import operatormutations as bugs
from . import operatorpromises as p
from . import promises
from .faults import Fault
from .kubernetes import Happened
from .operatedcluster import OperatedCluster
from .operatorfaults import FAULTS, plan
from .simulate import OPERATED, try_seed

BLOCKS = 6
SEEDS = 40
"""Of each block; the blocks can run side by side."""

LATE_TAKEOVER = (
    Fault(100, "two operators", 0.0, 0.0, 0),
    Fault(1900, "late watches", 0.0, 1.0, 8000),
    Fault(2000, "delete a TaskManager", 0.3, 0.9, 0),
)

Bug = Callable[[pytest.MonkeyPatch], None]

FOUND: dict[Bug, tuple[int, Callable[..., object]]] = {
    bugs.a_pod_that_is_on_its_way_out_counts_as_dead: (60, p.the_lease_is_taken_from_the_dead_alone),
    bugs.an_earlier_end_of_the_container_counts: (120, p.the_lease_is_taken_from_the_dead_alone),
    bugs.what_was_done_is_not_remembered: (60, p.no_more_taskmanagers_than_wanted),
    bugs.an_end_is_told_before_it_is_durable: (120, p.nothing_is_deleted_that_nobody_asked_for),
    bugs.a_taskmanager_that_is_not_ready_is_replaced: (60, p.nothing_is_deleted_that_nobody_asked_for),
    bugs.one_more_taskmanager_than_needed_is_deleted: (60, p.nothing_is_deleted_that_nobody_asked_for),
    bugs.the_last_state_told_is_told_for_ever: (60, p.the_status_is_true),
    bugs.the_job_is_taken_for_suspended: (5, promises.it_comes_to_an_end),
}
"""Within how many seeds each bug is found, and by which promise."""


@pytest.mark.parametrize("block", range(BLOCKS))
def test_every_promise_is_kept_whatever_goes_wrong_around_the_operator(block: int) -> None:
    for seed in range(block * SEEDS, (block + 1) * SEEDS):
        broken = try_seed(seed, world=OPERATED)
        assert broken is None, "\n".join([*broken.history, broken.name, str(broken)])


def test_without_faults_each_task_has_one_attempt_and_the_operator_deletes_no_healthy_pod() -> None:
    for seed in range(12):
        cluster = OperatedCluster(seed, [])
        assert cluster.run() is JobStatus.FINISHED
        if cluster.clocks_are_wrong:
            continue  # then two may lead in turn, and TaskManagers seem to be silent
        assert set(cluster.starts.values()) == {1}
        assert not any(attempt.attempt for attempt in cluster.starts)
        assert not any(done.startswith("deleted") for done in cluster.oversight.done)


def test_a_replica_that_takes_over_with_late_watches_makes_no_taskmanager_once_more() -> None:
    taken_over = 0
    for seed in (1, 4):
        cluster = OperatedCluster(seed, LATE_TAKEOVER)

        def dies_when_it_has_made_one(plural: str, happened: Happened, cluster: OperatedCluster = cluster) -> None:
            made = (
                plural == "pods" and happened.type == "ADDED" and "taskmanager" in happened.object["metadata"]["name"]
            )
            if made and cluster.scheduler.now > LATE_TAKEOVER[-1].at and not cluster.away:
                acting = next(operator for operator in cluster.operators.values() if operator.leads)
                cluster.away.add(acting.name)
                cluster.scheduler.at(cluster.scheduler.now, None, acting.die)

        cluster.api.listeners.append(dies_when_it_has_made_one)
        cluster.run()
        taken_over += len({operator.name for operator in cluster.operators.values()}) > 1
    assert taken_over == 2


def test_what_matters_does_happen() -> None:
    done = set[str]()
    for seed in range(60):
        cluster = OperatedCluster(seed, plan(seed))
        cluster.run()
        done |= cluster.oversight.done
    happened = {fault.kind for seed in range(BLOCKS * SEEDS) for fault in plan(seed)}
    assert done >= {"made a TaskManager", "freed the Lease", "deleted a taskmanager", "deleted a jobmanager"}
    assert happened >= FAULTS.keys()


def test_a_seed_gives_the_same_history_each_time() -> None:
    histories = []
    for _ in range(2):
        cluster = OperatedCluster(3, plan(3))
        cluster.run()
        histories.append(cluster.tell())
    assert histories[0] == histories[1]


@pytest.mark.parametrize("bug", FOUND, ids=lambda bug: bug.__name__)
def test_a_bug_of_the_operator_is_found(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)
    seeds, promise = FOUND[bug]
    broken = next(filter(None, (try_seed(seed, world=OPERATED) for seed in range(seeds))), None)
    assert broken is not None, "nobody has noticed"
    assert broken.name == promise.__name__, str(broken)
