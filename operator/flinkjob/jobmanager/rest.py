"""The JobManager's HTTP interface: Flink's REST API to read the job and to cancel it, each path with and without ``/v1``.

A JobManager that does not lead sends every question about the job on to the leader (307), or says that there is none
yet (503). ``/healthz``, ``/readyz`` and ``/leader`` are about this very process and are answered by each.

Errors are Flink's: a status and ``{"errors": [...]}``. The answers are made by `rest_model` and `rest_tasks`; what we do
not have (metrics, logs, flame graphs) is answered as by a Flink where it is empty or switched off, so that its web page
works. The one thing that changes anything is ``PATCH /jobs/:id?mode=cancel``: a browser sends no PATCH to another site
unless that allows it, and nothing here does.
"""

import logging
import platform
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from flinkjob.api.errors import StorageError
from flinkjob.api.options import Configuration
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.states import JobStatus
from flinkjob.graph.vertex import ExecutionJobVertex
from flinkjob.jobmanager import rest_failovers
from flinkjob.jobmanager import rest_model as model
from flinkjob.jobmanager import rest_tasks as tasks
from flinkjob.jobmanager.rest_values import ConnectedTaskManager
from flinkjob.jobmaster.preview import FailoverPreview
from flinkjob.worker.protocol import AttemptId, Progress

logger = logging.getLogger(__name__)

MAX_REQUEST = 64 * 1024
"""The longest body of a request, in bytes. None of them says anything; Flink's client sends ``{}``."""

RETRY_AFTER = {"Retry-After": "1"}

_ID = re.compile(r"[0-9a-fA-F]{32}")


class RestBackend(Protocol):
    """What the handlers need of the JobManager.

    Attributes:
        id: its name.
        address: under which others reach it, ``host:port``.
        version: this program's.
        configuration: the job's.
    """

    id: str
    address: str
    version: str
    configuration: Configuration

    def graph(self) -> ExecutionGraph | None:
        """The job; None while this JobManager does not lead, or has not replayed yet."""

    def leader_address(self) -> str:
        """``host:port`` of the leader, as far as is known; empty otherwise."""

    def ready(self) -> bool:
        """Whether this JobManager can do its part, as the leader or as a standby."""

    def problem(self) -> str:
        """Why this JobManager leads nothing until a person comes (a damaged log); empty otherwise."""

    def now_ms(self) -> int:
        """The time, milliseconds."""

    def connected(self) -> Mapping[str, ConnectedTaskManager]:
        """The TaskManagers that are connected, by id."""

    def progress(self) -> Mapping[AttemptId, Progress]:
        """What running attempts last said of themselves."""

    async def preview(self) -> FailoverPreview:
        """What a failover at this moment would do.

        Raises:
            StorageError: the job has not been replayed yet, or its storage cannot be looked at.
        """

    async def cancel(self) -> None:
        """Cancel the job; returns when that is durable.

        Raises:
            StorageError: it could not be made durable.
        """


@dataclass(frozen=True, slots=True)
class Question:
    """A request that this JobManager can answer, because it leads."""

    request: web.Request
    backend: RestBackend
    graph: ExecutionGraph

    @property
    def now(self) -> int:
        """The time of the answer, milliseconds."""
        return self.backend.now_ms()

    @property
    def vertex(self) -> ExecutionJobVertex:
        """The vertex that the path names."""
        id = _hex_id(self.request, "vertexid")
        for vertex in self.graph.vertices:
            if vertex.job_vertex.id == id:
                return vertex
        raise Refusal(404, f"JobVertex {id} not found")

    @property
    def taskmanager(self) -> tuple[str, ConnectedTaskManager]:
        """The TaskManager that the path names, by id, and its connection."""
        id = self.request.match_info["taskmanagerid"]
        if info := self.backend.connected().get(id):
            return id, info
        raise Refusal(404, f"TaskManager {id} not found")


class Refusal(Exception):
    """An answer that is an error.

    Attributes:
        status: the HTTP status.
        headers: those to send along.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}


Answer = Callable[[Question], object]


def add_rest_routes(app: web.Application, backend: RestBackend) -> None:
    """Make the application answer all paths of this module, and tell its own errors in Flink's form."""
    app.middlewares.append(_errors)
    for path, answer in _ANSWERS.items():
        _add(app, "GET", path, _leader_only(backend, _get(answer)))
    _add(app, "PATCH", "/jobs/{jobid}", _leader_only(backend, _cancel))
    _add(app, "GET", "/jobs/{jobid}/failover-preview", _leader_only(backend, _failover_preview))
    for path, handler in {"/healthz": _healthz, "/readyz": _readyz, "/leader": _leader}.items():
        _add(app, "GET", path, _local(backend, handler))


