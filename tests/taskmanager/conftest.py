"""What tests of the TaskManager work with."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from taskmanager.scripted import ScriptedJobManager, TaskManagerProcess, jobmanager


@pytest.fixture
async def leader() -> AsyncIterator[ScriptedJobManager]:
    """A JobManager under the test's control."""
    async with jobmanager() as manager:
        yield manager


@pytest.fixture
def write_module(tmp_path: Path) -> Callable[[str, str], None]:
    """Put a Python module where the tasks find it."""

    def write(name: str, source: str) -> None:
        directory = tmp_path / "modules"
        directory.mkdir(exist_ok=True)
        (directory / f"{name}.py").write_text(source)

    return write


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., TaskManagerProcess]]:
    """Start TaskManagers that do not outlive the test."""
    started: list[TaskManagerProcess] = []

    def start_one(*managers: ScriptedJobManager, **options: object) -> TaskManagerProcess:
        process = TaskManagerProcess([manager.address for manager in managers], tmp_path, **options)  # type: ignore[arg-type]
        started.append(process)
        return process

    yield start_one
    for process in started:
        process.__exit__()
