"""Runs a page's commands for a cluster, one after the other, as somebody who types them: ``python -m walkthrough PAGE``.

kubectl and helm are the suite's, the repository is the working directory, and the first command that fails ends it.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from cluster.kindcluster import need
from cluster.projectimage import IMAGE
from cluster.tools import ClusterError, provide
from docs.blocks import ROOT, Block, blocks
from kubernetes_cluster import Kubernetes, image_values

_VOLUME = "examples/wordcount/volume.yaml"

# Each block is shown before it is run; variables that one sets are there in the next.
_SHOWN = """\
cat <<'SHOWN-BLOCK'

$ {shown}
SHOWN-BLOCK
{text}
"""


def walk_through(
    page: Sequence[Block], kubernetes: Kubernetes, *, show: bool, names: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run blocks in one shell, until one fails.

    Args:
        show: let what they print, and they themselves, be seen; else both are in the answer.
        names: what stands for a name in capitals; NAMESPACE's is where the commands run, too.
    """
    names = names or {}
    text = "\n".join(_SHOWN.format(shown=block.text.strip().replace("\n", "\n> "), text=block.text) for block in page)
    for name, value in names.items():
        text = re.sub(rf"\b{name}\b", value, text)
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        text = _fit(text, kubernetes, place / "volume.yaml")
        for name, path in (("kubectl", kubernetes.kubectl_path), ("helm", kubernetes.helm_path)):
            (place / name).symlink_to(path)
        kubeconfig = yaml.safe_load(kubernetes.kubeconfig.read_text())
        for context in kubeconfig["contexts"]:
            context["context"]["namespace"] = names.get("NAMESPACE", "default")
        (place / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
        environment = {**os.environ, "KUBECONFIG": str(place / "kubeconfig"), "COLUMNS": "160"}
        environment["PATH"] = f"{place}:{ROOT / '.venv' / 'bin'}:{environment['PATH']}"
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


def _fit(text: str, kubernetes: Kubernetes, volume: Path) -> str:
    """The commands for this cluster: with its image, and with a claim in its storage class if it has one."""
    image = shlex.join(image_values(kubernetes.image))
    for shown in ("--set image.repository=flinkjob --set image.tag=e2e", "--set image.repository=REGISTRY/flinkjob"):
        text = text.replace(shown, image)
    if kubernetes.storage_class:
        _, claim = yaml.safe_load_all((ROOT / _VOLUME).read_text())
        claim["spec"]["storageClassName"] = kubernetes.storage_class
        volume.write_text(yaml.safe_dump(claim))
        text = text.replace(_VOLUME, str(volume))
    return text


def main() -> int:
    """See the module."""
    try:
        cluster, tools = need(), provide(["kubectl", "helm"])
    except ClusterError as error:
        print(f"walkthrough: {error}", file=sys.stderr)
        return 1
    kubernetes = Kubernetes(cluster.kubeconfig, IMAGE, tools["kubectl"], tools["helm"], cluster)
    page = [block for block in blocks(ROOT / sys.argv[1]) if block.runner == "cluster"]
    return walk_through(page, kubernetes, show=True).returncode


if __name__ == "__main__":
    sys.exit(main())
