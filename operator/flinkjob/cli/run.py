"""``flinkjob run``: a job on a local cluster, from start to end."""

import asyncio
import contextlib
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from flinkjob.api import options as opt
from flinkjob.api.flinkjob import FlinkJob
from flinkjob.cli.common import manifest_argument, module_dir_of, set_option
from flinkjob.cli.display import Display
from flinkjob.cli.reporttext import print_report
from flinkjob.jobmanager.job import Job, read_manifest
from flinkjob.local.cluster import ClusterOptions
from flinkjob.local.report import Report
from flinkjob.local.run import LocalRun
from flinkjob.local.statedir import StateDir


class _Share(click.ParamType[float]):
    """``50%`` as 0.5."""

    name = "percentage"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The share, 0 to 1."""
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / 100
        except ValueError:
            share = -1.0
        if not text.endswith("%") or not 0 <= share < 1:
            self.fail(f"{value!r} is not a share of the job; allowed is 0% up to below 100%", param, ctx)
        return share


@click.command(no_args_is_help=True)
@manifest_argument
@click.option("--jobmanagers", type=click.IntRange(1), help="JobManagers.  [default: spec.jobManager.replicas]")
@click.option("--taskmanagers", type=click.IntRange(1), help="TaskManagers.  [default: spec.taskManager.replicas]")
@click.option("--slots", type=click.IntRange(1), help="Slots of each.  [default: spec.taskManager.taskSlots]")
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the job's state here; an unfinished job goes on.",
)
@set_option
@click.option(
    "--kill-leader-at",
    type=_Share(),
    multiple=True,
    metavar="SHARE",
    help="kill -9 the leader when this share of the job is done.",
)
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def run(
    manifest: Path,
    jobmanagers: int | None,
    taskmanagers: int | None,
    slots: int | None,
    state_dir: Path | None,
    overrides: dict[str, str],
    kill_leader_at: tuple[float, ...],
    output: str,
) -> None:
    """Run the job in JOB.yaml on a cluster of this machine's processes. Exit code 0 only when it FINISHED."""
    declared = read_manifest(manifest)
    with contextlib.ExitStack() as cleanup:
        if state_dir is None:
            state_dir = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="flinkjob-run-")))
        module_dir = module_dir_of(manifest, None)
        overrides = _with_defaults(declared, overrides, state_dir)
        if slots is not None:
            overrides[opt.NUMBER_OF_TASK_SLOTS.key] = str(slots)
        state = cleanup.enter_context(StateDir(state_dir, declared))
        job = Job(declared, overrides=overrides, module_dir=module_dir, uid=state.uid)
        # Built and stored here, so that what is wrong with it shows at once and claims nothing; the leader finds it.
        asyncio.run(job.graph())
        state.claim()
        options = ClusterOptions(
            manifest=manifest.absolute(),
            module_dir=module_dir,
            overrides=overrides,
            jobmanagers=jobmanagers or declared.spec.job_manager.replicas,
            taskmanagers=taskmanagers or declared.spec.task_manager.replicas,
            slots=job.configuration.get(opt.NUMBER_OF_TASK_SLOTS),
        )
        console = Console(stderr=True, soft_wrap=True)
        with Display(console) as display:
            report = asyncio.run(_run(LocalRun(job, state, options, kill_leader_at, display)))
        print_report(report, console if output == "json" else Console(soft_wrap=True))
        if output == "json":
            sys.stdout.buffer.write(report.to_json() + b"\n")
            sys.stdout.flush()
    if report.result.state != "FINISHED":
        raise click.exceptions.Exit(1)


def _with_defaults(manifest: FlinkJob, overrides: dict[str, str], state_dir: Path) -> dict[str, str]:
    """What a local run takes where nobody says anything: the log is on, and kept in the state directory."""
    said = {**manifest.spec.flink_configuration, **overrides}
    defaults = {}
    if opt.OPERATION_LOG_STORE.key not in said:
        defaults[opt.OPERATION_LOG_STORE.key] = opt.OperationLogStore.FILESYSTEM.value
    if opt.STORAGE_DIR.key not in said:
        defaults[opt.STORAGE_DIR.key] = str((state_dir / "storage").absolute())
    return {**defaults, **overrides}


async def _run(run: LocalRun) -> Report:
    interrupts = 0
    task = asyncio.current_task()

    def interrupted() -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts == 1:
            run.observer.note("cancelling the job; once more to stop at once")
            run.stop.set()
        elif task is not None:
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupted)
    try:
        return await run.run()
    except asyncio.CancelledError:
        raise click.Abort from None
