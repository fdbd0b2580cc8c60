"""How a job that has ended is reported to a person: its result, and what each failover cost."""

from rich.console import Console
from rich.table import Table

from flinkjob.local.report import Report

SHOWN_RECORDS = 20


def print_report(report: Report, console: Console) -> None:
    """All that the report has, the first records of each output."""
    result = report.result
    tasks = sum(vertex.parallelism for vertex in result.vertices)
    finished = sum(vertex.finished for vertex in result.vertices)
    console.print(
        f"Job {result.name} is {result.state} after {report.duration_ms / 1000:.1f} s: "
        f"{finished} of {tasks} tasks finished, {report.restarted_tasks} restarted",
        highlight=False,
    )
    if result.cause and result.state != "FINISHED":
        console.print(f"  {result.cause}", highlight=False, markup=False)
    if report.failovers:
        console.print(_failovers(report))
    for failover in report.failovers:
        for task in failover.restarted:
            console.print(f"  restarted in epoch {failover.epoch}: {task.task}: {task.reason}", markup=False)
    if result.accumulators:
        console.print(
            "Accumulators: " + ", ".join(f"{name} {value:,}" for name, value in result.accumulators.items()),
            highlight=False,
            markup=False,
        )
    for vertex, records in report.outputs.items():
        console.print(f"Result of {vertex}:", highlight=False, markup=False)
        for record in records[:SHOWN_RECORDS]:
            console.print(f"  {record}", highlight=False, markup=False)
        if len(records) > SHOWN_RECORDS:
            console.print(f"  … and more: {len(records)} records or more in all", highlight=False)


def _failovers(report: Report) -> Table:
    table = Table(title="Failovers of the JobManager", title_justify="left")
    for column in ("Epoch", "New leader", "Why", "Running", "Continued", "Restarted", "Gap"):
        table.add_column(column, justify="left" if column in ("New leader", "Why") else "right", overflow="fold")
    for failover in report.failovers:
        kept = failover.verdicts["continued"] + failover.verdicts["advanced"] + failover.verdicts["redeployed"]
        table.add_row(
            str(failover.epoch),
            failover.leader,
            failover.cause,
            str(kept + failover.verdicts["restarted"]),
            str(kept),
            str(failover.verdicts["restarted"]),
            f"{failover.gap_ms} ms" if failover.gap_ms is not None else "-",
        )
    return table
