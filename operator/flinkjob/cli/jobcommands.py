"""``flinkjob status``, ``watch``, ``cancel`` and ``failover``: jobs on a cluster, through its API server.

They are ``kubectl flinkjob …`` as well, and find the cluster as kubectl does.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from flinkjob.api.errors import ClusterError, InvalidInput
from flinkjob.api.status import FailoverStatus
from flinkjob.api.units import parse_duration
from flinkjob.cli import jobtext, kubejobs
from flinkjob.cli.kube import Kube
from flinkjob.cli.kubejobs import JobOnCluster
from flinkjob.cli.leaderrest import LeaderRest
from flinkjob.cli.preview import preview_lines

_F = TypeVar("_F", bound=Callable[..., Any])


_WIDE = 1000
"""Columns where there is no terminal: whoever reads our output wants names in full."""


class _Duration(click.ParamType[float]):
    """``5 min`` as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The seconds."""
        try:
            return parse_duration(str(value)) / 1000
        except InvalidInput as error:
            self.fail(str(error), param, ctx)


def cluster_options(function: _F) -> _F:
    """Where the job is, as kubectl has it, and how to answer."""
    options = (
        click.option("-n", "--namespace", help="The job's namespace.  [default: the context's]"),
        click.option("--context", help="The kubeconfig's context to use.  [default: its current one]"),
        click.option(
            "--kubeconfig",
            type=click.Path(path_type=Path, dir_okay=False),
            help="The kubeconfig.  [default: KUBECONFIG, ~/.kube/config, or the pod's own account]",
        ),
        click.option(
            "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Words, or JSON."
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


timeout_option = click.option(
    "--timeout", type=_Duration(), default="5 min", show_default=True, help="How long to wait for it."
)
name_argument = click.argument("name", metavar="JOB")


@click.command()
@click.argument("name", metavar="[JOB]", required=False)
@click.option("-A", "--all-namespaces", is_flag=True, help="Jobs of all namespaces.")
@cluster_options
def status(
    name: str | None,
    all_namespaces: bool,
    namespace: str | None,
    context: str | None,
    kubeconfig: Path | None,
    output: str,
) -> None:
    """Show the FlinkJobs of a namespace, or all that is known of one.

    JOB is the name of a FlinkJob.
    """
    if name is not None and all_namespaces:
        raise InvalidInput("--all-namespaces lists jobs; to show one, name its namespace with --namespace")
    with Kube.connect(kubeconfig=kubeconfig, context=context, namespace=namespace) as kube:
        found = [kubejobs.job(kube, name)] if name is not None else kubejobs.jobs(kube, all_namespaces=all_namespaces)
        where = "the cluster" if all_namespaces else f"namespace {kube.namespace!r}"
    if output == "json":
        _write_json([_values(job) for job in found] if name is None else _values(found[0]))
    elif name is not None:
        _console().print(jobtext.job_page(found[0], jobtext.utc_now()), highlight=False)
    elif found:
        _console().print(jobtext.jobs_table(found, jobtext.utc_now(), namespaces=all_namespaces), highlight=False)
    else:
        click.echo(f"There are no FlinkJobs in {where}.", err=True)


@click.command(no_args_is_help=True)
@name_argument
@cluster_options
def watch(name: str, namespace: str | None, context: str | None, kubeconfig: Path | None, output: str) -> None:
    """Follow a job until it ends. Exit code 0 only when it FINISHED.

    JOB is the name of a FlinkJob. With --output json there is a line for each change.
    """
    with Kube.connect(kubeconfig=kubeconfig, context=context, namespace=namespace) as kube, _shown(output) as show:
        for job in kubejobs.follow(kube, name, note=_note):
            show(job)
            if job.ended:
                break
    if job.state != "FINISHED":
        error = job.status.job_status.error if job.status.job_status else None
        raise ClusterError(f"job {name!r} is {job.state}" + (f": {error}" if error else ""))


@click.command(no_args_is_help=True)
@name_argument
@timeout_option
@cluster_options
def cancel(
    name: str, timeout: float, namespace: str | None, context: str | None, kubeconfig: Path | None, output: str
) -> None:
    """Cancel a job, and wait until it is CANCELED. Its FlinkJob stays.

    JOB is the name of a FlinkJob.
    """
    with Kube.connect(kubeconfig=kubeconfig, context=context, namespace=namespace) as kube:
        job = kubejobs.job(kube, name)
        if not job.ended:
            LeaderRest(kube, job).cancel()
            _note(f"the leader {job.status.leader.pod} cancels {name!r}" if job.status.leader else "")
            for job in kubejobs.follow(kube, name, seconds=timeout, note=_note):
                if job.ended:
                    break
    if not job.ended:
        raise ClusterError(f"job {name!r} is still {job.state}; its tasks have task.cancellation.timeout to stop")
    if job.state != "CANCELED":
        raise ClusterError(f"job {name!r} cannot be cancelled any more, it is {job.state}")
    if output == "json":
        _write_json(_values(job))
    else:
        click.echo(f"Job {name} is CANCELED.")


@click.command(no_args_is_help=True)
@name_argument
@click.option("--dry-run", is_flag=True, help="Only say what a failover now would do.")
@timeout_option
@cluster_options
def failover(
    name: str,
    dry_run: bool,
    timeout: float,
    namespace: str | None,
    context: str | None,
    kubeconfig: Path | None,
    output: str,
) -> None:
    """Let the leader JobManager hand over to another one, and tell what that did to the tasks.

    JOB is the name of a FlinkJob. It is a clean handover, as a node's drain causes it.
    """
    with Kube.connect(kubeconfig=kubeconfig, context=context, namespace=namespace) as kube:
        job = kubejobs.job(kube, name)
        if job.ended:
            raise ClusterError(f"job {name!r} is {job.state}: no task of it runs, and no leader is needed")
        rest = LeaderRest(kube, job)
        if dry_run:
            preview = rest.failover_preview()
            if output == "json":
                _write_json(preview)
            else:
                for line in preview_lines(preview):
                    click.echo(line)
            return
        done = _hand_over(kube, job, timeout)
    if output == "json":
        _write_json(msgspec.to_builtins(done))
    else:
        for line in jobtext.failover_lines(done):
            click.echo(line)


def _hand_over(kube: Kube, job: JobOnCluster, timeout: float) -> FailoverStatus:
    """Ask for a failover and wait until the new leader knows what became of every task."""
    assert job.status.leader is not None
    before = job.status.leader
    asked = kubejobs.ask_for_failover(kube, job)
    _note(f"asked {before.pod}, which leads in epoch {before.epoch}, to hand over")
    last = asked
    for last in kubejobs.follow(kube, job.name, seconds=timeout, note=_note):
        leader = last.status.leader
        if last.ended:
            raise ClusterError(f"job {job.name!r} came to its end in the meantime: it is {last.state}")
        if leader is None or leader.epoch <= before.epoch or last.status.reconciling:
            continue
        for done in reversed(last.status.failover_history):
            if done.epoch > before.epoch:
                return done
    if (last.status.observed_generation or 0) < asked.metadata.generation:
        raise ClusterError("the operator has not acted on it in time; is it running?")
    raise ClusterError(f"nobody has taken over {job.name!r} in time; `flinkjob status {job.name}` says how it is")


@contextmanager
def _shown(output: str) -> Iterator[Callable[[JobOnCluster], None]]:
    """Where a followed job is shown: live on a terminal, else as lines."""
    console = _console()
    if output == "json":
        yield lambda job: _write_json(_values(job), indent=0)
    elif not console.is_terminal:
        yield _Lines(console).show
    else:
        page = _Page()
        with Live(console=console, get_renderable=page.render, refresh_per_second=4, transient=False):
            yield page.show


class _Page:
    """The job as it was last seen; its times go on between two changes."""

    def __init__(self) -> None:
        self._job: JobOnCluster | None = None

    def show(self, job: JobOnCluster) -> None:
        self._job = job

    def render(self) -> RenderableType:
        return jobtext.job_page(self._job, jobtext.utc_now()) if self._job else Group(Text("…"))


class _Lines:
    """A line whenever there is something new, and one for each failover."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = ""
        self._epoch: int | None = None

    def show(self, job: JobOnCluster) -> None:
        history = job.status.failover_history
        for failover in history:
            if self._epoch is not None and failover.epoch > self._epoch:
                for line in jobtext.failover_lines(failover):
                    self._print(line)
        self._epoch = max((failover.epoch for failover in history), default=0)
        line = jobtext.progress_line(job)
        if line != self._last:
            self._last = line
            self._print(line)

    def _print(self, line: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {line}", highlight=False, markup=False)


def _console() -> Console:
    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console.width = _WIDE
    return console


def _note(text: str) -> None:
    click.echo(text, err=True)


def _values(job: JobOnCluster) -> dict[str, Any]:
    return {
        "namespace": job.metadata.namespace,
        "name": job.name,
        "uid": job.metadata.uid,
        "status": msgspec.to_builtins(job.status),
    }


def _write_json(value: object, *, indent: int = 2) -> None:
    encoded = msgspec.json.encode(value)
    sys.stdout.buffer.write((msgspec.json.format(encoded, indent=indent) if indent else encoded) + b"\n")
    sys.stdout.flush()
