"""The verdict on one attempt when a TaskManager (re-)registers: what the log says against what the TaskManager says.

It is the table of the design, as one function. The log may lag behind the TaskManager, since a report may have been lost
with the old leader; it is never ahead of it but for a deployment that did not arrive. So the TaskManager's word counts
wherever it legally follows the log's; everything else is a conflict, and its reason is told.
"""

from collections.abc import Iterable
from enum import StrEnum

from flinkjob.api.errors import ProtocolViolation
from flinkjob.graph.states import ExecutionState, may_follow
from flinkjob.worker.protocol import Report


class Verdict(StrEnum):
    """What becomes of an attempt after a failover or a reconnection."""

    CONTINUED = "continued"
    """The same state on both sides: nothing is sent to the task."""
    ADVANCED = "advanced"
    """The TaskManager knows more: its report is logged, then handled as usual."""
    REDEPLOYED = "redeployed"
    """The command never arrived: it is sent again, for the same attempt."""
    CONFLICT = "restarted"
    """The TaskManager does not have it: it fails and is restarted by the restart strategy."""
    CANCELED_AGAIN = "cancelled"
    """It is being cancelled and still runs: the command is sent again."""
    ENDED = "ended"
    """Both know its end: the report is acknowledged."""
    ORPHANED = "orphaned"
    """The log has no use for it: it is cancelled."""


def judge(logged: ExecutionState, reported: ExecutionState | None) -> Verdict:
    """The verdict on an attempt that the log has on this TaskManager.

    Args:
        logged: its state in the log, an active one.
        reported: its state in the TaskManager's report (DEPLOYING, RUNNING or a terminal one); None: it is not in it.
    """
    if reported is None:
        return _UNREPORTED[logged]
    if logged is ExecutionState.CANCELING:
        return Verdict.ADVANCED if reported.terminal else Verdict.CANCELED_AGAIN
    return Verdict.ADVANCED if reported is not logged and may_follow(logged, reported) else Verdict.CONTINUED


def check_reports(taskmanager: str, reports: Iterable[Report]) -> None:
    """Refuse what no TaskManager can have to tell.

    Raises:
        ProtocolViolation: a state that only the log knows, or a partition that cannot be.
    """
    for report in reports:
        if report.state in (ExecutionState.CREATED, ExecutionState.CANCELING):
            raise ProtocolViolation(f"TaskManager {taskmanager!r} reports an attempt as {report.state.name}")
        if not report.partition.possible:
            raise ProtocolViolation(f"TaskManager {taskmanager!r} reports an impossible partition: {report.partition}")


_UNREPORTED = {
    ExecutionState.DEPLOYING: Verdict.REDEPLOYED,
    ExecutionState.RUNNING: Verdict.CONFLICT,
    ExecutionState.CANCELING: Verdict.ADVANCED,
}
