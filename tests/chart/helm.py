"""Helm as the chart's users run it: both major versions, with a home of its own so that nobody's settings take part."""

import functools
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cluster.tools import TOOLS

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "flinkjob-operator"
VARIANTS = sorted((CHART / "ci").glob("*-values.yaml"))
"""The values files that between them use every value."""
RELEASE, NAMESPACE = "release", "operator-namespace"
"""What ``helm template`` is asked for."""

Manifest = dict[str, Any]


class HelmMissing(Exception):
    """That helm cannot be had here; the text says why."""


@dataclass(frozen=True, slots=True)
class Helm:
    """One of the programs.

    Attributes:
        program: its path. home: a directory for its caches and settings.
    """

    program: Path
    home: Path

    def run(self, *arguments: str | Path, kubeconfig: Path | None = None) -> str:
        """What it prints.

        Raises:
            CalledProcessError: it failed; ``stderr`` says why.
        """
        places = {f"HELM_{place}_HOME": str(self.home / place.lower()) for place in ("CACHE", "CONFIG", "DATA")}
        who = ["--kubeconfig", str(kubeconfig)] if kubeconfig else []
        done = subprocess.run(
            [str(self.program), *map(str, arguments), *who],
            env={**os.environ, **places, "HOME": str(self.home)},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout

    def template(self, *arguments: str | Path) -> list[Manifest]:
        """The manifests that the chart becomes for a cluster of the oldest Kubernetes that the tests know."""
        flags = ["--namespace", NAMESPACE, "--kube-version", "1.34.4"]
        return manifests_of(self.run("template", RELEASE, CHART, *flags, *arguments))


@functools.cache
def program(major: int) -> Path:
    """The helm of a major version: in the cache, or on PATH.

    Raises:
        HelmMissing: it is in neither.
    """
    tool = TOOLS["helm3" if major == 3 else "helm"]
    if tool.path.exists():
        return tool.path
    if found := shutil.which("helm"):
        version = subprocess.run(
            [found, "version", "--template", "{{.Version}}"], capture_output=True, text=True, check=True
        )
        if version.stdout.startswith(f"v{major}."):
            return Path(found)
    raise HelmMissing(f"no helm {major} in the cache or on PATH: `make test-kube` provides it")


def manifests_of(text: str) -> list[Manifest]:
    """All documents of a YAML stream that have something in them."""
    return [document for document in yaml.load_all(text, yaml.CSafeLoader) if document]


def one(manifests: list[Manifest], kind: str, name_ends: str = "") -> Manifest:
    """The only object of that kind, or the one whose name ends so."""
    found = [item for item in manifests if item["kind"] == kind and item["metadata"]["name"].endswith(name_ends)]
    assert len(found) == 1, f"{len(found)} of kind {kind}: {[item['metadata']['name'] for item in found]}"
    return found[0]
