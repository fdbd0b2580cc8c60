"""Flink's words for our values: what `rest_model` and `rest_tasks` both tell."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.states import ExecutionState
from flinkjob.worker.protocol import AttemptId, Progress

Json: TypeAlias = dict[str, Any]

EXECUTION_STATES = (
    "CREATED", "SCHEDULED", "DEPLOYING", "RUNNING", "FINISHED", "CANCELING", "CANCELED", "FAILED", "RECONCILING",
    "INITIALIZING",
)  # fmt: skip
"""Flink's ``ExecutionState``, in its order."""

UNASSIGNED = "(unassigned)"
"""What Flink shows for the TaskManager of a subtask that has none."""

HIDDEN = "******"
_SECRET = re.compile(r"password|secret|token|credential|jaas\.config|basic-auth|auth-params|http-headers|key", re.I)
_PASSWORD_IN_URL = re.compile(r"(://[^:\s]*:).*@")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectedTaskManager:
    """What only the living connection knows of a TaskManager.

    Attributes:
        last_heartbeat: when it last gave a sign of life, milliseconds.
        free_slots: slots that no task occupies.
    """

    last_heartbeat: int
    free_slots: int


def hide_secrets(options: Mapping[str, str]) -> dict[str, str]:
    """The options, with what looks like a secret replaced: by its key, or as the password within a URL.

    More keys count than Flink's ``GlobalConfiguration`` hides: a value too many hidden does less harm than one too few.
    """
    return {
        key: HIDDEN if _SECRET.search(key) else _PASSWORD_IN_URL.sub(rf"\g<1>{HIDDEN}@", value)
        for key, value in options.items()
    }


def state_counts(counts: Iterable[int]) -> dict[str, int]:
    """Numbers of executions by Flink's states, from those by ours."""
    return dict.fromkeys(EXECUTION_STATES, 0) | {
        state.name: count for state, count in zip(ExecutionState, counts, strict=True)
    }


def aggregate_state(counts: Mapping[str, int], total: int) -> str:
    """The state that stands for all subtasks (``ExecutionJobVertex.getAggregateJobVertexState``)."""
    for state in ("FAILED", "CANCELING", "CANCELED", "RUNNING"):
        if counts[state]:
            return state
    if counts["FINISHED"]:
        return "FINISHED" if counts["FINISHED"] == total else "RUNNING"
    return "CREATED"


def span(*, start: int, end: int, ended: bool, now: int) -> Json:
    """``start-time``, ``end-time`` and ``duration`` of what began at ``start`` (0: it has not)."""
    if not start:
        return {"start-time": -1, "end-time": -1, "duration": -1}
    # Two leaders' clocks may differ; a negative duration would read as "not known".
    return {
        "start-time": start,
        "end-time": end if ended else -1,
        "duration": max(0, (end if ended else now) - start),
    }


def io_metrics(*, size: int, records: int, complete: bool, source: bool) -> Json:
    """``IOMetricsInfo``: bytes and records written, and whether that is all there is to know.

    Flink's *read* is what comes from other tasks: nothing for a source, and not measured here for the others.
    """
    return {
        "read-bytes": 0,
        "read-bytes-complete": source,
        "write-bytes": size,
        "write-bytes-complete": complete,
        "read-records": 0,
        "read-records-complete": source,
        "write-records": records,
        "write-records-complete": complete,
        "accumulated-backpressured-time": 0,
        "accumulated-idle-time": 0,
        "accumulated-busy-time": 0.0,
    }


def running_progress(graph: ExecutionGraph, progress: Mapping[AttemptId, Progress]) -> dict[int, dict[int, Progress]]:
    """What running attempts say of themselves, by vertex and subtask; attempts that are over are left out."""
    by_vertex: dict[int, dict[int, Progress]] = {}
    for attempt, said in progress.items():
        if attempt.run != graph.run or not 0 <= attempt.vertex < len(graph.vertices):
            continue
        vertex = graph.vertices[attempt.vertex]
        if (
            0 <= attempt.subtask < vertex.parallelism
            and vertex.attempt[attempt.subtask] == attempt.attempt
            and vertex.state[attempt.subtask] == ExecutionState.RUNNING
        ):
            by_vertex.setdefault(attempt.vertex, {})[attempt.subtask] = said
    return by_vertex


def user_accumulators(values: Mapping[str, int | float]) -> list[Json]:
    """Accumulators with Flink's names of their types; their values are texts."""
    return [
        {"name": name, "type": "LongCounter" if isinstance(value, int) else "DoubleCounter", "value": str(value)}
        for name, value in sorted(values.items())
    ]
