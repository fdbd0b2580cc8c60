"""The media that the contract is tested with: a new medium is one more parameter here."""

from collections.abc import Callable
from pathlib import Path

import pytest

from flinkjob.oplog.append import AppendMedium
from flinkjob.oplog.medium import Medium

OpenMedium = Callable[[], Medium]


@pytest.fixture(params=["append"])
def open_medium(request: pytest.FixtureRequest, tmp_path: Path) -> OpenMedium:
    """Opens the same store anew each time, as another process would."""
    media: dict[str, OpenMedium] = {"append": lambda: AppendMedium(tmp_path / "job")}
    return media[request.param]


@pytest.fixture
def medium(open_medium: OpenMedium) -> Medium:
    return open_medium()
