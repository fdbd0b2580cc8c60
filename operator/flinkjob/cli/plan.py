"""``flinkjob plan``: what a manifest would run, checked and shown without running it."""

import asyncio
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from flinkjob.api import options as opt
from flinkjob.api.job import SplitsSpec, TaskSpec
from flinkjob.cli.common import manifest_argument, module_dir_of, set_option
from flinkjob.graph.jobgraph import JobGraph
from flinkjob.jobmanager.job import build_job_graph, election_times, read_manifest


@click.command(no_args_is_help=True)
@manifest_argument
@set_option
def plan(manifest: Path, overrides: dict[str, str]) -> None:
    """Check JOB.yaml and show its vertices, edges and failover regions."""
    job = read_manifest(manifest)
    # Where the job's state is kept can be said later; all else must fit.
    configuration = job.spec.configuration.with_defaults({opt.STORAGE_DIR.key: "."}).with_overrides(overrides)
    configuration.validate()
    election_times(configuration)
    graph = asyncio.run(build_job_graph(job, module_dir_of(manifest, None)))
    console = Console(soft_wrap=True)
    console.print(_vertices(graph))
    console.print(
        f"{graph.total_tasks} tasks in {len(graph.vertices)} vertices; {graph.total_tasks} failover regions: every "
        "exchange is blocking, so each subtask is a region of its own.",
        highlight=False,
    )


def _vertices(graph: JobGraph) -> Table:
    table = Table(title=f"Job {graph.name}", title_justify="left")
    for column in ("Vertex", "Parallelism", "Task", "Reads", "Regions"):
        table.add_column(column, justify="right" if column in ("Parallelism", "Regions") else "left", overflow="fold")
    for vertex in graph.vertices:
        reads = [f"{graph.vertices[e.source].name} ({e.partitioner}, {e.exchange})" for e in vertex.inputs]
        if vertex.splits is not None:
            reads.append(_splits(vertex.splits))
        table.add_row(
            vertex.name, str(vertex.parallelism), _task(vertex.task), "\n".join(reads) or "-", str(vertex.parallelism)
        )
    return table


def _task(task: TaskSpec) -> str:
    return f"python {task.python}" if task.python is not None else f"command {' '.join(task.command or ())}"


def _splits(splits: SplitsSpec) -> str:
    if splits.python is not None:
        return f"splits of {splits.python}"
    size = f" in ranges of at most {splits.max_split_size} bytes" if splits.max_split_size else ""
    return f"{', '.join(splits.files or ())}{size}"
