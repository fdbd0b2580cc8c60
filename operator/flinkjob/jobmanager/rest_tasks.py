"""Vertices, subtasks and TaskManagers as Flink's REST API tells them: pure functions from the ExecutionGraph to JSON.

The graph keeps of an execution when it was deployed and when it entered its present state. What Flink would say beyond
that (how long it had been RUNNING before it ended, say) is -1: not known. The same goes for what a TaskManager of ours
does not have or measure: a JVM's memory, a port for data.
"""

from collections.abc import Mapping, Sequence

from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.states import ExecutionState
from flinkjob.graph.vertex import ExecutionJobVertex
from flinkjob.jobmanager.rest_values import (
    EXECUTION_STATES,
    UNASSIGNED,
    ConnectedTaskManager,
    Json,
    aggregate_state,
    io_metrics,
    running_progress,
    span,
    state_counts,
    user_accumulators,
)
from flinkjob.worker.protocol import AttemptId, Progress

_DURATION_STATES = ("CREATED", "SCHEDULED", "INITIALIZING", "DEPLOYING", "RUNNING")
_METRICS = (
    "read-bytes", "write-bytes", "read-records", "write-records", "accumulated-backpressured-time",
    "accumulated-busy-time", "accumulated-idle-time",
)  # fmt: skip
_PERCENTILES = (("median", 50), ("p25", 25), ("p75", 75), ("p95", 95))
_NO_RESOURCE = {
    "cpuCores": -1.0, "taskHeapMemory": -1, "taskOffHeapMemory": -1, "managedMemory": -1, "networkMemory": -1,
    "extendedResources": {},
}  # fmt: skip
_HARDWARE = ("cpuCores", "physicalMemory", "freeMemory", "managedMemory")
_MEMORY = (
    "frameworkHeap", "taskHeap", "frameworkOffHeap", "taskOffHeap", "networkMemory", "managedMemory", "jvmMetaspace",
    "jvmOverhead", "totalFlinkMemory", "totalProcessMemory",
)  # fmt: skip
_JVM_METRICS = (
    "heapUsed", "heapCommitted", "heapMax", "nonHeapUsed", "nonHeapCommitted", "nonHeapMax", "directCount",
    "directUsed", "directMax", "mappedCount", "mappedUsed", "mappedMax", "nettyShuffleMemorySegmentsAvailable",
    "nettyShuffleMemorySegmentsUsed", "nettyShuffleMemorySegmentsTotal", "nettyShuffleMemoryAvailable",
    "nettyShuffleMemoryUsed", "nettyShuffleMemoryTotal",
)  # fmt: skip


def vertex_details(
    graph: ExecutionGraph, vertex: ExecutionJobVertex, progress: Mapping[AttemptId, Progress], now: int
) -> Json:
    """``/jobs/:id/vertices/:vid`` (``JobVertexDetailsInfo``)."""
    subtasks = _subtasks(graph, vertex, progress, now)
    return {
        "id": vertex.job_vertex.id,
        "name": vertex.job_vertex.name,
        "parallelism": vertex.parallelism,
        "maxParallelism": vertex.parallelism,
        "now": now,
        "subtasks": subtasks,
        "aggregated": _aggregated(subtasks),
    }


def vertex_taskmanagers(
    graph: ExecutionGraph, vertex: ExecutionJobVertex, progress: Mapping[AttemptId, Progress], now: int
) -> Json:
    """``/jobs/:id/vertices/:vid/taskmanagers``: its subtasks by TaskManager (``JobVertexTaskManagersInfo``)."""
    groups: dict[int, list[Json]] = {}
    for subtask in _subtasks(graph, vertex, progress, now):
        groups.setdefault(vertex.taskmanager[subtask["subtask"]], []).append(subtask)
    return {
        "id": vertex.job_vertex.id,
        "name": vertex.job_vertex.name,
        "now": now,
        "taskmanagers": [_group(vertex, subtasks, now) for _, subtasks in sorted(groups.items())],
    }


def vertex_accumulators(vertex: ExecutionJobVertex) -> Json:
    """``/jobs/:id/vertices/:vid/accumulators``: sums over its finished subtasks (``JobVertexAccumulatorsInfo``)."""
    totals: dict[str, int | float] = {}
    for values in vertex.accumulators.values():
        for name, value in values.items():
            totals[name] = totals.get(name, 0) + value
    return {"id": vertex.job_vertex.id, "user-accumulators": user_accumulators(totals)}


