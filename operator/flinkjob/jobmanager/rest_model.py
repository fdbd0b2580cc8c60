"""The job as Flink's REST API tells it: pure functions from the ExecutionGraph to Flink's JSON.

Names, nesting and units are those of Flink's message classes (``org.apache.flink.runtime.rest.messages``, 2.x), so that
Flink's own command line and web page read them; times are milliseconds of the Unix epoch, -1 stands for *not yet* or
*not known*. States that we do not have are present and zero. Nothing is added to Flink's objects: what Flink has no
field for is told by ``failovers``, an object of our own.

Flink 2.3 groups jobs in applications; ours has one job, and goes by the job's id.
"""

import html
import re
from collections.abc import Mapping

from flinkjob.api.options import RESTART_STRATEGY, Configuration
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.jobgraph import JobGraph, JobVertex
from flinkjob.graph.snapshot import ExceptionEntry
from flinkjob.graph.states import ExecutionState, JobStatus
from flinkjob.graph.vertex import ExecutionJobVertex
from flinkjob.jobmanager.rest_values import (
    EXECUTION_STATES,
    ConnectedTaskManager,
    Json,
    aggregate_state,
    hide_secrets,
    io_metrics,
    running_progress,
    span,
    state_counts,
    user_accumulators,
)
from flinkjob.worker.protocol import AttemptId, Progress

JOB_STATUSES = (
    "INITIALIZING", "CREATED", "RUNNING", "FAILING", "FAILED", "CANCELLING", "CANCELED", "FINISHED", "RESTARTING",
    "SUSPENDED", "RECONCILING",
)  # fmt: skip
"""Flink's ``JobStatus``, in its order."""

APPLICATION_STATES = ("CREATED", "RUNNING", "FAILING", "FAILED", "CANCELING", "CANCELED", "FINISHED")
"""Flink's ``ApplicationState``, in its order."""

_APPLICATION: dict[JobStatus, str] = {
    status: status.name for status in JobStatus if status is not JobStatus.RECONCILING
}
_APPLICATION[JobStatus.CANCELLING] = "CANCELING"

MAX_EXCEPTIONS = 20
"""How many failures are told when the request does not say (Flink: ``maxExceptions``)."""

_ERROR_NAME = re.compile(r"([A-Za-z_][\w.$]*)(?::|$)")


def configuration_entries(configuration: Configuration) -> list[Json]:
    """``/jobmanager/config``: the options that are set (``ConfigurationInfo``)."""
    return [{"key": key, "value": value} for key, value in sorted(hide_secrets(configuration.to_mapping()).items())]


def dashboard_configuration(*, version: str, zone_name: str, zone_offset_ms: int) -> Json:
    """``/config`` (``DashboardConfiguration``).

    The page's cancel button stays away: it sends a GET, which any other page could make a browser send as well.
    """
    features = {"web-submit": False, "web-cancel": False, "web-rescale": False, "web-history": False}
    return {
        "refresh-interval": 3000,
        "timezone-name": zone_name,
        "timezone-offset": zone_offset_ms,
        "flink-version": version,
        "flink-revision": "unknown revision",
        "features": features,
    }


def cluster_overview(
    graph: ExecutionGraph, connected: Mapping[str, ConnectedTaskManager], *, slots: int, version: str
) -> Json:
    """``/overview`` (``ClusterOverviewWithVersion``)."""
    return {
        "taskmanagers": len(connected),
        "slots-total": slots,
        "slots-available": sum(info.free_slots for info in connected.values()),
        "jobs-running": int(not graph.status.terminal),
        "jobs-finished": int(graph.status is JobStatus.FINISHED),
        "jobs-cancelled": int(graph.status is JobStatus.CANCELED),
        "jobs-failed": int(graph.status is JobStatus.FAILED),
        "flink-version": version,
        "flink-commit": "unknown",
    }


def job_ids(graph: ExecutionGraph) -> Json:
    """``/jobs`` (``JobIdsWithStatusOverview``)."""
    return {"jobs": [{"id": graph.job_graph.id, "status": graph.status.name}]}


def jobs_overview(graph: ExecutionGraph, now: int) -> Json:
    """``/jobs/overview`` (``MultipleJobsDetails``)."""
    return {"jobs": [_job(graph, now)]}


def job_status(graph: ExecutionGraph) -> Json:
    """``/jobs/:id/status`` (``JobStatusInfo``)."""
    return {"status": graph.status.name}


