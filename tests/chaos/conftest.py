"""Runs of the gated job, as in tests/local; chaos is done to them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from local.conftest import Start, job, start

from .faults import FullDisk, ReadOnly

__all__ = ["Start", "job", "start"]


@pytest.fixture
def oplog(tmp_path: Path) -> Path:
    """Where the log of a job with the uid ``chaos`` will be."""
    path = tmp_path / "state" / "storage" / "default" / "gated-chaos" / "oplog"
    path.mkdir(parents=True)
    return path


@pytest.fixture(params=[FullDisk, ReadOnly])
def outage(request: pytest.FixtureRequest, oplog: Path) -> Iterator[FullDisk | ReadOnly]:
    """A way for the directory of the log to become unwritable, and writable again."""
    found: FullDisk | ReadOnly = request.param(oplog)
    if reason := found.prepare():
        pytest.skip(reason)
    yield found
    found.remove()
