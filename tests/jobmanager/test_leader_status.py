"""The leader's part of the status, and the Events, as functions of the live state."""

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pytest

from flinkjob.api.status import LEADER_FIELDS
from flinkjob.graph import operations as ops
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.states import JobStatus
from flinkjob.jobmanager.eventing import NewsReader
from flinkjob.jobmanager.status import leader_status
from flinkjob.jobmanager.surroundings import Leading, keep_doing

from .conftest import T


@dataclass
class Writer:
    """What is looked at of a LogWriter."""

    degraded: str | None = None
    failure: Exception | None = None
    lag_seconds: float = 0.0
    lag: int = 0


def leading(
    graph: ExecutionGraph | None, writer: Writer | None = None, *, since: int = T, problem: str = ""
) -> Leading:
    return Leading(lambda: True, since, graph, writer, problem)  # type: ignore[arg-type]  # as much of a writer as it takes


def status(graph: ExecutionGraph, writer: Writer | None = None) -> Any:
    told = leader_status(leading(graph, writer))
    assert told is not None
    return msgspec.json.decode(msgspec.json.encode(told))


def test_the_status_tells_of_the_job_its_leader_and_its_tasks(graph: ExecutionGraph) -> None:
    told = status(graph, Writer())
    assert set(told) == LEADER_FIELDS - {"trouble", "runningTasks"}
    assert told["leader"] == {"pod": "jobmanager-1", "epoch": 2, "since": "2025-11-24T16:00:00.000Z"}
    assert (told["reconciling"], told["failovers"]) == (False, 1)
    job = told["jobStatus"]
    assert (job["jobId"], job["state"]) == ("0123456789abcdef" * 2, "RUNNING")
    assert job["startTime"] == "2025-11-24T16:00:00.000Z"
    assert "endTime" not in job
    assert job["tasks"] == {
        "total": 6, "created": 3, "deploying": 0, "running": 2, "finished": 1, "canceling": 0, "canceled": 0, "failed": 0,
    }  # fmt: skip
    assert [(v["name"], v["parallelism"], v["tasks"]["total"]) for v in job["vertices"]] == [
        ("read", 3, 3), ("count", 2, 2), ("report", 1, 1),
    ]  # fmt: skip


def test_the_history_tells_what_each_failover_came_to(graph: ExecutionGraph) -> None:
    assert status(graph)["failoverHistory"] == [
        {
            "epoch": 2,
            "leader": "jobmanager-1",
            "cause": "jobmanager-0 was lost",
            "detectedAt": "2025-11-24T16:00:19.900Z",
            "replayMs": 1.5,
            "reconcileMs": 80.0,
            "gapMs": 190.0,
            "replayedOperations": 18,
            "verdicts": {
                "continued": 1,
                "advanced": 0,
                "redeployed": 0,
                "restarted": 1,
                "orphaned": 0,
                "cancelled": 0,
                "ended": 0,
            },
            "restarted": [{"task": "count[1]", "reason": "not reported"}],
        }
    ]


def test_a_failover_names_twenty_restarted_tasks_at_most(graph: ExecutionGraph) -> None:
    many = tuple(ops.RestartedTask(0, 0, f"reason {number}") for number in range(30))
    graph.failovers = [msgspec.structs.replace(graph.failovers[0], restarted=many)]
    assert len(status(graph)["failoverHistory"][0]["restarted"]) == 20


def test_the_end_of_a_failed_job_tells_when_and_why(graph: ExecutionGraph) -> None:
    graph.apply(ops.JobStatusChanged(JobStatus.FAILING, T + 30_000, "too bad"))
    graph.apply(ops.JobStatusChanged(JobStatus.FAILED, T + 31_000, "too bad"))
    job = status(graph)["jobStatus"]
    assert (job["state"], job["endTime"], job["error"]) == ("FAILED", "2025-11-24T16:00:31.000Z", "too bad")


@pytest.mark.parametrize(
    ("before", "end"),
    [
        (JobStatus.RUNNING, JobStatus.FINISHED),
        (JobStatus.CANCELLING, JobStatus.CANCELED),
        (JobStatus.FAILING, JobStatus.FAILED),
    ],
)
def test_the_end_is_told_when_no_failover_can_take_it_back(
    graph: ExecutionGraph, before: JobStatus, end: JobStatus
) -> None:
    if before is not graph.status:
        graph.apply(ops.JobStatusChanged(before, T + 30_000, ""))
    graph.apply(ops.JobStatusChanged(end, T + 31_000, ""))
    job = status(graph, Writer(lag=1))["jobStatus"]
    assert (job["state"], "endTime" in job) == (before.name, False)
    assert status(graph, Writer())["jobStatus"]["state"] == end.name
    assert status(graph)["jobStatus"]["state"] == end.name  # without a log nothing is ever taken back