def subtasks_accumulators(graph: ExecutionGraph, vertex: ExecutionJobVertex) -> Json:
    """``/jobs/:id/vertices/:vid/subtasks/accumulators`` (``SubtasksAllAccumulatorsInfo``)."""
    return {
        "id": vertex.job_vertex.id,
        "parallelism": vertex.parallelism,
        "subtasks": [
            {
                "subtask": subtask,
                "attempt": vertex.attempt[subtask],
                "endpoint": _location(graph, vertex, subtask)[0],
                "user-accumulators": user_accumulators(vertex.accumulators.get(subtask, {})),
            }
            for subtask in range(vertex.parallelism)
        ],
    }


def subtask_times(graph: ExecutionGraph, vertex: ExecutionJobVertex, now: int) -> Json:
    """``/jobs/:id/vertices/:vid/subtasktimes`` (``SubtasksTimesInfo``)."""
    subtasks = []
    for subtask in range(vertex.parallelism):
        times = _state_times(graph, vertex, subtask)
        subtasks.append(
            {
                "subtask": subtask,
                "endpoint": _location(graph, vertex, subtask)[0],
                "duration": _span(vertex, subtask, now)["duration"],
                "timestamps": dict.fromkeys(EXECUTION_STATES, 0) | times,
            }
        )
    return {"id": vertex.job_vertex.id, "name": vertex.job_vertex.name, "now": now, "subtasks": subtasks}


def taskmanagers(graph: ExecutionGraph, connected: Mapping[str, ConnectedTaskManager]) -> Json:
    """``/taskmanagers``: those that are connected (``TaskManagersInfo``)."""
    return {"taskmanagers": [_taskmanager(graph, id, info) for id, info in sorted(connected.items())]}


def taskmanager_details(graph: ExecutionGraph, id: str, info: ConnectedTaskManager) -> Json:
    """``/taskmanagers/:id`` (``TaskManagerDetailsInfo``)."""
    told = _taskmanager(graph, id, info)
    slot = {"jobId": graph.job_graph.id, "resource": _NO_RESOURCE, "assignedTasks": 1}
    metrics = {**dict.fromkeys(_JVM_METRICS, 0), "garbageCollectors": []}
    return {**told, "allocatedSlots": [slot] * told["assignedTasks"], "metrics": metrics}


def total_slots(graph: ExecutionGraph, connected: Mapping[str, ConnectedTaskManager]) -> int:
    """The slots of all connected TaskManagers."""
    return sum(_slots(graph, id, info) for id, info in connected.items())


def _slots(graph: ExecutionGraph, id: str, info: ConnectedTaskManager) -> int:
    # It may be connected a moment before it is registered; what it has free is all that is known by then.
    index = graph.taskmanager_index.get(id)
    return info.free_slots if index is None else graph.taskmanagers[index].slots


def _taskmanager(graph: ExecutionGraph, id: str, info: ConnectedTaskManager) -> Json:
    index = graph.taskmanager_index.get(id)
    slots = _slots(graph, id, info)
    return {
        "id": id,
        "path": UNASSIGNED if index is None else graph.taskmanagers[index].address,
        "dataPort": -1,
        "jmxPort": -1,
        # Flink's name misleads its readers and not its clients: it is the time of the heartbeat.
        "timeSinceLastHeartbeat": info.last_heartbeat,
        "slotsNumber": slots,
        "freeSlots": info.free_slots,
        "assignedTasks": max(0, slots - info.free_slots),
        "totalResource": _NO_RESOURCE,
        "freeResource": _NO_RESOURCE,
        "hardware": dict.fromkeys(_HARDWARE, -1),
        "memoryConfiguration": dict.fromkeys(_MEMORY),
    }


def _subtasks(
    graph: ExecutionGraph, vertex: ExecutionJobVertex, progress: Mapping[AttemptId, Progress], now: int
) -> list[Json]:
    running = running_progress(graph, progress).get(vertex.job_vertex.index, {})
    return [_subtask(graph, vertex, subtask, running.get(subtask), now) for subtask in range(vertex.parallelism)]


def _subtask(graph: ExecutionGraph, vertex: ExecutionJobVertex, subtask: int, said: Progress | None, now: int) -> Json:
    """``SubtaskExecutionAttemptDetailsInfo`` of the present attempt."""
    state = vertex.execution_state(subtask)
    endpoint, taskmanager = _location(graph, vertex, subtask)
    times = _span(vertex, subtask, now)
    return {
        "subtask": subtask,
        "status": state.name,
        "attempt": vertex.attempt[subtask],
        "endpoint": endpoint,
        **times,
        "start_time": times["start-time"],
        "metrics": io_metrics(
            size=said.size if said else vertex.size[subtask],
            records=said.records if said else vertex.records[subtask],
            complete=said is not None or state is not ExecutionState.RUNNING,
            source=not vertex.job_vertex.inputs,
        ),
        "taskmanager-id": taskmanager,
        "status-duration": _status_durations(graph, vertex, subtask, now),
    }