def job_details(graph: ExecutionGraph, progress: Mapping[AttemptId, Progress], now: int) -> Json:
    """``/jobs/:id`` (``JobDetailsInfo``)."""
    running = running_progress(graph, progress)
    vertices = [_vertex(vertex, running.get(vertex.job_vertex.index, {}), now) for vertex in graph.vertices]
    states = [vertex["status"] for vertex in vertices]
    return {
        "jid": graph.job_graph.id,
        "name": graph.job_graph.name,
        "isStoppable": False,
        "state": graph.status.name,
        "job-type": "BATCH",
        "schedulerType": None,
        **_times(graph, now),
        "maxParallelism": -1,
        "application-id": graph.job_graph.id,
        "now": now,
        "timestamps": _timestamps(graph),
        "vertices": vertices,
        "status-counts": {state: states.count(state) for state in EXECUTION_STATES},
        "plan": _plan(graph.job_graph),
        "pending-operators": 0,
    }


def job_plan(graph: ExecutionGraph) -> Json:
    """``/jobs/:id/plan`` (``JobPlanInfo``)."""
    return {"plan": _plan(graph.job_graph)}


def job_config(graph: ExecutionGraph, configuration: Configuration) -> Json:
    """``/jobs/:id/config`` (``JobConfigInfo``); the user's configuration is the ``flinkConfiguration``."""
    return {
        "jid": graph.job_graph.id,
        "name": graph.job_graph.name,
        "execution-config": {
            "restart-strategy": configuration.get(RESTART_STRATEGY).value,
            "job-parallelism": max(vertex.parallelism for vertex in graph.job_graph.vertices),
            "object-reuse-mode": False,
            "user-config": hide_secrets(configuration.to_mapping()),
        },
    }


def job_exceptions(graph: ExecutionGraph, limit: int = MAX_EXCEPTIONS) -> Json:
    """``/jobs/:id/exceptions``: failures, the latest first (``JobExceptionsInfoWithHistory``)."""
    shown = graph.exceptions[::-1][:limit]
    entries = [_exception(graph, entry) for entry in shown]
    return {"exceptionHistory": {"entries": entries, "truncated": len(shown) < len(graph.exceptions)}}


def job_accumulators(graph: ExecutionGraph) -> Json:
    """``/jobs/:id/accumulators`` (``JobAccumulatorsInfo``); there are no Java objects to serialize."""
    return {
        "job-accumulators": [],
        "user-task-accumulators": user_accumulators(graph.accumulators()),
        "serialized-user-task-accumulators": {},
    }


def applications_overview(graph: ExecutionGraph, now: int) -> Json:
    """``/applications/overview`` (``MultipleApplicationsDetails``)."""
    return {"applications": [{**_application(graph, now), "jobs": {graph.status.name: 1}}]}


def application_details(graph: ExecutionGraph, now: int) -> Json:
    """``/applications/:id`` (``ApplicationDetailsInfo``)."""
    times = {_application_status(status): at for status, at in graph.status_times.items() if status in _APPLICATION}
    timestamps = dict.fromkeys(APPLICATION_STATES, 0) | times
    return {**_application(graph, now), "timestamps": timestamps, "jobs": [_job(graph, now)]}


def application_exceptions(graph: ExecutionGraph) -> Json:
    """``/applications/:id/exceptions``: why the job failed, if it did (``ApplicationExceptionsInfoWithHistory``)."""
    entries = [
        {
            "exceptionName": _error_name(entry.cause, "JobFailure"),
            "stacktrace": entry.cause,
            "timestamp": entry.at,
            "jobId": graph.job_graph.id,
        }
        for entry in graph.exceptions
        if entry.vertex < 0
    ]
    return {"exceptionHistory": {"entries": entries}}


def job_progress(graph: ExecutionGraph) -> Json:
    """``/jobs/:id/progress``: what one who follows the job wants often. Looks at vertices only, never at subtasks.

    ``done`` is a share, 0 to 1. Of a source, ``splits-taken`` of its ``splits`` have been handed out. ``last-failure``
    is the first line of the latest failure's cause.
    """
    latest = graph.exceptions[-1] if graph.exceptions else None
    return {
        "id": graph.job_graph.id,
        "name": graph.job_graph.name,
        "state": graph.status.name,
        "start-time": graph.started_at,
        "epoch": graph.epoch,
        "restarts": graph.restarts,
        "done": graph.done(),
        "last-failure": latest.cause.partition("\n")[0] if latest else "",
        "last-failed-task": graph.task_name(latest.vertex, latest.subtask) if latest and latest.vertex >= 0 else "",
        "vertices": [
            {
                "name": vertex.job_vertex.name,
                "parallelism": vertex.parallelism,
                "tasks": state_counts(vertex.counts),
                "splits": len(vertex.splits or ()),
                "splits-taken": vertex.splits_taken,
                "done": vertex.done,
            }
            for vertex in graph.vertices
        ],
    }


# Parts of the above


