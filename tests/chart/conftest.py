"""Helm, in both of its major versions."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from chart.helm import Helm, HelmMissing, Manifest, program


@pytest.fixture(scope="session")
def helms(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Helm]:
    """The helm of a major version; skips where it is not, unless KUBE_REQUIRED says that it has to be."""

    def of_version(major: int) -> Helm:
        try:
            return Helm(program(major), tmp_path_factory.mktemp(f"helm{major}"))
        except HelmMissing as missing:
            if os.environ.get("KUBE_REQUIRED"):
                raise
            pytest.skip(str(missing))

    return of_version


@pytest.fixture(params=[3, 4], ids=["helm3", "helm4"], scope="session")
def helm(request: pytest.FixtureRequest, helms: Callable[[int], Helm]) -> Helm:
    """Each of the two."""
    return helms(request.param)


@pytest.fixture(scope="session")
def helm4(helms: Callable[[int], Helm]) -> Helm:
    """The newer one, for tests to which helm is a means only."""
    return helms(4)


Render = Callable[[Path], list[Manifest]]


@pytest.fixture(scope="session")
def render(helm: Helm) -> Render:
    """The chart with a values file; each is rendered once."""
    rendered: dict[Path, list[Manifest]] = {}

    def rendering(values: Path) -> list[Manifest]:
        if values not in rendered:
            rendered[values] = helm.template("--values", values)
        return rendered[values]

    return rendering