def _add(app: web.Application, method: str, path: str, handler: Handler) -> None:
    for prefix in ("", "/v1"):
        if method == "GET":
            app.router.add_get(prefix + path, handler)
        else:
            app.router.add_route(method, prefix + path, handler)


# How a request becomes an answer


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refusal as refusal:
        return _error(refusal.status, str(refusal), refusal.headers)
    except web.HTTPNotFound:
        return _error(404, f"Not found: {request.path_qs}")
    except web.HTTPMethodNotAllowed as refusal:
        allowed = ", ".join(sorted(refusal.allowed_methods))
        return _error(
            405, f"{request.method} is not allowed for {request.path}; allowed: {allowed}", {"Allow": allowed}
        )


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return _json({"errors": [message]}, status=status, headers=headers)


def _json(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    sent = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **(headers or {})}
    body = msgspec.json.encode(value)
    return web.Response(status=status, body=body, headers=sent, content_type="application/json", charset="UTF-8")


def _leader_only(backend: RestBackend, handler: Callable[[Question], Awaitable[web.Response]]) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        await _bound_body(request)
        graph = backend.graph()
        if graph is None:
            return _elsewhere(request, backend)
        question = Question(request, backend, graph)
        for name, kind in (("jobid", "Job"), ("applicationid", "Application")):
            if name in request.match_info and (id := _hex_id(request, name)) != graph.job_graph.id:
                raise Refusal(404, f"{kind} {id} not found")
        try:
            return await handler(question)
        except StorageError as error:
            raise Refusal(503, f"The request could not be made durable: {error}", RETRY_AFTER) from error
        except Refusal:
            raise
        except Exception:
            logger.exception("REST: %s %s failed", request.method, request.path)
            raise Refusal(500, "Internal server error; the JobManager's log tells more") from None

    return handle


def _local(backend: RestBackend, handler: Callable[[RestBackend], web.Response]) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        await _bound_body(request)
        return handler(backend)

    return handle


async def _bound_body(request: web.Request) -> None:
    received = 0
    async for chunk in request.content.iter_any():
        received += len(chunk)
        if received > MAX_REQUEST:
            raise Refusal(413, f"The body of a request may have {MAX_REQUEST} bytes")


def _elsewhere(request: web.Request, backend: RestBackend) -> web.Response:
    leader = backend.leader_address()
    # A leader that has not replayed yet would send its clients round in circles.
    if not leader or leader == backend.address:
        return _error(503, "No JobManager leads the job at the moment", RETRY_AFTER)
    location = f"{request.scheme}://{leader}{request.rel_url.raw_path_qs}"
    return _json({}, status=307, headers={"Location": location})


def _get(answer: Answer) -> Callable[[Question], Awaitable[web.Response]]:
    async def handle(question: Question) -> web.Response:
        return _json(answer(question))

    return handle


def _hex_id(request: web.Request, name: str) -> str:
    value = request.match_info[name]
    if not _ID.fullmatch(value):
        raise _unusable("path", name, value, "32 hexadecimal digits")
    return value.lower()


def _unusable(kind: str, name: str, value: str, allowed: str) -> Refusal:
    return Refusal(400, f"Bad request: the {kind} parameter {name} is {value!r}; allowed: {allowed}")


# Answers that are more than a function of the model


async def _cancel(question: Question) -> web.Response:
    mode = question.request.query.get("mode", "cancel")
    if mode.lower() != "cancel":
        raise _unusable("query", "mode", mode, "cancel")
    status = question.graph.status
    if status in (JobStatus.FINISHED, JobStatus.FAILED):
        raise Refusal(409, f"The job cannot be cancelled any more, it is {status.name}")
    if status is not JobStatus.CANCELED:
        await question.backend.cancel()
    return _json({}, status=202)


async def _failover_preview(question: Question) -> web.Response:
    return _json(rest_failovers.failover_preview(question.graph, await question.backend.preview()))


def _healthz(_: RestBackend) -> web.Response:
    return web.Response(text="ok")


def _readyz(backend: RestBackend) -> web.Response:
    return web.Response(text="ok") if backend.ready() else web.Response(status=503, text="not ready")


def _leader(backend: RestBackend) -> web.Response:
    graph = backend.graph()
    return _json(
        {
            "id": backend.id,
            "epoch": graph.epoch if graph else 0,
            "address": backend.leader_address(),
            "leading": graph is not None,
            "problem": backend.problem(),
        }
    )


def _overview(question: Question) -> object:
    graph, connected = question.graph, question.backend.connected()
    slots = tasks.total_slots(graph, connected)
    return model.cluster_overview(graph, connected, slots=slots, version=question.backend.version)


