"""What the numbers and states in the answers mean."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flinkjob.api.options import OPTIONS, Configuration
from flinkjob.graph import operations as ops
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.jobgraph import JobGraph
from flinkjob.graph.states import ExecutionState, JobStatus
from flinkjob.jobmanager import rest_model as model
from flinkjob.jobmanager import rest_tasks as tasks
from flinkjob.jobmanager.rest import RestBackend
from flinkjob.jobmanager.rest_failovers import failovers
from flinkjob.jobmanager.rest_values import HIDDEN, aggregate_state, hide_secrets, state_counts

T = 1_764_000_000_000
NOW = T + 60_000


@pytest.fixture
def backend(make_backend: Callable[..., RestBackend]) -> RestBackend:
    return make_backend()


@pytest.fixture
def details(graph: ExecutionGraph, backend: RestBackend) -> dict[str, Any]:
    return model.job_details(graph, backend.progress(), NOW)


def test_a_job_counts_its_tasks_by_state(graph: ExecutionGraph) -> None:
    job = model.jobs_overview(graph, NOW)["jobs"][0]
    counted = {state: count for state, count in job["tasks"].items() if count}
    assert counted == {"total": 6, "created": 3, "running": 2, "finished": 1}
    assert (job["start-time"], job["end-time"], job["duration"]) == (T, -1, 60_000)
    assert job["last-modification"] == T + 20_100


def test_the_overview_of_jobs_never_looks_at_subtasks(graph: ExecutionGraph) -> None:
    expected = model.jobs_overview(graph, NOW)
    for vertex in graph.vertices:
        for column in ("state", "attempt", "taskmanager", "since", "deployed_at", "size", "records", "checksum"):
            delattr(vertex, column)
    assert model.jobs_overview(graph, NOW) == expected


@pytest.mark.parametrize(
    ("path", "application"),
    [
        ([], "RUNNING"),
        ([JobStatus.RECONCILING], "RUNNING"),
        ([JobStatus.CANCELLING], "CANCELING"),
        ([JobStatus.CANCELLING, JobStatus.CANCELED], "CANCELED"),
        ([JobStatus.FAILING], "FAILING"),
        ([JobStatus.FAILING, JobStatus.FAILED], "FAILED"),
        ([JobStatus.FINISHED], "FINISHED"),
    ],
)
def test_the_jobs_status_is_told_everywhere(graph: ExecutionGraph, path: list[JobStatus], application: str) -> None:
    for step, status in enumerate(path):
        graph.apply(ops.JobStatusChanged(status, T + 30_000 + step, "RuntimeError: enough"))
    status, at = graph.status, graph.status_times[graph.status]
    assert model.job_ids(graph)["jobs"][0]["status"] == status.name
    assert model.job_status(graph) == {"status": status.name}
    details = model.job_details(graph, {}, NOW)
    assert (details["state"], details["timestamps"][status.name]) == (status.name, at)
    assert details["timestamps"]["INITIALIZING"] == T
    assert details["end-time"] == (at if status.terminal else -1)
    assert details["duration"] == (at if status.terminal else NOW) - T
    overview = model.applications_overview(graph, NOW)["applications"][0]
    assert (overview["status"], overview["jobs"]) == (application, {status.name: 1})
    told = model.application_details(graph, NOW)
    assert (told["status"], told["end-time"]) == (application, details["end-time"])
    assert told["timestamps"][application] == (T + 20_100 if status is JobStatus.RECONCILING else at)


@pytest.mark.parametrize(
    ("end", "counted"),
    [
        (None, "jobs-running"),
        (JobStatus.FINISHED, "jobs-finished"),
        (JobStatus.CANCELED, "jobs-cancelled"),
        (JobStatus.FAILED, "jobs-failed"),
    ],
)
def test_the_overview_counts_the_job_once(
    graph: ExecutionGraph, backend: RestBackend, end: JobStatus | None, counted: str
) -> None:
    before = {JobStatus.CANCELED: JobStatus.CANCELLING, JobStatus.FAILED: JobStatus.FAILING}
    if end in before:
        graph.apply(ops.JobStatusChanged(before[end], T + 30_000))
    if end is not None:
        graph.apply(ops.JobStatusChanged(end, T + 30_000))
    overview = model.cluster_overview(graph, backend.connected(), slots=4, version="1")
    jobs = {key: count for key, count in overview.items() if key.startswith("jobs-") and count}
    assert jobs == {counted: 1}
    assert (overview["taskmanagers"], overview["slots-total"], overview["slots-available"]) == (2, 4, 2)


def test_a_vertex_tells_when_it_began_and_what_it_wrote(details: dict[str, Any]) -> None:
    read, count, _ = details["vertices"]
    assert (read["status"], read["start-time"], read["end-time"], read["duration"]) == ("RUNNING", T + 100, -1, 59_900)
    # 1,000 bytes finished and 2,000 in progress; the third subtask has said nothing yet.
    assert (read["metrics"]["write-bytes"], read["metrics"]["write-records"]) == (3_000, 30)
    assert not read["metrics"]["write-bytes-complete"]
    assert (count["status"], count["start-time"], count["duration"]) == ("CREATED", -1, -1)
    assert details["status-counts"] == state_counts([2, 0, 1, 0, 0, 0, 0])


def test_a_vertex_that_has_ended_tells_when(graph: ExecutionGraph) -> None:
    for subtask, attempt in ((1, 1), (2, 0)):
        partition = ops.ResultPartition(500, 5, 1)
        graph.apply(ops.TaskFinished(0, subtask, attempt, T + 40_000 + subtask, partition))
    read = model.job_details(graph, {}, NOW)["vertices"][0]
    assert (read["status"], read["end-time"], read["duration"]) == ("FINISHED", T + 40_002, 39_902)
    assert (read["metrics"]["write-bytes"], read["metrics"]["write-bytes-complete"]) == (2_000, True)


def test_a_vertex_begins_with_its_first_deployment(graph: ExecutionGraph) -> None:
    graph.apply(ops.TaskDeploying(1, 1, 0, 1, T + 50_000))
    count = model.job_details(graph, {}, NOW)["vertices"][1]
    assert (count["status"], count["start-time"], count["duration"]) == ("CREATED", T + 50_000, 10_000)


def test_no_duration_is_negative_when_the_next_leaders_clock_is_behind(graph: ExecutionGraph) -> None:
    assert model.jobs_overview(graph, T - 5_000)["jobs"][0]["duration"] == 0


def test_read_is_nothing_for_a_source_and_not_known_for_others(details: dict[str, Any]) -> None:
    known = [vertex["metrics"]["read-bytes-complete"] for vertex in details["vertices"]]
    assert known == [True, False, False]


def test_the_plan_names_the_inputs_of_each_vertex(graph: ExecutionGraph, details: dict[str, Any]) -> None:
    plan = model.job_plan(graph)["plan"]
    assert plan == details["plan"]
    read, count, report = plan["nodes"]
    assert "inputs" not in read
    assert [(i["num"], i["id"], i["ship_strategy"], i["exchange"]) for i in report["inputs"]] == [
        (0, count["id"], "REBALANCE", "blocking"),
        (1, read["id"], "BROADCAST", "blocking"),
    ]


def test_a_name_is_no_html_where_flinks_page_takes_html(graph: ExecutionGraph) -> None:
    vertex = msgspec.structs.replace(graph.job_graph.vertices[0], name="<img src=x onerror=alert(1)>", outputs=())
    node = model.job_plan(ExecutionGraph(JobGraph("0" * 32, "job", (vertex,))))["plan"]["nodes"][0]
    assert node["description"] == "&lt;img src=x onerror=alert(1)&gt;"


def test_the_configuration_of_the_job_is_the_flink_configuration(graph: ExecutionGraph) -> None:
    told = model.job_config(graph, Configuration({"restart-strategy.type": "failure-rate"}))["execution-config"]
    assert (told["restart-strategy"], told["job-parallelism"]) == ("failure-rate", 3)
    assert told["user-config"] == {"restart-strategy.type": "failure-rate"}


def test_the_page_offers_nothing_that_is_not_there() -> None:
    told = model.dashboard_configuration(version="0.1.0", zone_name="CET", zone_offset_ms=3_600_000)
    assert not any(told["features"].values())
    assert (told["timezone-name"], told["timezone-offset"]) == ("CET", 3_600_000)


def test_a_failure_is_told_with_its_task_and_its_place(graph: ExecutionGraph) -> None:
    graph.apply(ops.TaskFailed(0, 2, 0, T + 30_000, "exit code 1: see the log"))
    graph.apply(ops.JobStatusChanged(JobStatus.FAILING, T + 30_001, "no restart is left"))
    history = model.job_exceptions(graph)["exceptionHistory"]
    job, second, first = history["entries"]
    assert not history["truncated"]
    assert (first["exceptionName"], first["taskName"]) == ("ValueError", "read (2/3) - execution #0")
    assert (first["endpoint"], first["taskManagerId"]) == ("10.0.0.1:6122", "tm-1")
    assert (second["exceptionName"], second["stacktrace"]) == ("TaskFailure", "exit code 1: see the log")
    assert (job["exceptionName"], job["timestamp"]) == ("JobFailure", T + 30_001)
    assert not {"taskName", "endpoint", "taskManagerId"} & job.keys()
    assert model.application_exceptions(graph)["exceptionHistory"]["entries"] == [
        {
            "exceptionName": "JobFailure",
            "stacktrace": "no restart is left",
            "timestamp": T + 30_001,
            "jobId": graph.job_graph.id,
        }
    ]


def test_a_history_that_is_cut_says_so(graph: ExecutionGraph) -> None:
    graph.apply(ops.TaskFailed(0, 2, 0, T + 30_000, "KeyError"))
    history = model.job_exceptions(graph, 1)["exceptionHistory"]
    assert [entry["exceptionName"] for entry in history["entries"]] == ["KeyError"]
    assert history["truncated"]


def test_accumulators_are_texts_with_flinks_types(graph: ExecutionGraph) -> None:
    expected = [
        {"name": "ratio", "type": "DoubleCounter", "value": "0.5"},
        {"name": "words", "type": "LongCounter", "value": "9"},
    ]
    assert model.job_accumulators(graph)["user-task-accumulators"] == expected
    assert tasks.vertex_accumulators(graph.vertices[0])["user-accumulators"] == expected
    assert tasks.vertex_accumulators(graph.vertices[1])["user-accumulators"] == []
    first, second, _ = tasks.subtasks_accumulators(graph, graph.vertices[0])["subtasks"]
    assert (first["user-accumulators"], second["user-accumulators"]) == (expected, [])


def test_failovers_tell_what_was_restarted_and_how_often(graph: ExecutionGraph) -> None:
    told = failovers(graph)
    failover = told["failovers"][0]
    assert (told["epoch"], told["failover-count"], failover["cause"]) == (2, 1, "jobmanager-0 was lost")
    assert failover["verdicts"] == {"continued": 1, "advanced": 0, "redeployed": 0, "restarted": 1, "orphaned": 0}
    assert [(task["task"], task["reason"]) for task in failover["restarted"]] == [("count[1]", "not reported")]
    assert [vertex["attempts"] for vertex in told["vertices"]] == [4, 2, 1]


def test_subtasks_tell_of_their_present_attempt(graph: ExecutionGraph, backend: RestBackend) -> None:
    told = tasks.vertex_details(graph, graph.vertices[0], backend.progress(), NOW)
    first, second, third = told["subtasks"]
    assert (first["status"], first["attempt"], first["start-time"], first["end-time"], first["duration"]) == (
        "FINISHED", 0, T + 100, T + 5_000, 4_900,
    )  # fmt: skip
    assert (second["attempt"], second["endpoint"], second["taskmanager-id"]) == (1, "10.0.0.1:6122", "tm-1")
    assert second["status-duration"] == {
        "CREATED": -1, "SCHEDULED": -1, "INITIALIZING": -1, "DEPLOYING": 400, "RUNNING": 52_500,
    }  # fmt: skip
    assert (second["metrics"]["write-bytes"], second["metrics"]["write-bytes-complete"]) == (2_000, True)
    assert (third["metrics"]["write-bytes"], third["metrics"]["write-bytes-complete"]) == (0, False)
    assert told["aggregated"]["metrics"]["write-bytes"] == {
        "min": 0, "max": 2_000, "avg": 1_000, "sum": 3_000, "median": 1_000, "p25": 0, "p75": 2_000, "p95": 2_000,
    }  # fmt: skip


def test_a_subtask_that_never_ran_is_created_since_the_job_began(graph: ExecutionGraph) -> None:
    told = tasks.vertex_details(graph, graph.vertices[2], {}, NOW)["subtasks"][0]
    assert (told["status"], told["endpoint"], told["start-time"], told["duration"]) == (
        "CREATED",
        "(unassigned)",
        -1,
        -1,
    )
    assert told["status-duration"]["CREATED"] == 60_000
    times = tasks.subtask_times(graph, graph.vertices[2], NOW)["subtasks"][0]
    assert (times["timestamps"]["CREATED"], times["duration"]) == (T, -1)


def test_times_of_subtasks_are_those_that_are_known(graph: ExecutionGraph) -> None:
    first, second, _ = tasks.subtask_times(graph, graph.vertices[0], NOW)["subtasks"]
    known = {state: at for state, at in first["timestamps"].items() if at}
    assert known == {"DEPLOYING": T + 100, "FINISHED": T + 5_000}
    assert first["duration"] == 4_900
    known = {state: at for state, at in second["timestamps"].items() if at}
    assert known == {"DEPLOYING": T + 7_100, "RUNNING": T + 7_500}


def test_subtasks_are_grouped_by_their_taskmanager(graph: ExecutionGraph, backend: RestBackend) -> None:
    first, second = tasks.vertex_taskmanagers(graph, graph.vertices[0], backend.progress(), NOW)["taskmanagers"]
    assert (first["taskmanager-id"], first["status"], first["start-time"]) == ("tm-1", "RUNNING", T + 100)
    assert (first["status-counts"]["FINISHED"], first["status-counts"]["RUNNING"]) == (1, 1)
    assert (first["metrics"]["write-bytes"], first["metrics"]["write-bytes-complete"]) == (3_000, True)
    assert (second["taskmanager-id"], second["metrics"]["write-bytes-complete"]) == ("tm-2", False)
    graph.apply(ops.TaskFinished(0, 1, 1, T + 40_000))
    ended = tasks.vertex_taskmanagers(graph, graph.vertices[0], {}, NOW)["taskmanagers"][0]
    assert (ended["status"], ended["end-time"], ended["duration"]) == ("FINISHED", T + 40_000, 39_900)
    unassigned = tasks.vertex_taskmanagers(graph, graph.vertices[1], {}, NOW)["taskmanagers"]
    assert [group["taskmanager-id"] for group in unassigned] == ["(unassigned)"]


def test_a_taskmanager_has_the_slots_of_the_log_and_the_heartbeat_of_its_connection(
    graph: ExecutionGraph, backend: RestBackend
) -> None:
    first, second = tasks.taskmanagers(graph, backend.connected())["taskmanagers"]
    assert (first["id"], first["path"], first["slotsNumber"], first["freeSlots"], first["assignedTasks"]) == (
        "tm-1", "10.0.0.1:6122", 2, 1, 1,
    )  # fmt: skip
    assert first["timeSinceLastHeartbeat"] == T + 59_000
    details = tasks.taskmanager_details(graph, "tm-2", backend.connected()["tm-2"])
    assert {key: details[key] for key in second} == second
    assert [slot["jobId"] for slot in details["allocatedSlots"]] == [graph.job_graph.id]


def test_a_taskmanager_may_be_connected_before_it_is_registered(graph: ExecutionGraph, backend: RestBackend) -> None:
    connected = {**backend.connected(), "tm-0": backend.connected()["tm-1"]}
    early = tasks.taskmanagers(graph, connected)["taskmanagers"][0]
    assert (early["id"], early["path"], early["slotsNumber"], early["assignedTasks"]) == ("tm-0", "(unassigned)", 1, 0)
    assert tasks.total_slots(graph, connected) == 5


@pytest.mark.parametrize(
    "key", ["s3.access-key", "S3.Secret-Key", "security.ssl.rest.keystore", "a.PASSWORD", "x.auth-token", "y.apikey"]
)
def test_what_looks_like_a_secret_is_hidden(key: str) -> None:
    assert hide_secrets({key: "open sesame"}) == {key: HIDDEN}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("s3://me:pa/ss@word@store/jobs", "s3://me:******@store/jobs"),
        ("hdfs://namenode:8020/jobs", "hdfs://namenode:8020/jobs"),
        ("/var/jobs", "/var/jobs"),
    ],
)
def test_a_password_within_a_url_is_hidden_and_nothing_else(value: str, told: str) -> None:
    assert hide_secrets({"high-availability.storageDir": value}) == {"high-availability.storageDir": told}


def test_no_option_of_ours_is_hidden_by_its_name() -> None:
    assert HIDDEN not in hide_secrets(dict.fromkeys(OPTIONS, "shown")).values()


@given(st.lists(st.integers(0, 3), min_size=len(ExecutionState), max_size=len(ExecutionState)).filter(any))
def test_the_state_of_a_vertex_is_the_worst_of_its_subtasks(counts: list[int]) -> None:
    state = ExecutionState[aggregate_state(state_counts(counts), sum(counts))]
    there = {state for state, count in zip(ExecutionState, counts, strict=True) if count}
    if state is ExecutionState.FINISHED:
        assert there == {ExecutionState.FINISHED}
    elif state is ExecutionState.RUNNING:
        assert there & {ExecutionState.RUNNING, ExecutionState.FINISHED}
        assert not there & {ExecutionState.FAILED, ExecutionState.CANCELING, ExecutionState.CANCELED}
    elif state is ExecutionState.CREATED:
        assert there <= {ExecutionState.CREATED, ExecutionState.DEPLOYING}
    else:
        assert state in there


@pytest.mark.parametrize(
    ("values", "quartiles"),
    [([7], (7, 7, 7, 7)), ([1, 9], (5, 1, 9, 9)), ([10, 20, 30, 40], (25, 12, 37, 40)), ([5, 1, 3], (3, 1, 5, 5))],
)
def test_percentiles_are_those_of_flinks_library(values: list[int], quartiles: tuple[int, ...]) -> None:
    spread = tasks.spread(values)
    assert tuple(spread[name] for name in ("median", "p25", "p75", "p95")) == quartiles


@given(st.lists(st.integers(-1, 2**62), min_size=1))
def test_the_numbers_of_a_spread_are_in_order(values: list[int]) -> None:
    spread = tasks.spread(values)
    ordered = [spread[name] for name in ("min", "p25", "median", "p75", "p95", "max")]
    assert ordered == sorted(ordered)
    assert (spread["min"], spread["max"], spread["sum"]) == (min(values), max(values), sum(values))
    assert spread["min"] <= spread["avg"] <= spread["max"]
