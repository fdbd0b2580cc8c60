"""``flinkjob operator``: the Kubernetes operator."""

import asyncio
import secrets
import socket
from pathlib import Path

import click

from flinkjob.api.errors import InvalidInput
from flinkjob.cli.common import log_to_stderr, stop_on_signals

OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where a pod finds the name of its namespace."""


@click.command(no_args_is_help=True)
@click.option("--namespace", "namespaces", multiple=True, help="Serve FlinkJobs of this namespace; can be given often.")
@click.option("--all-namespaces", is_flag=True, help="Serve FlinkJobs of all namespaces.")
@click.option("--image", required=True, help="The image of a job that names none.")
@click.option("--image-pull-policy", type=click.Choice(["Always", "IfNotPresent", "Never"]), help="Of that image.")
@click.option("--lease-namespace", help="Where the operator's own Lease is.  [default: the operator's namespace]")
@click.option("--lease-name", default="flinkjob-operator", show_default=True, help="The operator's own Lease.")
@click.option("--identity", help="This replica's name, the pod's.  [default: made of the host]")
@click.option("--host", default="0.0.0.0", show_default=True, help="Address to serve health and metrics at.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="Port of these.")
@click.option("--workers", default=8, show_default=True, type=click.IntRange(1), help="FlinkJobs looked at at once.")
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path),
    help="How to reach the API server.  [default: the pod's service account, else the user's kubeconfig]",
)
def operator(
    namespaces: tuple[str, ...],
    all_namespaces: bool,
    image: str,
    image_pull_policy: str | None,
    lease_namespace: str | None,
    lease_name: str,
    identity: str | None,
    host: str,
    port: int,
    workers: int,
    kubeconfig: Path | None,
) -> None:
    """Run the Kubernetes operator until SIGTERM: make of each FlinkJob the pods and all else that it needs.

    Several replicas agree by a Lease which of them acts.
    """
    if all_namespaces == bool(namespaces):
        raise click.UsageError("give either --all-namespaces, or each namespace with --namespace")
    from flinkjob.controller.operator import Operator, OperatorOptions, quiet_kopf
    from flinkjob.controller.target import OperatorSettings
    from flinkjob.election.apiserver import KubernetesApi

    log_to_stderr()
    quiet_kopf()
    suffix = secrets.token_hex(4)
    options = OperatorOptions(
        identity=f"{identity or socket.gethostname()}_{suffix}",
        # Whoever had this pod's name before has ended, for no two pods of one name run at a time.
        predecessors=f"{identity}_" if identity else "",
        lease_namespace=lease_namespace or _own_namespace(),
        lease_name=lease_name,
        namespaces=namespaces,
        host=host,
        port=port,
        workers=workers,
        settings=OperatorSettings(image=image, image_pull_policy=image_pull_policy),
    )

    async def serve() -> None:
        async with await KubernetesApi.connect(kubeconfig) as api:
            await Operator(api, options).run(stop_on_signals())

    asyncio.run(serve())


def _own_namespace() -> str:
    try:
        return OWN_NAMESPACE.read_text(encoding="utf-8").strip()
    except OSError:
        raise InvalidInput("--lease-namespace is missing, and this is no pod, whose namespace could be taken") from None
