"""The command line, called as a person calls it, within this process."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flinkjob.cli.main import main

MANIFEST = """\
apiVersion: flinkjob.io/v1alpha1
kind: FlinkJob
metadata: {name: small}
spec:
  flinkConfiguration:
    restart-strategy.type: disable
  jobManager: {replicas: 1}
  taskManager: {replicas: 1, taskSlots: 2}
  job:
    vertices:
      - {name: numbers, parallelism: 2, task: {python: "small:numbers", args: {count: 3}}}
      - name: sum
        task: {python: "small:add"}
        inputs: [{from: numbers, partitioner: rebalance, exchange: blocking}]
"""

MODULE = """
import json
import time
from pathlib import Path

from flinkjob import JobGraphBuilder


def numbers(context):
    for number in range(context.args["count"]):
        context.emit(number)
        context.add("numbers", 1)


def add_after_failover(context):
    while json.loads(Path(context.args["lease"]).read_text())["leaseTransitions"] < 2:
        time.sleep(0.01)
    context.emit(sum(context.read()))


def add(context):
    print("a task may print what it likes")
    context.emit(sum(context.read()))


def fails(context):
    raise RuntimeError("the disk is purple")


def build(args):
    print("an entrypoint may print what it likes")
    graph = JobGraphBuilder()
    graph.python("numbers", "small:numbers", args=args)
    return graph


def build_nothing(args):
    return JobGraphBuilder()


def build_nonsense(args):
    return 42


def build_badly(args):
    raise KeyError("width")


def build_and_leave(args):
    raise SystemExit(3)


def splits_nonsense(args):
    return 7


def splits_fail(args):
    raise OSError("no such bucket")


NOT_A_FUNCTION = 3
"""


@dataclass(frozen=True)
class Answer:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which has one JSON document and nothing else."""
        return json.loads(self.out)


Call = Callable[..., Answer]


@pytest.fixture
def flinkjob(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls ``flinkjob`` with arguments; there is never a traceback, wherever and whatever it says."""

    def call(*arguments: object) -> Answer:
        monkeypatch.setenv("COLUMNS", "160")
        monkeypatch.setattr(sys, "argv", ["flinkjob", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capfd.readouterr()
        assert "Traceback" not in said.out + said.err
        code = ended.value.code or 0
        assert isinstance(code, int)
        return Answer(code, said.out, said.err)

    return call


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """The manifest of a small job, with its module beside it."""
    directory = tmp_path / "job"
    directory.mkdir()
    (directory / "small.py").write_text(MODULE)
    manifest = directory / "small.yaml"
    manifest.write_text(MANIFEST)
    return manifest