@pytest.mark.parametrize(
    ("writer", "told"),
    [
        (Writer(), {"writable": True, "lagMs": 0.0}),
        (Writer(lag_seconds=0.9), {"writable": True, "lagMs": 0.0}),
        (Writer(lag_seconds=2.7), {"writable": True, "lagMs": 2000.0}),
        (Writer(degraded="disk full"), {"writable": False, "lagMs": 0.0, "problem": "disk full"}),
        (Writer(failure=OSError("gone")), {"writable": False, "lagMs": 0.0, "problem": "gone"}),
    ],
)
def test_the_log_tells_how_it_fares_and_a_small_lag_is_none(
    graph: ExecutionGraph, writer: Writer, told: dict[str, object]
) -> None:
    assert status(graph, writer)["log"] == told


def test_without_a_log_nothing_is_told_of_one(graph: ExecutionGraph) -> None:
    assert "log" not in status(graph)


def test_one_who_has_not_replayed_says_nothing() -> None:
    assert leader_status(leading(None)) is None


# Events


def reasons(reader: NewsReader, state: Leading) -> list[str]:
    return [news.reason for news in reader.read(state)]


def test_a_new_leader_is_told_once_with_its_failover(graph: ExecutionGraph) -> None:
    reader = NewsReader()
    news = list(reader.read(leading(graph, since=T + 19_000)))
    assert [item.reason for item in news] == ["LeaderElected", "Replayed", "Reconciled", "TaskRestarted"]
    assert news[0].note == "jobmanager-1 leads the job, epoch 2."
    assert "18 operations" in news[1].note
    assert "1 continued" in news[2].note
    assert news[3].note == "count[1] could not be continued: not reported"
    assert reasons(reader, leading(graph, since=T + 19_000)) == []


def test_failures_of_the_term_are_told_once_and_older_ones_not_at_all(graph: ExecutionGraph) -> None:
    reader, state = NewsReader(), leading(graph, since=T + 19_000)
    list(reader.read(state))
    graph.apply(ops.TaskFailed(0, 1, 1, T + 40_000, "ValueError: again"))
    [news] = reader.read(state)
    assert (news.reason, news.type) == ("TaskRestarted", "Warning")
    assert news.note == "read[1], attempt 1 on tm-1, failed: ValueError: again"
    assert reasons(reader, state) == []
    graph.apply(ops.TaskFailed(0, 2, 0, T + 41_000, "other"))
    assert reasons(reader, state) == ["TaskRestarted"]


def test_a_burst_of_failures_becomes_a_few_events(graph: ExecutionGraph) -> None:
    reader, state = NewsReader(), leading(graph, since=T + 19_000)
    list(reader.read(state))
    for number in range(9):
        entry = replace_entry(graph, number)
        graph.exceptions = [*graph.exceptions, entry]
    news = list(reader.read(state))
    assert len(news) == 6
    assert news[-1].note == "4 more tasks failed."


def replace_entry(graph: ExecutionGraph, number: int) -> Any:
    return msgspec.structs.replace(graph.exceptions[0], attempt=number, at=T + 50_000 + number)


def test_a_failure_that_ends_the_job_is_no_restart(graph: ExecutionGraph) -> None:
    reader, state = NewsReader(), leading(graph, since=T + 19_000)
    list(reader.read(state))
    graph.apply(ops.TaskFailed(0, 1, 1, T + 40_000, "for good"))
    graph.apply(ops.JobStatusChanged(JobStatus.FAILING, T + 40_000, "no further restart"))
    assert reasons(reader, state) == ["TaskFailed"]


def test_a_log_that_cannot_be_written_is_told_and_so_is_its_recovery(graph: ExecutionGraph) -> None:
    reader, writer = NewsReader(), Writer()
    state = leading(graph, writer, since=T + 19_000)
    list(reader.read(state))
    writer.degraded = "disk full"
    assert reasons(reader, state) == ["LogDegraded"]
    writer.degraded = "disk still full"
    assert reasons(reader, state) == []
    writer.degraded = None
    assert reasons(reader, state) == ["LogRecovered"]


def test_a_job_that_waits_for_a_person_says_so_once() -> None:
    reader, state = NewsReader(), leading(None, problem="the log is damaged")
    [news] = reader.read(state)
    assert (news.reason, news.type) == ("JobWaits", "Warning")
    assert "the log is damaged" in news.note
    assert reasons(reader, replace(state)) == []


# Beside the terms


async def test_what_breaks_down_beside_a_term_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flinkjob.jobmanager.surroundings.PAUSE_AFTER_BREAKDOWN", 0.0)
    tries = 0

    async def work() -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise ValueError("oh")

    async with asyncio.timeout(10):
        await keep_doing("the work", work)
    assert tries == 3
