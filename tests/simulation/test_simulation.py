"""Whatever goes wrong in a whole cluster, in whatever order, the promises hold and the job ends as it should."""

import subprocess
import sys
from pathlib import Path

import pytest

from flinkjob.graph.states import JobStatus
from flinkjob.jobmanager.effects import EffectQueue

from . import mutations, simulate
from .cluster import Cluster
from .faults import plan
from .simulate import kept, shrink, try_seed

BLOCKS = 12
SEEDS = 250
"""Of each block; the blocks can run side by side."""


@pytest.mark.parametrize("block", range(BLOCKS))
def test_every_promise_is_kept_whatever_goes_wrong(block: int) -> None:
    for seed in range(block * SEEDS, (block + 1) * SEEDS):
        broken = try_seed(seed)
        assert broken is None, "\n".join([*broken.history, str(broken)])


def test_a_seed_that_has_failed_once_does_not_fail_again() -> None:
    for seed, faults in kept():
        broken = try_seed(seed, faults)
        assert broken is None, "\n".join([*broken.history, str(broken)])


def test_without_faults_each_task_has_one_attempt() -> None:
    for seed in range(100):
        cluster = Cluster(seed, [])
        if cluster.clocks_are_wrong:
            continue  # then two may lead in turn, and TaskManagers seem to be silent
        assert cluster.run() is JobStatus.FINISHED
        assert set(cluster.starts.values()) == {1}
        assert not any(attempt.attempt for attempt in cluster.starts)


def test_the_faults_that_matter_do_happen() -> None:
    epochs, failovers, verdicts = [], 0, set[str]()
    for seed in range(200):
        cluster = Cluster(seed, plan(seed))
        cluster.run()
        epochs.append(cluster.graph.epoch)
        failovers += cluster.graph.failover_count
        for failover in cluster.graph.failovers:
            verdicts.update(failover.verdicts)
    assert sum(epoch > 1 for epoch in epochs) > 60
    assert max(epochs) > 4
    assert failovers > 60
    assert {"continued", "advanced", "redeployed", "restarted"} <= verdicts


def test_a_seed_gives_the_same_history_in_every_process() -> None:
    program = "from simulation import cluster, faults; c = cluster.Cluster(7, faults.plan(7)); c.run(); print(c.tell())"
    histories = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONPATH": str(Path(__file__).parent.parent), "PYTHONHASHSEED": number},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for number in ("1", "2")
    }
    assert len(histories) == 1
    assert len(histories.pop()) > 1000


def test_a_broken_promise_is_told_with_its_history_shrunk_and_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(simulate, "KEPT", tmp_path / "seeds.txt")
    simulate.KEPT.write_text("# none yet\n", encoding="utf-8")
    mutations.partitions_are_not_verified(monkeypatch)
    seed = next(seed for seed in range(500) if try_seed(seed) is not None)
    assert simulate.report(seed)
    shown = capsys.readouterr().out
    assert "was lost before the failover" in shown
    assert "lose a partition" in shown
    ((found, faults),) = kept()
    assert found == seed
    assert 0 < len(faults) < len(plan(seed))
    assert try_seed(seed, faults) is not None


def test_a_bug_that_needs_no_fault_is_shrunk_to_none(monkeypatch: pytest.MonkeyPatch) -> None:
    release = EffectQueue.release
    monkeypatch.setattr(EffectQueue, "release", lambda self, durable_lsn: release(self, 1 << 60))
    broken = try_seed(0)
    assert broken is not None
    needed, broken = shrink(0, broken)
    assert needed == []
    assert "FAULT" not in "".join(broken.history)
