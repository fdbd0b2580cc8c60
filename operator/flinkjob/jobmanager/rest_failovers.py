"""``/jobs/:id/failovers`` and ``/jobs/:id/failover-preview``: the answers for which Flink has no words."""

from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.operations import FailoverCompleted
from flinkjob.jobmanager.rest_values import Json
from flinkjob.jobmaster.preview import FailoverPreview

VERDICTS = ("continued", "advanced", "redeployed", "restarted", "orphaned")
"""The verdicts that every failover tells the number of, be it zero."""


def failovers(graph: ExecutionGraph) -> Json:
    """``/jobs/:id/failovers``: what Flink has no words for. Times in milliseconds; the latest failover last.

    ``failovers[]`` are those that the graph remembers, ``failover-count`` counts all. ``vertices[].attempts`` is how
    many executions the subtasks of the vertex have had.
    """
    return {
        "id": graph.job_graph.id,
        "epoch": graph.epoch,
        "leader": graph.leader,
        "failover-count": graph.failover_count,
        "failovers": [_failover(graph, failover) for failover in graph.failovers],
        "vertices": [
            {
                "id": vertex.job_vertex.id,
                "name": vertex.job_vertex.name,
                "parallelism": vertex.parallelism,
                "attempts": sum(vertex.attempt) + vertex.parallelism,
            }
            for vertex in graph.vertices
        ],
    }


def failover_preview(graph: ExecutionGraph, preview: FailoverPreview) -> Json:
    """``/jobs/:id/failover-preview``: what a failover at this moment would do, in the words of ``/jobs/:id/failovers``.

    ``tasks[]`` are those that would not simply go on. ``waited-for`` are TaskManagers that are not connected now.
    """
    verdicts = {verdict.value: count for verdict, count in preview.verdicts.items()}
    return {
        "id": graph.job_graph.id,
        "name": graph.job_graph.name,
        "state": graph.status.name,
        "epoch": graph.epoch,
        "leader": graph.leader,
        "verdicts": dict.fromkeys(VERDICTS, 0) | verdicts,
        "waited-for": list(preview.waited_for),
        "tasks": [
            {
                "task": graph.task_name(*item.task),
                "vertex-id": graph.job_graph.vertices[item.task.vertex].id,
                "subtask": item.task.subtask,
                "verdict": item.verdict.value,
                "reason": item.reason,
            }
            for item in preview.tasks
        ],
    }


def _failover(graph: ExecutionGraph, failover: FailoverCompleted) -> Json:
    return {
        "epoch": failover.epoch,
        "leader": failover.leader,
        "cause": failover.cause,
        "started-at": failover.started_at,
        "replayed-operations": failover.replayed_operations,
        "replay-ms": failover.replay_ms,
        "reconcile-ms": failover.reconcile_ms,
        "decided-at": failover.decided_at,
        "gap-ms": failover.gap_ms,
        "verdicts": dict.fromkeys(VERDICTS, 0) | failover.verdicts,
        "restarted": [
            {
                "task": graph.task_name(task.vertex, task.subtask),
                "vertex-id": graph.job_graph.vertices[task.vertex].id,
                "subtask": task.subtask,
                "reason": task.reason,
            }
            for task in failover.restarted
        ],
    }
