"""``flinkjob log``: a job's operation log, looked at from outside. Nothing is ever written."""

from typing import Any

import click
import msgspec

from flinkjob.api.errors import InvalidInput
from flinkjob.graph.describe import as_values, in_words
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.jobgraph import JobGraph
from flinkjob.graph.states import ExecutionState
from flinkjob.oplog import inspect
from flinkjob.oplog.storage import JobStorage

url_argument = click.argument("url", metavar="URL")
output_option = click.option(
    "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Words, or JSON."
)


@click.group()
def log() -> None:
    """Look at an operation log.

    URL is a job's directory below high-availability.storageDir, <storageDir>/<namespace>/<name>-<uid>.
    """


@log.command()
@url_argument
@output_option
def show(url: str, output: str) -> None:
    """Print every operation that is still there, one a line."""
    storage = JobStorage(url)
    job_graph = _job_graph(storage)
    for lsn, epoch, operation in inspect.show(storage):
        if output == "json":
            click.echo(msgspec.json.encode({"lsn": lsn, "epoch": epoch, **as_values(operation)}))
        else:
            click.echo(f"{lsn:>8}  epoch {epoch:<3} {in_words(operation, job_graph)}")


@log.command()
@url_argument
@output_option
def verify(url: str, output: str) -> None:
    """Check every checksum, epoch and position; exit with 1 when something is damaged."""
    report = inspect.verify(JobStorage(url))
    if output == "json":
        click.echo(_json(report))
    else:
        for segment in report.segments:
            click.echo(
                f"{segment.file}: epoch {segment.epoch}, {segment.blocks} blocks, LSN {segment.first_lsn} to "
                f"{segment.last_lsn}, {segment.size} bytes"
                + (f", {segment.torn_bytes} bytes torn" if segment.torn_bytes else "")
            )
        for snapshot in report.snapshots:
            click.echo(f"{snapshot.file}: snapshot at LSN {snapshot.lsn}, {snapshot.size} bytes")
        for note in report.notes:
            click.echo(f"note: {note}")
        click.echo(f"damaged: {report.damage}" if report.damage else f"intact up to LSN {report.last_lsn}")
    if report.damage:
        raise click.exceptions.Exit(1)


@log.command()
@url_argument
@click.option("--until", "until_lsn", type=click.IntRange(0), help="Stop at this LSN.  [default: the end]")
@output_option
def replay(url: str, until_lsn: int | None, output: str) -> None:
    """Print the graph that the log folds into, as of now or of an LSN."""
    storage = JobStorage(url)
    graph = inspect.fold(storage, _job_graph(storage), until_lsn=until_lsn)
    if output == "json":
        click.echo(_json(_graph_values(graph)))
        return
    click.echo(
        f"job {graph.job_graph.name} is {graph.status.name} at LSN {graph.lsn}, epoch {graph.epoch} "
        f"(leader {graph.leader}), {graph.failover_count} failovers, {graph.restarts} restarts"
    )
    for vertex in graph.vertices:
        counts = ", ".join(f"{vertex.counts[state]} {state.name}" for state in ExecutionState if vertex.counts[state])
        click.echo(f"  {vertex.job_vertex.name}: {counts}")


def _job_graph(storage: JobStorage) -> JobGraph:
    data = storage.read_job_graph()
    if data is None:
        raise InvalidInput(
            f"{storage.url}: there is no job; a job's directory is <storageDir>/<namespace>/<name>-<uid>"
        )
    return JobGraph.decode(data)


def _graph_values(graph: ExecutionGraph) -> dict[str, Any]:
    return {
        "job": {"id": graph.job_graph.id, "name": graph.job_graph.name, "state": graph.status.name},
        "lsn": graph.lsn,
        "epoch": graph.epoch,
        "leader": graph.leader,
        "failovers": graph.failover_count,
        "restarts": graph.restarts,
        "accumulators": graph.accumulators(),
        "vertices": [
            {
                "name": vertex.job_vertex.name,
                "subtasks": [
                    {
                        "state": vertex.execution_state(subtask).name,
                        "attempt": vertex.attempt[subtask],
                        "taskmanager": graph.taskmanagers[at].id if (at := vertex.taskmanager[subtask]) >= 0 else None,
                    }
                    for subtask in range(vertex.parallelism)
                ],
            }
            for vertex in graph.vertices
        ],
    }


def _json(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2)
