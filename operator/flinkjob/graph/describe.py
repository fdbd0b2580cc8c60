"""An operation in words, and as plain values."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from flinkjob.graph import operations as ops
from flinkjob.graph.jobgraph import JobGraph


def as_values(operation: ops.Operation) -> dict[str, Any]:
    """The operation as JSON-like values, with its name as ``operation`` and enumerations by name."""
    values = msgspec.structs.asdict(operation)
    if isinstance(operation, ops.JobStatusChanged):
        values["status"] = operation.status.name
    if isinstance(operation, ops.TaskStateChanged):
        values["state"] = operation.state.name
    for name, value in values.items():
        values[name] = _plain(value)
    return {"operation": type(operation).__name__, **values}


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return {name: _plain(part) for name, part in msgspec.structs.asdict(value).items()}
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    return value


def in_words(operation: ops.Operation, job_graph: JobGraph) -> str:
    """The operation as a sentence for people."""
    at = getattr(operation, "at", None) or getattr(operation, "decided_at", None)
    return (_time(at) + " " if at else "") + _sentence(operation, job_graph)


def _time(at: int) -> str:
    try:
        return datetime.fromtimestamp(at / 1000, UTC).strftime("%H:%M:%S.%f")[:-3]
    except (OverflowError, ValueError, OSError):
        return f"{at} ms"


def _sentence(operation: ops.Operation, job_graph: JobGraph) -> str:
    def name(vertex: int) -> str:
        known = 0 <= vertex < len(job_graph.vertices)
        return job_graph.vertices[vertex].name if known else f"vertex {vertex}"

    def task(vertex: int, subtask: int) -> str:
        return f"{name(vertex)}[{subtask}]"

    match operation:
        case ops.EpochStarted(epoch, leader):
            return f"epoch {epoch} begins, {leader} leads"
        case ops.JobStatusChanged(status, _, cause):
            return f"the job is {status.name}" + (f": {cause}" if cause else "")
        case ops.TaskManagerRegistered(taskmanager_id, address, slots):
            return f"TaskManager {taskmanager_id} at {address} registers with {slots} slots"
        case ops.TaskManagerRemoved(taskmanager, cause):
            return f"TaskManager number {taskmanager} is removed: {cause}"
        case ops.SplitsCreated(vertex, splits):
            return f"{name(vertex)} has {len(splits)} splits"
        case ops.SplitsAssigned(vertex, subtask, first, count):
            last = f" to {first + count - 1}" if count > 1 else ""
            return f"{task(vertex, subtask)} is given split {first}{last}"
        case ops.TaskDeploying(vertex, subtask, attempt, taskmanager):
            return f"{task(vertex, subtask)} attempt {attempt} is DEPLOYING to TaskManager number {taskmanager}"
        case ops.TaskStateChanged(vertex, subtask, attempt, state):
            return f"{task(vertex, subtask)} attempt {attempt} is {state.name}"
        case ops.TaskFinished(vertex, subtask, attempt, _, partition):
            return (
                f"{task(vertex, subtask)} attempt {attempt} is FINISHED with {partition.records} records "
                f"in {partition.size} bytes"
            )
        case ops.TaskFailed(vertex, subtask, attempt, _, cause):
            return f"{task(vertex, subtask)} attempt {attempt} is FAILED: {cause}"
        case ops.RestartScheduled(tasks, due, cause, _, at):
            return f"{len(tasks)} tasks are to run again in {due - at} ms: {cause}"
        case ops.TasksReset(vertex, subtasks):
            return f"{', '.join(task(vertex, subtask) for subtask in subtasks)}: the next attempt may begin"
        case ops.FailoverCompleted():
            verdicts = ", ".join(f"{count} {verdict}" for verdict, count in operation.verdicts.items() if count)
            return f"the failover to {operation.leader} is over: {verdicts or 'nothing was running'}"