def _job(graph: ExecutionGraph, now: int) -> Json:
    """``JobDetails``. Read for every refresh of a page, so it looks at vertices only, never at subtasks.

    Hence ``last-modification`` is the last change of the job, a failure or a failover, not of any subtask.
    """
    counts = [sum(column) for column in zip(*(vertex.counts for vertex in graph.vertices), strict=True)]
    changes = [*graph.status_times.values(), graph.restart_state.last_at]
    changes += [entry.at for entry in graph.exceptions[-1:]] + [
        failover.decided_at for failover in graph.failovers[-1:]
    ]
    tasks = {state.lower(): count for state, count in state_counts(counts).items()}
    return {
        "jid": graph.job_graph.id,
        "name": graph.job_graph.name,
        "jobType": "BATCH",
        "schedulerType": None,
        **_times(graph, now),
        "state": graph.status.name,
        "last-modification": max(changes),
        "tasks": {"total": graph.total_tasks, **tasks},
        "pending-operators": 0,
    }


def _times(graph: ExecutionGraph, now: int) -> Json:
    ended = graph.status.terminal
    return span(start=graph.started_at, end=graph.status_times.get(graph.status, 0), ended=ended, now=now)


def _timestamps(graph: ExecutionGraph) -> dict[str, int]:
    times = {status.name: at for status, at in graph.status_times.items()}
    # Flink's clients take INITIALIZING for the start of the job.
    return dict.fromkeys(JOB_STATUSES, 0) | times | {"INITIALIZING": graph.started_at}


def _vertex(vertex: ExecutionJobVertex, running: Mapping[int, Progress], now: int) -> Json:
    job_vertex = vertex.job_vertex
    tasks = state_counts(vertex.counts)
    ended = sum(vertex.counts[state] for state in ExecutionState if state.terminal) == vertex.parallelism
    start = min(filter(None, vertex.deployed_at), default=0)
    return {
        "id": job_vertex.id,
        "slotSharingGroupId": job_vertex.id,
        "name": job_vertex.name,
        "maxParallelism": vertex.parallelism,
        "parallelism": vertex.parallelism,
        "status": aggregate_state(tasks, vertex.parallelism),
        **span(start=start, end=max(vertex.since), ended=ended, now=now),
        "tasks": tasks,
        "metrics": io_metrics(
            size=sum(vertex.size) + sum(said.size for said in running.values()),
            records=sum(vertex.records) + sum(said.records for said in running.values()),
            complete=len(running) == vertex.counts[ExecutionState.RUNNING],
            source=not job_vertex.inputs,
        ),
    }


def _plan(job_graph: JobGraph) -> Json:
    nodes = [_node(job_graph, vertex) for vertex in job_graph.vertices]
    return {"jid": job_graph.id, "name": job_graph.name, "type": "BATCH", "nodes": nodes}


def _node(job_graph: JobGraph, vertex: JobVertex) -> Json:
    node: Json = {
        "id": vertex.id,
        "parallelism": vertex.parallelism,
        "operator": "",
        "operator_strategy": "",
        # Flink's web page shows the description as HTML, and only that.
        "description": html.escape(vertex.name),
        "optimizer_properties": {},
    }
    if vertex.inputs:
        node["inputs"] = [
            {
                "num": number,
                "id": job_graph.vertices[edge.source].id,
                "ship_strategy": edge.partitioner.name,
                "exchange": edge.exchange.value,
            }
            for number, edge in enumerate(vertex.inputs)
        ]
    return node


def _exception(graph: ExecutionGraph, entry: ExceptionEntry) -> Json:
    told: Json = {
        "exceptionName": _error_name(entry.cause, "JobFailure" if entry.vertex < 0 else "TaskFailure"),
        "stacktrace": entry.cause,
        "timestamp": entry.at,
        "failureLabels": {},
        "concurrentExceptions": [],
    }
    if entry.vertex >= 0:
        vertex = graph.job_graph.vertices[entry.vertex]
        place = f"{entry.subtask + 1}/{vertex.parallelism}"
        told["taskName"] = f"{vertex.name} ({place}) - execution #{entry.attempt}"
    if entry.taskmanager >= 0:
        taskmanager = graph.taskmanagers[entry.taskmanager]
        told["endpoint"], told["taskManagerId"] = taskmanager.address, taskmanager.id
    return told


def _error_name(cause: str, otherwise: str) -> str:
    """``ValueError`` of ``ValueError: no such word``; a cause that opens with no such name has none."""
    match = _ERROR_NAME.match(cause)
    return match[1] if match else otherwise


def _application(graph: ExecutionGraph, now: int) -> Json:
    status = _application_status(graph.status)
    return {"id": graph.job_graph.id, "name": graph.job_graph.name, "status": status, **_times(graph, now)}


def _application_status(status: JobStatus) -> str:
    return _APPLICATION.get(status, "RUNNING")
