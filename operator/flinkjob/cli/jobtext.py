"""How a FlinkJob on a cluster is shown to a person: one line of many, a whole page, or what has just happened."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from flinkjob.api.status import Condition, FailoverStatus, LogStatus, Wanted
from flinkjob.cli.kubejobs import JobOnCluster

_COLOURS = {"RUNNING": "cyan", "FINISHED": "green", "FAILED": "red", "CANCELED": "yellow", "FAILING": "red"}
_BAD_WHEN_TRUE = ("Failed", "Reconciling")
_SHOWN_RESTARTS = 5
_USUAL_STATES = ("created", "running", "finished")


def jobs_table(jobs: Sequence[JobOnCluster], now: datetime, *, namespaces: bool) -> Table:
    """A line for each job; the columns are those of ``kubectl get flinkjobs``."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in (
        *(("Namespace",) if namespaces else ()),
        *("Name", "State", "Leader", "Epoch", "Tasks", "Failovers", "Protected", "Age"),
    ):
        right = column in ("Epoch", "Failovers", "Age")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for job in jobs:
        status = job.status
        table.add_row(
            *((job.metadata.namespace,) if namespaces else ()),
            job.name,
            _state(job.state),
            status.current_leader or "-",
            str(status.leader.epoch) if status.leader else "-",
            status.tasks or "-",
            str(status.failovers or 0),
            next((condition.status for condition in status.conditions if condition.type == "Protected"), "-"),
            span(now, job.metadata.creation_timestamp),
        )
    return table


def job_page(job: JobOnCluster, now: datetime) -> RenderableType:
    """All that the status says of a job."""
    parts: list[RenderableType] = [_facts(job, now)]
    if job.status.conditions:
        parts.append(_conditions(job.status.conditions, now))
    if job.status.job_status and job.status.job_status.vertices:
        parts.append(vertices_table(job))
    if job.status.failover_history:
        parts.append(failovers_table(job.status.failover_history, now))
        parts += [Text(line) for line in restarts(job.status.failover_history[-1])]
    spaced = (renderable for part in parts for renderable in (part, Text()))
    return Group(*list(spaced)[:-1])


def vertices_table(job: JobOnCluster) -> Table:
    """The job's tasks by vertex and state; of the states that are rare, those that there are."""
    vertices = job.status.job_status.vertices if job.status.job_status else ()
    states = [
        state
        for state in ("created", "deploying", "running", "finished", "canceling", "canceled", "failed")
        if state in _USUAL_STATES or any(getattr(vertex.tasks, state) for vertex in vertices)
    ]
    table = _table("Tasks")
    table.add_column("Vertex", overflow="fold")
    for column in ("Parallelism", *states):
        table.add_column(column.capitalize(), justify="right", overflow="fold")
    for vertex in vertices:
        counts = (getattr(vertex.tasks, state) for state in states)
        table.add_row(escape(vertex.name), str(vertex.parallelism), *(str(count) if count else "-" for count in counts))
    return table


def failovers_table(failovers: Sequence[FailoverStatus], now: datetime) -> Table:
    """A line for each failover, the newest last."""
    table = _table("Failovers")
    for column in ("Epoch", "New leader", "Why", "Age", "Running", "Continued", "Restarted", "Gap"):
        left = column in ("New leader", "Why")
        table.add_column(column, justify="left" if left else "right", overflow="fold")
    for failover in failovers:
        kept = kept_tasks(failover)
        table.add_row(
            str(failover.epoch),
            escape(failover.leader),
            escape(failover.cause),
            span(now, failover.detected_at),
            str(kept + failover.verdicts.restarted),
            str(kept),
            str(failover.verdicts.restarted),
            milliseconds(failover.gap_ms),
        )
    return table


def kept_tasks(failover: FailoverStatus) -> int:
    """How many tasks that were under way go on in the same attempt."""
    verdicts = failover.verdicts
    return verdicts.continued + verdicts.advanced + verdicts.redeployed


def restarts(failover: FailoverStatus) -> Iterator[str]:
    """The tasks that a failover ran again, and why."""
    for task in failover.restarted[:_SHOWN_RESTARTS]:
        yield f"  restarted in epoch {failover.epoch}: {task.task}: {task.reason}"
    if (more := failover.verdicts.restarted - _SHOWN_RESTARTS) > 0 and len(failover.restarted) > _SHOWN_RESTARTS:
        yield f"  … and {more} more"


