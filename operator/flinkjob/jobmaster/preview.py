"""What a failover at this moment would do: the verdicts that a new leader would give, foretold from the live state.

It is the same judgement as `reconciliation` comes to, with one difference: what a TaskManager would report is taken from
what its leader last heard of it. So it is true of this moment, and no promise for the next.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.states import ExecutionState
from flinkjob.graph.vertex import TaskId
from flinkjob.jobmaster.failover import full_restart, region_restart
from flinkjob.jobmaster.verdicts import Verdict, judge

_E = ExecutionState


@dataclass(frozen=True, slots=True)
class PreviewedTask:
    """A task that would not simply go on.

    Attributes:
        verdict: REDEPLOYED, CANCELED_AGAIN or CONFLICT.
        reason: why, for people.
    """

    task: TaskId
    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True)
class FailoverPreview:
    """What a failover now would do.

    Attributes:
        verdicts: how many tasks would get which verdict; CONTINUED are those that would not notice.
        tasks: all that would, in the order of the graph.
        waited_for: TaskManagers with tasks that are not connected now; a new leader would wait for them, up to
            ``jobmanager.failover.reconcile-timeout``.
    """

    verdicts: Mapping[Verdict, int]
    tasks: tuple[PreviewedTask, ...]
    waited_for: tuple[str, ...]


def preview_failover(
    graph: ExecutionGraph,
    *,
    connected: Callable[[str], bool],
    missing: Collection[TaskId] = (),
    logged: bool = True,
    restart_all: bool = False,
) -> FailoverPreview:
    """Foretell a failover.

    Args:
        connected: whether a TaskManager is, by its id.
        missing: finished subtasks whose partitions are needed and not as they should be.
        logged: whether there is an operation log; without it nothing survives.
        restart_all: the failover strategy is ``full``, not ``region``.
    """
    if graph.status.terminal:
        return FailoverPreview({}, (), ())
    if not logged:
        reason = "there is no operation log: a new leader begins the job anew"
        return _preview({}, dict.fromkeys(full_restart(graph), reason), 0, ())
    others: dict[TaskId, tuple[Verdict, str]] = {}
    restarted = dict.fromkeys(graph.restart_due, "its restart is already scheduled")
    failed, away, continued = set(), set(), 0
    for task in graph.active_tasks():
        state = graph.state_of(task)
        taskmanager = graph.taskmanagers[graph.vertex_of(task).taskmanager[task.subtask]].id
        if state is _E.CANCELING:
            others[task] = Verdict.CANCELED_AGAIN, "it is being cancelled"
        elif not connected(taskmanager):
            away.add(taskmanager)
            failed.add(task)
            restarted.setdefault(task, f"TaskManager {taskmanager} is not connected, unless it comes back in time")
        elif state is _E.DEPLOYING:
            others[task] = judge(state, None), "its deployment may still be on its way; where it arrived, it goes on"
        else:
            continued += 1
    for task in missing:
        restarted.setdefault(task, "its result partition is missing or damaged")
    for task in _to_restart(graph, failed, missing, restart_all=restart_all):
        if task not in restarted:
            restarted[task] = "what it read runs again"
            continued -= graph.state_of(task) is _E.RUNNING
    return _preview(others, restarted, continued, sorted(away))


def _to_restart(
    graph: ExecutionGraph, failed: Collection[TaskId], lost: Collection[TaskId], *, restart_all: bool
) -> set[TaskId]:
    if not failed and not lost:
        return set()
    return full_restart(graph) if restart_all else region_restart(graph, failed, lost)


def _preview(
    others: Mapping[TaskId, tuple[Verdict, str]],
    restarted: Mapping[TaskId, str],
    continued: int,
    waited_for: Collection[str],
) -> FailoverPreview:
    told = {task: PreviewedTask(task, verdict, reason) for task, (verdict, reason) in others.items()}
    told |= {task: PreviewedTask(task, Verdict.CONFLICT, reason) for task, reason in restarted.items()}
    verdicts = Counter(item.verdict for item in told.values())
    verdicts[Verdict.CONTINUED] = continued
    return FailoverPreview(dict(verdicts), tuple(told[task] for task in sorted(told)), tuple(waited_for))
