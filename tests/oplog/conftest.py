"""The media that the contract is tested with: a new medium is one more parameter here."""

from collections.abc import Callable
from pathlib import Path

import pytest

from flinkjob.oplog import storage
from flinkjob.oplog.medium import Medium

from . import lagging

OpenMedium = Callable[[], Medium]


@pytest.fixture(params=["append", "memory", "s3", pytest.param("hdfs", marks=pytest.mark.hdfs)])
def job_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a job's directory, unused so far, on each kind of store."""
    if request.param == "append":
        return str(tmp_path / "job")
    if request.param == "memory":
        return f"memory://{tmp_path}/job"
    return f"{request.getfixturevalue(f'{request.param}_url')}/job"


@pytest.fixture
def open_medium(job_url: str) -> OpenMedium:
    """Opens the same store anew each time, as another process would."""
    return lambda: storage.open_medium(job_url)


@pytest.fixture
def open_lagging(job_url: str) -> OpenMedium:
    """Opens the same store anew each time, where listings lag behind."""
    return lambda: lagging.open_lagging(job_url)


@pytest.fixture
def medium(open_medium: OpenMedium) -> Medium:
    return open_medium()
