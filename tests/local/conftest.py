"""Runs of the gated job, ended when the test ends."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .clusters import GatedJob, Run

Start = Callable[..., Run]


@pytest.fixture
def job(tmp_path: Path) -> GatedJob:
    """The gated job."""
    return GatedJob.create(tmp_path / "job")


@pytest.fixture
def start(job: GatedJob, tmp_path: Path) -> Iterator[Start]:
    """Start the job, or have a new run go on with it: the state directory stays the same."""
    runs = []

    def begin(*arguments: str, **options: str) -> Run:
        runs.append(Run.start(job, tmp_path / "state", *arguments, **options))
        return runs[-1]

    yield begin
    for run in runs:
        run.close()
