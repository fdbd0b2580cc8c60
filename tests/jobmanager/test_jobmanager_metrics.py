"""Metrics are read off the live state when somebody asks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.operations import EpochStarted, RestartedTask
from flinkjob.graph.states import ExecutionState
from flinkjob.jobmanager.metrics import jobmanager_registry
from flinkjob.jobmanager.rest_values import ConnectedTaskManager
from flinkjob.jobmanager.surroundings import Leading
from flinkjob.jobmaster.reconciliation import REASON_CLASSES, reason_class
from flinkjob.oplog.log import OperationLog
from flinkjob.oplog.storage import JobStorage
from flinkjob.oplog.writer import LogWriter

from .conftest import T


@dataclass
class Manager:
    """A JobManager of which only the metrics are asked for."""

    term: Leading | None = None
    trouble: str = ""
    taskmanagers: Mapping[str, ConnectedTaskManager] = field(default_factory=dict)

    def leading(self) -> Leading | None:
        return self.term

    def connected(self) -> Mapping[str, ConnectedTaskManager]:
        return self.taskmanagers

    def problem(self) -> str:
        return self.trouble


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"flinkjob_jobmanager_{name}", labels)


def term(graph: ExecutionGraph | None, writer: LogWriter | None = None) -> Leading:
    return Leading(lambda: True, T, graph, writer, "")


def test_a_standby_tells_that_it_does_not_lead_and_nothing_of_the_job() -> None:
    registry = jobmanager_registry(Manager())
    assert value(registry, "leader") == 0
    assert value(registry, "epoch") is None
    assert value(registry, "waits_for_person") == 0


def test_a_leader_tells_of_the_job_and_its_latest_failover(graph: ExecutionGraph) -> None:
    connected = {"tm-1": ConnectedTaskManager(last_heartbeat=T, free_slots=1)}
    registry = jobmanager_registry(Manager(term(graph), taskmanagers=connected))
    assert value(registry, "leader") == 1
    assert value(registry, "epoch") == 2
    assert value(registry, "failovers_total") == 1
    assert value(registry, "failover_gap_seconds") == 0.19
    assert value(registry, "failover_replay_seconds") == 0.0015
    assert value(registry, "failover_reconcile_seconds") == 0.08
    assert tasks(registry, "continued") == 1
    assert tasks(registry, "orphaned") == 0
    assert tasks(registry, "restarted", "other") == 1
    assert value(registry, "tasks", vertex="read", state="RUNNING") == 2
    assert value(registry, "job_state", state="RUNNING") == 1
    assert value(registry, "job_state", state="FAILED") == 0
    assert value(registry, "task_restarts_total") == 1
    assert value(registry, "job_start_timestamp_seconds") == T / 1000
    assert value(registry, "taskmanagers") == 1
    assert (value(registry, "slots", state="free"), value(registry, "slots", state="used")) == (1, 1)
    assert value(registry, "log_writable") is None


def tasks(registry: CollectorRegistry, verdict: str, reason: str = "") -> float | None:
    return value(registry, "failover_tasks_total", verdict=verdict, reason=reason)


def test_verdicts_are_counted_by_reason_over_all_failovers_to_a_jobmanager(graph: ExecutionGraph) -> None:
    manager = Manager()
    registry = jobmanager_registry(manager)
    assert tasks(registry, "continued") == tasks(registry, "restarted", "TaskManager lost") == 0, "before it leads"
    manager.term = term(graph)
    assert tasks(registry, "continued") == tasks(registry, "continued") == 1, "a second look counts nothing anew"
    first = graph.failovers[-1]
    again = (
        RestartedTask(0, 0, "TaskManager tm-1 is lost: its pod is gone"),
        RestartedTask(0, 1, "what it read runs again"),
    )
    for operation in (
        EpochStarted(3, "jobmanager-0", T + 60_000),
        replace(first, epoch=3, verdicts={"continued": 4, "restarted": 1}, restarted=again),
    ):
        graph.apply(operation)
    assert (tasks(registry, "continued"), tasks(registry, "restarted", "other")) == (5, 1)
    assert tasks(registry, "restarted", "TaskManager lost") == tasks(registry, "restarted", "input runs again") == 1
    graph.apply(EpochStarted(4, "jobmanager-1", T + 70_000))
    assert tasks(registry, "continued") == 5, "this failover has no verdicts yet"


def test_the_reasons_that_are_counted_are_few() -> None:
    told = {
        "TaskManager tm-1 no longer has it": "not reported",
        "TaskManager tm-1 is lost: silent for 9 s": "TaskManager lost",
        "its result partition is missing or damaged": "partition lost",
        "it failed by itself": "failed",
        "what it read runs again": "input runs again",
        "of a later version": "other",
    }
    assert {reason: reason_class(reason) for reason in told} == told
    assert set(told.values()) == set(REASON_CLASSES)


def test_the_gap_begins_with_the_last_sign_of_life_of_the_old_leader(graph: ExecutionGraph) -> None:
    latest = graph.failovers[-1]
    assert latest.gap_ms == latest.decided_at - latest.started_at, "where none is known"
    assert replace(latest, silent_since=latest.started_at - 2000).gap_ms == latest.gap_ms + 2000
    assert replace(latest, silent_since=latest.started_at + 9000).gap_ms == latest.gap_ms, "its clock was fast"


def test_the_values_are_those_of_the_moment(graph: ExecutionGraph) -> None:
    manager = Manager(term(graph))
    registry = jobmanager_registry(manager)
    graph.vertices[0].counts[ExecutionState.RUNNING] = 7
    assert value(registry, "tasks", vertex="read", state="RUNNING") == 7
    manager.term, manager.trouble = None, "damaged"
    assert (value(registry, "leader"), value(registry, "waits_for_person")) == (0, 1)
    assert value(registry, "tasks", vertex="read", state="RUNNING") is None


async def test_the_log_is_counted_by_its_writer(graph: ExecutionGraph, tmp_path: Path) -> None:
    log = OperationLog.open(JobStorage(str(tmp_path / "job")), "me")
    assert list(log.replay()) == []
    writer = log.writer(on_durable=lambda lsn: None, on_failed=lambda error: None)
    registry = jobmanager_registry(Manager(term(graph, writer)))
    assert value(registry, "log_append_seconds_count") == 0
    for operation in graph.failovers:
        await writer.wait_durable(writer.append([operation, operation]))
    assert value(registry, "log_operations_total") == 2
    assert value(registry, "log_append_seconds_count") == 1
    assert value(registry, "log_append_seconds_bucket", le="+Inf") == 1
    assert (value(registry, "log_append_seconds_sum") or 0) > 0
    segment = next((tmp_path / "job" / "oplog").glob("*.log"))
    assert value(registry, "log_bytes_total") == segment.stat().st_size
    assert (value(registry, "log_lag_seconds"), value(registry, "log_lag_operations")) == (0, 0)
    assert value(registry, "log_writable") == 1
    writer.append(graph.failovers)
    assert value(registry, "log_lag_operations") == 1
    assert (value(registry, "log_lag_seconds") or 0) > 0
    await writer.close()


async def test_everything_is_told_in_the_text_that_prometheus_reads(graph: ExecutionGraph) -> None:
    from prometheus_client import generate_latest

    text = generate_latest(jobmanager_registry(Manager(term(graph)))).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    ours = {name for name in families if name.startswith("flinkjob_")}
    assert "flinkjob_jobmanager_tasks" in ours
    assert "process_resident_memory_bytes" in families
    assert all(families[name].documentation for name in ours)
