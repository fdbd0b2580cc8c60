"""Every answer has exactly the fields of Flink's message class, in Flink's types (read off the classes of Flink 2.3)."""

from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from flinkjob.graph.executiongraph import ExecutionGraph

Client = TestClient[web.Request, web.Application]

JOB = "/jobs/0123456789abcdef0123456789abcdef"


@dataclass(frozen=True)
class MapOf:
    """A JSON object with free keys, or with these."""

    value: object
    keys: tuple[str, ...] | None = None


@dataclass(frozen=True)
class OneOf:
    """A value that fits one of these."""

    options: tuple[object, ...]


EXECUTION_STATES = (
    "CREATED", "SCHEDULED", "DEPLOYING", "RUNNING", "FINISHED", "CANCELING", "CANCELED", "FAILED", "RECONCILING",
    "INITIALIZING",
)  # fmt: skip
JOB_STATUSES = (
    "INITIALIZING", "CREATED", "RUNNING", "FAILING", "FAILED", "CANCELLING", "CANCELED", "FINISHED", "RESTARTING",
    "SUSPENDED", "RECONCILING",
)  # fmt: skip
PER_STATE = MapOf(int, EXECUTION_STATES)
TIMES = {"start-time": int, "end-time": int, "duration": int}
IO_METRICS = {
    "read-bytes": int, "read-bytes-complete": bool, "write-bytes": int, "write-bytes-complete": bool,
    "read-records": int, "read-records-complete": bool, "write-records": int, "write-records-complete": bool,
    "accumulated-backpressured-time": int, "accumulated-idle-time": int, "accumulated-busy-time": float,
}  # fmt: skip
SPREAD = MapOf(int, ("min", "max", "avg", "sum", "median", "p25", "p75", "p95"))
DURATIONS = ("CREATED", "SCHEDULED", "INITIALIZING", "DEPLOYING", "RUNNING")
AGGREGATED = {
    "metrics": MapOf(SPREAD, tuple(name for name, kind in IO_METRICS.items() if kind is not bool)),
    "status-duration": MapOf(SPREAD, DURATIONS),
}
ACCUMULATOR = {"name": str, "type": str, "value": str}
JOB_DETAILS = {
    "jid": str, "name": str, "jobType": str, "schedulerType": None, **TIMES, "state": str, "last-modification": int,
    "tasks": MapOf(int, ("total", *(state.lower() for state in EXECUTION_STATES))), "pending-operators": int,
}  # fmt: skip
INPUT = {"num": int, "id": str, "ship_strategy": str, "exchange": str}
SOURCE_NODE = {
    "id": str, "parallelism": int, "operator": str, "operator_strategy": str, "description": str,
    "optimizer_properties": MapOf(str),
}  # fmt: skip
PLAN = {"jid": str, "name": str, "type": str, "nodes": [OneOf((SOURCE_NODE, {**SOURCE_NODE, "inputs": [INPUT]}))]}
VERTEX = {
    "id": str, "slotSharingGroupId": str, "name": str, "maxParallelism": int, "parallelism": int, "status": str, **TIMES,
    "tasks": PER_STATE, "metrics": IO_METRICS,
}  # fmt: skip
SUBTASK = {
    "subtask": int, "status": str, "attempt": int, "endpoint": str, **TIMES, "start_time": int, "metrics": IO_METRICS,
    "taskmanager-id": str, "status-duration": MapOf(int, DURATIONS),
}  # fmt: skip
RESOURCE = {
    "cpuCores": float, "taskHeapMemory": int, "taskOffHeapMemory": int, "managedMemory": int, "networkMemory": int,
    "extendedResources": MapOf(float),
}  # fmt: skip
TASKMANAGER = {
    "id": str, "path": str, "dataPort": int, "jmxPort": int, "timeSinceLastHeartbeat": int, "slotsNumber": int,
    "freeSlots": int, "assignedTasks": int, "totalResource": RESOURCE, "freeResource": RESOURCE,
    "hardware": {"cpuCores": int, "physicalMemory": int, "freeMemory": int, "managedMemory": int},
    "memoryConfiguration": MapOf(None, (
        "frameworkHeap", "taskHeap", "frameworkOffHeap", "taskOffHeap", "networkMemory", "managedMemory", "jvmMetaspace",
        "jvmOverhead", "totalFlinkMemory", "totalProcessMemory",
    )),
}  # fmt: skip
TASKMANAGER_METRICS = {
    "heapUsed": int, "heapCommitted": int, "heapMax": int, "nonHeapUsed": int, "nonHeapCommitted": int, "nonHeapMax": int,
    "directCount": int, "directUsed": int, "directMax": int, "mappedCount": int, "mappedUsed": int, "mappedMax": int,
    "nettyShuffleMemorySegmentsAvailable": int, "nettyShuffleMemorySegmentsUsed": int,
    "nettyShuffleMemorySegmentsTotal": int,
    "nettyShuffleMemoryAvailable": int, "nettyShuffleMemoryUsed": int, "nettyShuffleMemoryTotal": int,
    "garbageCollectors": [],
}  # fmt: skip
TASK_EXCEPTION = {
    "exceptionName": str, "stacktrace": str, "timestamp": int, "failureLabels": MapOf(str), "concurrentExceptions": [],
    "taskName": str, "endpoint": str, "taskManagerId": str,
}  # fmt: skip
APPLICATION = {"id": str, "name": str, "status": str, **TIMES}
APPLICATION_STATES = ("CREATED", "RUNNING", "FAILING", "FAILED", "CANCELING", "CANCELED", "FINISHED")
OPTION = {"key": str, "value": str}
ENVIRONMENT = {"jvm": {"version": str, "arch": str, "options": []}, "classpath": []}