def _config(question: Question) -> object:
    zone = datetime.now().astimezone()
    offset = zone.utcoffset()
    return model.dashboard_configuration(
        version=question.backend.version,
        zone_name=zone.tzname() or "UTC",
        zone_offset_ms=int(offset.total_seconds() * 1000) if offset else 0,
    )


def _environment(_: Question) -> object:
    version = f"{platform.python_implementation()} {platform.python_version()}"
    return {"jvm": {"version": version, "arch": platform.machine(), "options": []}, "classpath": []}


def _exceptions(question: Question) -> object:
    limit = question.request.query.get("maxExceptions", str(model.MAX_EXCEPTIONS))
    if not (limit.isascii() and limit.isdigit() and len(limit) < 10):
        raise _unusable("query", "maxExceptions", limit, "a whole number")
    return model.job_exceptions(question.graph, int(limit))


def _of_vertex(answer: object) -> Answer:
    """The same answer for every vertex that there is."""
    return lambda question: question.vertex and answer


def _of_taskmanager(answer: object) -> Answer:
    """The same answer for every TaskManager that is connected."""
    return lambda question: question.taskmanager and answer


def _no_checkpoints(_: Question) -> object:
    raise Refusal(404, "Checkpointing is not enabled for this job; its tasks are continued without")


_JOB = "/jobs/{jobid}"
_VERTEX = _JOB + "/vertices/{vertexid}"

_ANSWERS: dict[str, Answer] = {
    "/overview": _overview,
    "/config": _config,
    "/jobs": lambda q: model.job_ids(q.graph),
    "/jobs/overview": lambda q: model.jobs_overview(q.graph, q.now),
    "/applications/overview": lambda q: model.applications_overview(q.graph, q.now),
    "/applications/{applicationid}": lambda q: model.application_details(q.graph, q.now),
    "/applications/{applicationid}/exceptions": lambda q: model.application_exceptions(q.graph),
    _JOB: lambda q: model.job_details(q.graph, q.backend.progress(), q.now),
    _JOB + "/config": lambda q: model.job_config(q.graph, q.backend.configuration),
    _JOB + "/exceptions": _exceptions,
    _JOB + "/accumulators": lambda q: model.job_accumulators(q.graph),
    _JOB + "/plan": lambda q: model.job_plan(q.graph),
    _JOB + "/status": lambda q: model.job_status(q.graph),
    _JOB + "/progress": lambda q: model.job_progress(q.graph),
    _JOB + "/failovers": lambda q: rest_failovers.failovers(q.graph),
    _JOB + "/metrics": lambda q: [],
    _JOB + "/checkpoints": _no_checkpoints,
    _JOB + "/checkpoints/config": _no_checkpoints,
    _JOB + "/jobmanager/config": lambda q: model.configuration_entries(q.backend.configuration),
    _JOB + "/jobmanager/environment": _environment,
    _VERTEX: lambda q: tasks.vertex_details(q.graph, q.vertex, q.backend.progress(), q.now),
    _VERTEX + "/taskmanagers": lambda q: tasks.vertex_taskmanagers(q.graph, q.vertex, q.backend.progress(), q.now),
    _VERTEX + "/accumulators": lambda q: tasks.vertex_accumulators(q.vertex),
    _VERTEX + "/subtasks/accumulators": lambda q: tasks.subtasks_accumulators(q.graph, q.vertex),
    _VERTEX + "/subtasktimes": lambda q: tasks.subtask_times(q.graph, q.vertex, q.now),
    _VERTEX + "/metrics": _of_vertex([]),
    _VERTEX + "/subtasks/metrics": _of_vertex([]),
    _VERTEX + "/watermarks": _of_vertex([]),
    _VERTEX + "/backpressure": _of_vertex({"status": "deprecated"}),
    _VERTEX + "/flamegraph": _of_vertex({"endTimestamp": -2}),
    "/taskmanagers": lambda q: tasks.taskmanagers(q.graph, q.backend.connected()),
    "/taskmanagers/{taskmanagerid}": lambda q: tasks.taskmanager_details(q.graph, *q.taskmanager),
    "/taskmanagers/{taskmanagerid}/metrics": _of_taskmanager([]),
    "/taskmanagers/{taskmanagerid}/logs": _of_taskmanager({"logs": []}),
    "/jobmanager/config": lambda q: model.configuration_entries(q.backend.configuration),
    "/jobmanager/environment": _environment,
    "/jobmanager/metrics": lambda q: [],
    "/jobmanager/logs": lambda q: {"logs": []},
}
"""The GET paths and what answers them. Backpressure is *not sampled* and flame graphs are *disabled*, in Flink's codes."""
