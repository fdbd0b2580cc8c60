"""What authors of jobs import by name, and what that costs everybody else."""

import subprocess
import sys

import pytest

import flinkjob
from flinkjob.graph.jobgraph import JobGraphBuilder
from flinkjob.taskmanager.context import Split, TaskContext


def test_the_names_for_authors_are_at_the_top() -> None:
    assert flinkjob.TaskContext is TaskContext
    assert flinkjob.Split is Split
    assert flinkjob.JobGraphBuilder is JobGraphBuilder
    assert set(flinkjob.__all__) == {"TaskContext", "Split", "JobGraphBuilder"}
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = flinkjob.Nothing


def loaded_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    return set(output.split())


def test_the_package_itself_loads_nothing() -> None:
    assert not {name for name in loaded_by("import flinkjob") if name.startswith("flinkjob.")}


def test_the_fork_server_and_so_a_worker_process_loads_little() -> None:
    heavy = {"aiohttp", "asyncio", "fsspec", "click", "rich", "yaml", "subprocess", "traceback"}
    assert not heavy & loaded_by("import flinkjob.taskmanager.forkserver")
