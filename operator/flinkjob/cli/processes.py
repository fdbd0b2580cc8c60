"""``flinkjob jobmanager`` and ``flinkjob taskmanager``: the processes themselves."""

import asyncio
import os
import socket
import sys
import tempfile
from pathlib import Path

import click

from flinkjob.cli.common import (
    end_with_stdin,
    log_to_stderr,
    manifest_argument,
    module_dir_of,
    set_option,
    stop_on_signals,
)

_PORT = click.IntRange(1, 65535)
_tls_dir = click.option(
    "--tls-dir",
    type=click.Path(path_type=Path),
    help="Directory with ca.crt, tls.crt and tls.key: JobManagers and TaskManagers speak mutual TLS.",
)


@click.command(no_args_is_help=True)
@manifest_argument
@click.option("--id", help="The JobManager's name, unique in the job.  [default: host name and port]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8081, show_default=True, type=_PORT, help="Port to listen on.")
@click.option("--address", help="HOST:PORT under which others reach this process.  [default: --host and --port]")
@click.option("--rest-port", type=_PORT, help="Port for REST, health and metrics; --port is for TaskManagers then.")
@click.option("--rest-address", help="HOST:PORT under which others reach that.  [default: --address or --rest-port]")
@_tls_dir
@click.option(
    "--rest-token-file",
    type=click.Path(path_type=Path),
    help="Has a token: whoever changes something by REST must show it.",
)
@click.option("--kubernetes", is_flag=True, help="Elect by a Lease, watch pods, tell the FlinkJob's status and Events.")
@click.option("--pod-uid", default="", help="With --kubernetes: the uid of this pod, whose name is --id.")
@click.option("--uid", default="", help="Tells apart jobs of one name; the manifest's metadata.uid wins.")
@click.option(
    "--lease-file",
    type=click.Path(path_type=Path),
    help="Leader election; needed where the storage is no path.  [default: in the job's storage]",
)
@click.option("--cluster-file", type=click.Path(path_type=Path), help="Lists TaskManagers that have ended.")
@click.option("--module-dir", type=click.Path(path_type=Path), help="Where modules are.  [default: the manifest's]")
@set_option
def jobmanager(
    manifest: Path,
    id: str | None,
    host: str,
    port: int,
    address: str | None,
    rest_port: int | None,
    rest_address: str | None,
    tls_dir: Path | None,
    rest_token_file: Path | None,
    kubernetes: bool,
    pod_uid: str,
    uid: str,
    lease_file: Path | None,
    cluster_file: Path | None,
    module_dir: Path | None,
    overrides: dict[str, str],
) -> None:
    """Run a JobManager for the job in JOB.yaml: stand by, lead when elected, until SIGTERM.

    Start several with the same manifest and high-availability.storageDir: one leads, the others stand by.
    """
    from flinkjob.jobmanager.job import Job, read_manifest
    from flinkjob.jobmanager.process import JobManager, JobManagerOptions
    from flinkjob.rpc.tls import TlsFiles

    if kubernetes and not (id and pod_uid):
        raise click.UsageError("--kubernetes needs --id, the name of this pod, and --pod-uid")
    if kubernetes and lease_file:
        raise click.UsageError("--kubernetes elects by a Lease, --lease-file by a file; give one of them")
    end_with_stdin()
    log_to_stderr()
    job = Job(read_manifest(manifest), overrides=overrides, module_dir=module_dir_of(manifest, module_dir), uid=uid)
    options = JobManagerOptions(
        id=id or f"{socket.gethostname()}-{port}",
        host=host,
        port=port,
        address=address or f"{host}:{port}",
        rest_port=rest_port,
        rest_address=rest_address or (f"{host}:{rest_port}" if rest_port else ""),
        tls=TlsFiles.below(tls_dir) if tls_dir is not None else None,
        rest_token_file=rest_token_file,
        lease_file=lease_file,
        cluster_file=cluster_file,
    )

    async def serve() -> None:
        stop = stop_on_signals()
        if not kubernetes:
            await JobManager(job, options).run(stop)
            return
        from flinkjob.jobmanager.kubernetes import in_kubernetes

        async with in_kubernetes(job, pod=options.id, pod_uid=pod_uid) as surroundings:
            await JobManager(job, options, surroundings).run(stop)

    asyncio.run(serve())


@click.command()
@click.option("--id", help="The TaskManager's name, unique in the job.  [default: made of the host]")
@click.option("--jobmanagers", required=True, metavar="HOST:PORT,...", help="All JobManagers of the job.")
@click.option("--slots", default=1, show_default=True, type=click.IntRange(1), help="Tasks to run at once.")
@click.option("--job", default="", help="Serve only the job of this id.")
@click.option("--module-dir", type=click.Path(path_type=Path), help="Where the tasks' modules are.  [default: .]")
@click.option("--work-dir", type=click.Path(path_type=Path), help="Scratch space.  [default: a temporary directory]")
@_tls_dir
@click.option("--metrics-port", type=_PORT, help="Port for metrics and health.  [default: none]")
def taskmanager(
    id: str | None,
    jobmanagers: str,
    slots: int,
    job: str,
    module_dir: Path | None,
    work_dir: Path | None,
    tls_dir: Path | None,
    metrics_port: int | None,
) -> None:
    """Run a TaskManager: offer slots to whoever leads the job, until the job is over or SIGTERM."""
    from flinkjob.rpc.tls import TlsFiles
    from flinkjob.taskmanager.main import TaskManagerOptions, run_taskmanager

    end_with_stdin()
    log_to_stderr()
    with tempfile.TemporaryDirectory(prefix="flinkjob-tm-") as scratch:
        options = TaskManagerOptions(
            id=id or f"{socket.gethostname()}-{os.getpid()}",
            jobmanagers=_addresses(jobmanagers),
            job=job,
            slots=slots,
            work_dir=str((work_dir or Path(scratch)).absolute()),
            module_dir=str((module_dir or Path()).absolute()),
            tls=TlsFiles.below(tls_dir) if tls_dir is not None else None,
            metrics_port=metrics_port,
        )
        sys.exit(asyncio.run(run_taskmanager(options)))


def _addresses(text: str) -> tuple[str, ...]:
    addresses = tuple(address.strip() for address in text.split(",") if address.strip())
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise click.BadParameter(f"{address!r} is not HOST:PORT", param_hint="--jobmanagers")
    if not addresses:
        raise click.BadParameter("it names no JobManager", param_hint="--jobmanagers")
    return addresses