GOLDEN: dict[str, object] = {
    "/overview": {
        "taskmanagers": int, "slots-total": int, "slots-available": int, "jobs-running": int, "jobs-finished": int,
        "jobs-cancelled": int, "jobs-failed": int, "flink-version": str, "flink-commit": str,
    },
    "/config": {
        "refresh-interval": int, "timezone-name": str, "timezone-offset": int, "flink-version": str, "flink-revision": str,
        "features": MapOf(bool, ("web-submit", "web-cancel", "web-rescale", "web-history")),
    },
    "/jobs": {"jobs": [{"id": str, "status": str}]},
    "/jobs/overview": {"jobs": [JOB_DETAILS]},
    "/applications/overview": {"applications": [{**APPLICATION, "jobs": MapOf(int, ("RUNNING",))}]},
    "/applications/0123456789abcdef0123456789abcdef": {
        **APPLICATION, "timestamps": MapOf(int, APPLICATION_STATES), "jobs": [JOB_DETAILS],
    },
    "/applications/0123456789abcdef0123456789abcdef/exceptions": {"exceptionHistory": {"entries": []}},
    JOB: {
        "jid": str, "name": str, "isStoppable": bool, "state": str, "job-type": str, "schedulerType": None, **TIMES,
        "maxParallelism": int, "application-id": str, "now": int, "timestamps": MapOf(int, JOB_STATUSES),
        "vertices": [VERTEX],
        "status-counts": PER_STATE, "plan": PLAN, "pending-operators": int,
    },
    JOB + "/config": {
        "jid": str, "name": str,
        "execution-config": {
            "restart-strategy": str, "job-parallelism": int, "object-reuse-mode": bool, "user-config": MapOf(str),
        },
    },
    JOB + "/exceptions": {"exceptionHistory": {"entries": [TASK_EXCEPTION], "truncated": bool}},
    JOB + "/accumulators": {
        "job-accumulators": [], "user-task-accumulators": [ACCUMULATOR], "serialized-user-task-accumulators": MapOf(str),
    },
    JOB + "/plan": {"plan": PLAN},
    JOB + "/status": {"status": str},
    JOB + "/metrics": [],
    JOB + "/jobmanager/config": [OPTION],
    JOB + "/jobmanager/environment": ENVIRONMENT,
    JOB + "/vertices/VERTEX": {
        "id": str, "name": str, "parallelism": int, "maxParallelism": int, "now": int, "subtasks": [SUBTASK],
        "aggregated": AGGREGATED,
    },
    JOB + "/vertices/VERTEX/taskmanagers": {
        "id": str, "name": str, "now": int,
        "taskmanagers": [{
            "endpoint": str, "status": str, **TIMES, "metrics": IO_METRICS, "status-counts": PER_STATE, "taskmanager-id": str,
            "aggregated": AGGREGATED,
        }],
    },
    JOB + "/vertices/VERTEX/accumulators": {"id": str, "user-accumulators": [ACCUMULATOR]},
    JOB + "/vertices/VERTEX/subtasks/accumulators": {
        "id": str, "parallelism": int,
        "subtasks": [{
            "subtask": int, "attempt": int, "endpoint": str, "user-accumulators": OneOf(([ACCUMULATOR], [])),
        }],
    },
    JOB + "/vertices/VERTEX/subtasktimes": {
        "id": str, "name": str, "now": int,
        "subtasks": [{"subtask": int, "endpoint": str, "duration": int, "timestamps": PER_STATE}],
    },
    JOB + "/vertices/VERTEX/metrics": [],
    JOB + "/vertices/VERTEX/subtasks/metrics": [],
    JOB + "/vertices/VERTEX/watermarks": [],
    JOB + "/vertices/VERTEX/backpressure": {"status": str},
    JOB + "/vertices/VERTEX/flamegraph": {"endTimestamp": int},
    "/taskmanagers": {"taskmanagers": [TASKMANAGER]},
    "/taskmanagers/tm-1": {
        **TASKMANAGER, "allocatedSlots": [{"jobId": str, "resource": RESOURCE, "assignedTasks": int}],
        "metrics": TASKMANAGER_METRICS,
    },
    "/taskmanagers/tm-1/metrics": [],
    "/taskmanagers/tm-1/logs": {"logs": []},
    "/jobmanager/config": [OPTION],
    "/jobmanager/environment": ENVIRONMENT,
    "/jobmanager/metrics": [],
    "/jobmanager/logs": {"logs": []},
}  # fmt: skip

