"""``flinkjob result``: how a job ended and what it produced, read from its storage."""

import sys

import click
from rich.console import Console

from flinkjob.api.errors import FlinkJobError, InvalidInput
from flinkjob.cli.log import output_option, url_argument
from flinkjob.cli.reporttext import print_report
from flinkjob.jobmanager.result import decode_result
from flinkjob.local.outputs import read_outputs
from flinkjob.local.report import Report, replayed_failover
from flinkjob.oplog.storage import JobStorage


@click.command(no_args_is_help=True)
@url_argument
@output_option
def result(url: str, output: str) -> None:
    """Print the result of a job that has ended. Exit code 0 only when it FINISHED.

    URL is a job's directory below high-availability.storageDir, <storageDir>/<namespace>/<name>-<uid>.
    """
    storage = JobStorage(url)
    data = storage.read_result()
    if data is None:
        if storage.read_job_graph() is None:
            raise InvalidInput(f"{url}: there is no job; a job's directory is <storageDir>/<namespace>/<name>-<uid>")
        raise FlinkJobError(f"{url}: the job has not ended yet")
    ended = decode_result(data)
    failovers = [replayed_failover(told, None) for told in ended.failovers]
    report = Report(ended, ended.started_at, failovers, read_outputs(storage, ended))
    if output == "json":
        sys.stdout.buffer.write(report.to_json() + b"\n")
    else:
        print_report(report, Console(soft_wrap=True))
    if ended.state != "FINISHED":
        raise click.exceptions.Exit(1)
