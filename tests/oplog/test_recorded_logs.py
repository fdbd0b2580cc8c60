"""Logs that earlier versions wrote: they must replay for ever.

``recorded/v<N>/<job>`` is a job's directory as a run left it. A new format gets a new folder; none is ever made again.
"""

import shutil
from pathlib import Path

import msgspec
import pytest

from flinkjob.api.errors import FlinkJobError
from flinkjob.graph.jobgraph import JobGraph
from flinkjob.graph.states import ExecutionState, JobStatus
from flinkjob.oplog import inspect
from flinkjob.oplog.replay import Replay
from flinkjob.oplog.storage import JobStorage

RECORDED = sorted(path for path in (Path(__file__).parent / "recorded").glob("v*/*") if path.is_dir())


def _job_graph(storage: JobStorage) -> JobGraph:
    return JobGraph.decode(storage.read_job_graph() or b"")


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda path: f"{path.parent.name}-{path.name}")
class TestARecordedLog:
    def test_is_intact(self, recorded: Path) -> None:
        report = inspect.verify(JobStorage(str(recorded)))
        assert (report.damage, report.replayable, report.torn_bytes) == ("", True, 0)

    def test_folds_into_the_result_that_was_recorded(self, recorded: Path) -> None:
        storage = JobStorage(str(recorded))
        graph = inspect.fold(storage, _job_graph(storage))
        result = msgspec.json.decode(storage.read_result() or b"")
        assert graph.status is JobStatus.FINISHED
        assert graph.accumulators() == result["accumulators"]
        assert graph.epoch == result["epoch"] == 2
        assert [vertex.counts[ExecutionState.FINISHED] for vertex in graph.vertices] == [
            vertex["finished"] for vertex in result["vertices"]
        ]

    def test_folds_into_the_same_graph_from_its_start_as_from_its_snapshot(self, recorded: Path) -> None:
        storage = JobStorage(str(recorded))
        whole = inspect.fold(storage, _job_graph(storage), until_lsn=0)
        for operations in Replay(storage.medium()):
            whole.apply_all(operations)
        assert whole.snapshot() == inspect.fold(storage, _job_graph(storage)).snapshot()


def test_no_byte_of_a_real_log_changed_or_cut_gives_another_graph_silently(tmp_path: Path) -> None:
    """What can still be replayed is the whole log; or, where the end of its last file is damaged, a shorter one."""
    shutil.copytree(RECORDED[0], tmp_path / "job")
    storage = JobStorage(str(tmp_path / "job"))
    job_graph = _job_graph(storage)
    whole = inspect.fold(storage, job_graph)
    once = {inspect.fold(storage, job_graph, until_lsn=lsn).snapshot() for lsn in range(1, whole.lsn + 1)}
    segments = sorted(tmp_path.glob("job/oplog/*.log"))
    refused = shorter = 0
    for path in [*segments, *tmp_path.glob("job/snapshots/*.snapshot")]:
        data = path.read_bytes()
        changes = [data[:offset] for offset in range(len(data))]
        changes += [data[:offset] + bytes([data[offset] ^ 0xFF]) + data[offset + 1 :] for offset in range(len(data))]
        for changed in changes:
            path.write_bytes(changed)
            try:
                found = inspect.fold(storage, job_graph).snapshot()
            except FlinkJobError:
                refused += 1
                continue
            if found != whole.snapshot():
                shorter += 1
                assert found in once
                assert path == segments[-1]
        path.write_bytes(data)
    assert min(refused, shorter) > 100


def test_there_are_recorded_logs_of_each_version_with_and_without_a_snapshot() -> None:
    assert [f"{path.parent.name}/{path.name}" for path in RECORDED] == ["v1/retry", "v1/tutorial"]
    assert list(RECORDED[0].glob("snapshots/*.snapshot"))
