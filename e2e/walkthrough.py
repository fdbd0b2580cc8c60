"""Runs a page's commands for a cluster, one after the other, as somebody who types them: ``python -m walkthrough PAGE``.

kubectl and helm are the suite's, the repository is the working directory, and the first command that fails ends it.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cluster.kindcluster import need
from cluster.projectimage import IMAGE
from cluster.tools import ClusterError, provide
from docs.blocks import ROOT, Block, blocks
from kubernetes_cluster import Kubernetes

# Each block is shown before it is run; variables that one sets are there in the next.
_SHOWN = """\
cat <<'SHOWN-BLOCK'

$ {shown}
SHOWN-BLOCK
{text}
"""


def cluster_blocks(page: Path) -> list[Block]:
    """A page's commands for a cluster."""
    return [block for block in blocks(page) if block.runner == "cluster"]


def walk_through(page: Sequence[Block], kubernetes: Kubernetes, *, show: bool) -> "subprocess.CompletedProcess[str]":
    """Run blocks in one shell, until one fails.

    Args:
        show: let what they print, and they themselves, be seen; else both are in the answer.
    """
    text = "\n".join(_SHOWN.format(shown=block.text.strip().replace("\n", "\n> "), text=block.text) for block in page)
    repository, _, tag = kubernetes.image.rpartition(":")
    text = text.replace("image.repository=flinkjob", f"image.repository={repository}").replace(
        "image.tag=e2e", f"image.tag={tag}"
    )
    with tempfile.TemporaryDirectory() as programs:
        for name, path in (("kubectl", kubernetes.kubectl_path), ("helm", kubernetes.helm_path)):
            (Path(programs) / name).symlink_to(path)
        environment = {**os.environ, "KUBECONFIG": str(kubernetes.kubeconfig), "COLUMNS": "160"}
        environment["PATH"] = f"{programs}:{environment['PATH']}"
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=ROOT,
            env=environment,
            stdout=None if show else subprocess.PIPE,
            stderr=None if show else subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
        )


def main() -> int:
    """See the module."""
    try:
        cluster, tools = need(), provide(["kubectl", "helm"])
    except ClusterError as error:
        print(f"walkthrough: {error}", file=sys.stderr)
        return 1
    kubernetes = Kubernetes(cluster.kubeconfig, IMAGE, tools["kubectl"], tools["helm"], cluster)
    return walk_through(cluster_blocks(ROOT / sys.argv[1]), kubernetes, show=True).returncode


if __name__ == "__main__":
    sys.exit(main())