def failover_lines(failover: FailoverStatus) -> Iterator[str]:
    """What one failover did, in words."""
    verdicts = failover.verdicts
    under_way = kept_tasks(failover) + verdicts.restarted
    yield (
        f"{failover.leader} leads in epoch {failover.epoch}: of {under_way} tasks under way {verdicts.continued} were "
        f"continued, {verdicts.advanced} had advanced, {verdicts.redeployed} were redeployed, {verdicts.restarted} restarted"
    )
    yield (
        f"  replayed {failover.replayed_operations} operations in {milliseconds(failover.replay_ms)}, "
        f"reconciled in {milliseconds(failover.reconcile_ms)}, gap {milliseconds(failover.gap_ms)}"
    )
    yield from restarts(failover)


def progress_line(job: JobOnCluster) -> str:
    """The job in one line, for where there is no terminal."""
    status = job.status
    leads = status.leader if status.current_leader else None
    leader = f"led by {leads.pod} in epoch {leads.epoch}" if leads else "without a leader"
    counts = status.job_status.tasks if status.job_status else None
    tasks = f"{counts.running} running, {counts.finished} of {counts.total} finished" if counts else "no tasks yet"
    reconciling = ", reconciling" if status.reconciling else ""
    return f"{job.state} {leader}{reconciling}: {tasks}"


def span(now: datetime, then: str) -> str:
    """How long ago a time of Kubernetes was, in its two largest units; ``-`` where it is none."""
    try:
        seconds = int((now - datetime.fromisoformat(then)).total_seconds())
    except (ValueError, TypeError):
        return "-"
    seconds = max(0, seconds)
    units = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
    parts = [f"{seconds // size % (10**9 if size == 86_400 else units[index - 1][0] // size)}{unit}"
             for index, (size, unit) in enumerate(units)]  # fmt: skip
    largest = next((index for index, part in enumerate(parts) if not part.startswith("0")), 3)
    return "".join(part for part in parts[largest : largest + 2] if not part.startswith("0")) or "0s"


def milliseconds(value: float | None) -> str:
    """A duration for people; ``-`` where it is not known."""
    if value is None:
        return "-"
    return f"{value:.0f} ms" if value < 10_000 else f"{value / 1000:.1f} s"


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


def _facts(job: JobOnCluster, now: datetime) -> Table:
    status, table = job.status, Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("FlinkJob", escape(f"{job.metadata.namespace}/{job.name}"))
    told = status.job_status
    state = _state(job.state)
    if told and told.start_time:
        until = datetime.fromisoformat(told.end_time) if told.end_time else now
        state += f" after {span(until, told.start_time)}" if told.end_time else f" for {span(until, told.start_time)}"
    table.add_row("State", state)
    if told and told.error:
        table.add_row("Error", escape(told.error))
    if told and told.job_id:
        table.add_row("Job id", told.job_id)
    table.add_row("Leader", escape(_leader(job, now)))
    table.add_row("JobManagers", _pods(status.job_managers))
    table.add_row("TaskManagers", _pods(status.task_managers))
    if status.tasks:
        table.add_row("Tasks", f"{status.tasks} (running/finished/total)")
    table.add_row("Log", _log(status.log))
    table.add_row("Failovers", str(status.failovers or 0))
    return table


def _leader(job: JobOnCluster, now: datetime) -> str:
    leader = job.status.leader
    if leader is None:
        return "none"
    if not job.status.current_leader:
        return f"none; the last was {leader.pod}, epoch {leader.epoch}"
    return f"{leader.pod}, epoch {leader.epoch}, for {span(now, leader.since)}"


def _conditions(conditions: Sequence[Condition], now: datetime) -> Table:
    table = _table("Conditions")
    for column in ("Type", "Status", "Reason", "For", "Message"):
        table.add_column(column, overflow="fold")
    for condition in conditions:
        good = "False" if condition.type in _BAD_WHEN_TRUE else "True"
        colour = "green" if condition.status == good else "yellow"
        table.add_row(
            condition.type,
            f"[{colour}]{condition.status}[/]",
            condition.reason,
            span(now, condition.last_transition_time),
            escape(condition.message),
        )
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)


def _pods(pods: Wanted | None) -> str:
    return f"{pods.ready} of {pods.wanted} ready" if pods else "-"


def _log(log: LogStatus | None) -> str:
    if log is None:
        return "-"
    if not log.writable:
        return f"[red]not writable[/]: {escape(log.problem or 'no reason is known')}"
    return f"writable, {milliseconds(log.lag_ms)} behind"


def _state(state: str) -> str:
    colour = _COLOURS.get(state)
    return f"[{colour}]{state}[/]" if colour else escape(state)