def _location(graph: ExecutionGraph, vertex: ExecutionJobVertex, subtask: int) -> tuple[str, str]:
    """Address and id of the subtask's TaskManager."""
    index = vertex.taskmanager[subtask]
    if index < 0:
        return UNASSIGNED, UNASSIGNED
    return graph.taskmanagers[index].address, graph.taskmanagers[index].id


def _span(vertex: ExecutionJobVertex, subtask: int, now: int) -> Json:
    ended = vertex.execution_state(subtask).terminal
    return span(start=vertex.deployed_at[subtask], end=vertex.since[subtask], ended=ended, now=now)


def _state_times(graph: ExecutionGraph, vertex: ExecutionJobVertex, subtask: int) -> dict[str, int]:
    """When the present attempt entered the states of which that is known."""
    state = vertex.execution_state(subtask)
    times = {state.name: vertex.since[subtask] or graph.started_at}
    if vertex.deployed_at[subtask]:
        times["DEPLOYING"] = vertex.deployed_at[subtask]
    return times


def _status_durations(graph: ExecutionGraph, vertex: ExecutionJobVertex, subtask: int, now: int) -> dict[str, int]:
    state = vertex.execution_state(subtask)
    durations = dict.fromkeys(_DURATION_STATES, -1)
    times = _state_times(graph, vertex, subtask)
    if state is ExecutionState.RUNNING:
        durations["DEPLOYING"] = max(0, times["RUNNING"] - times["DEPLOYING"])
    if state.name in durations:
        durations[state.name] = max(0, now - times[state.name])
    return durations


def _group(vertex: ExecutionJobVertex, subtasks: Sequence[Json], now: int) -> Json:
    """``JobVertexTaskManagersInfo.TaskManagersInfo``: the subtasks of one vertex on one TaskManager."""
    states = [vertex.state[subtask["subtask"]] for subtask in subtasks]
    counts = state_counts(states.count(state) for state in ExecutionState)
    starts = [subtask["start-time"] for subtask in subtasks if subtask["start-time"] > 0]
    return {
        "endpoint": subtasks[0]["endpoint"],
        "status": aggregate_state(counts, len(subtasks)),
        **span(
            start=min(starts, default=0),
            end=max(subtask["end-time"] for subtask in subtasks),
            ended=all(ExecutionState(state).terminal for state in states),
            now=now,
        ),
        "metrics": io_metrics(
            size=sum(subtask["metrics"]["write-bytes"] for subtask in subtasks),
            records=sum(subtask["metrics"]["write-records"] for subtask in subtasks),
            complete=all(subtask["metrics"]["write-bytes-complete"] for subtask in subtasks),
            source=not vertex.job_vertex.inputs,
        ),
        "status-counts": counts,
        "taskmanager-id": subtasks[0]["taskmanager-id"],
        "aggregated": _aggregated(subtasks),
    }


def _aggregated(subtasks: Sequence[Json]) -> Json:
    """``AggregatedTaskDetailsInfo``: how each number is spread over the subtasks."""
    return {
        "metrics": {name: spread([int(subtask["metrics"][name]) for subtask in subtasks]) for name in _METRICS},
        "status-duration": {
            name: spread([subtask["status-duration"][name] for subtask in subtasks]) for name in _DURATION_STATES
        },
    }


def spread(values: Sequence[int]) -> dict[str, int]:
    ordered = sorted(values)
    total = sum(ordered)
    told = {"min": ordered[0], "max": ordered[-1], "avg": total // len(ordered), "sum": total}
    return told | {name: _percentile(ordered, percent) for name, percent in _PERCENTILES}


def _percentile(ordered: Sequence[int], percent: int) -> int:
    """The value at rank ``percent / 100 * (n + 1)``, between two neighbours in proportion: what Flink's library does."""
    rank, rest = divmod(percent * (len(ordered) + 1), 100)
    if rank < 1:
        return ordered[0]
    if rank >= len(ordered):
        return ordered[-1]
    return ordered[rank - 1] + (ordered[rank] - ordered[rank - 1]) * rest // 100
