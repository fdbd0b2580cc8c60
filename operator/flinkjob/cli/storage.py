"""``flinkjob storage``: what jobs have left in their storage."""

import click


@click.group()
def storage() -> None:
    """Look after the data of jobs that are gone."""


@storage.command(no_args_is_help=True)
@click.option("--storage-dir", required=True, help="high-availability.storageDir of the job: a path or URL.")
@click.option("--namespace", default="default", show_default=True, help="The job's namespace.")
@click.option("--name", required=True, help="The job's name.")
@click.option("--uid", required=True, help="The job's uid.")
def delete(storage_dir: str, namespace: str, name: str, uid: str) -> None:
    """Remove a job's log, snapshots, results and partitions, of all its runs. There is no way back."""
    from flinkjob.oplog.removal import remove_job_data

    removed = remove_job_data(storage_dir, namespace=namespace, name=name, uid=uid)
    for directory in removed:
        click.echo(f"removed {directory}")
    if not removed:
        click.echo(f"nothing is left of {namespace}/{name} with the uid {uid}")