OWN: dict[str, object] = {
    "/leader": {"id": str, "epoch": int, "address": str, "leading": bool, "problem": str},
    JOB + "/failovers": {
        "id": str, "epoch": int, "leader": str, "failover-count": int,
        "failovers": [{
            "epoch": int, "leader": str, "cause": str, "started-at": int, "replayed-operations": int, "replay-ms": float,
            "reconcile-ms": float, "decided-at": int, "gap-ms": int,
            "verdicts": MapOf(int, ("continued", "advanced", "redeployed", "restarted", "orphaned")),
            "restarted": [{"task": str, "vertex-id": str, "subtask": int, "reason": str}],
        }],
        "vertices": [{"id": str, "name": str, "parallelism": int, "attempts": int}],
    },
}  # fmt: skip


def mismatch(value: Any, expected: Any, path: str = "$") -> str:
    """Where the value is not as expected; empty if it is. A list has one item at least, unless ``[]`` is expected."""
    if expected is None or expected == []:
        return "" if value == expected else f"{path}: {value!r} is not {expected!r}"
    if isinstance(expected, type):
        return "" if type(value) is expected else f"{path}: {value!r} is no {expected.__name__}"
    if isinstance(expected, OneOf):
        found = [mismatch(value, option, path) for option in expected.options]
        return "" if "" in found else " or ".join(found)
    if isinstance(expected, list):
        if not isinstance(value, list) or not value:
            return f"{path}: {value!r} is no list with items"
        return next(filter(None, (mismatch(item, expected[0], f"{path}[{i}]") for i, item in enumerate(value))), "")
    if not isinstance(value, dict):
        return f"{path}: {value!r} is no object"
    if isinstance(expected, MapOf):
        keys = value if expected.keys is None else expected.keys
        expected = dict.fromkeys(keys, expected.value)
    if value.keys() != expected.keys():
        return f"{path}: not in both: {sorted(value.keys() ^ expected.keys())}"
    return next(filter(None, (mismatch(value[key], expected[key], f"{path}.{key}") for key in expected)), "")


@pytest.mark.parametrize("prefix", ["", "/v1"])
@pytest.mark.parametrize("path", [*GOLDEN, *OWN])
async def test_an_answer_has_exactly_the_fields_of_its_message(
    path: str, prefix: str, client: Client, graph: ExecutionGraph
) -> None:
    response = await client.get(prefix + path.replace("VERTEX", graph.vertices[0].job_vertex.id))
    assert response.status == 200
    assert response.headers["Content-Type"] == "application/json; charset=UTF-8"
    assert mismatch(await response.json(), (GOLDEN | OWN)[path]) == ""
