"""The command line, called as a person calls it, within this process; and a cluster with FlinkJobs for it."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flinkjob.cli.main import main
from flinkjob.controller import names
from kube.apiserver import ApiServer

from . import leaders
from .leaders import FlinkJobs, Leader

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


@pytest.fixture(scope="session")
def flinkjobs_served(apiserver: ApiServer) -> None:
    """The API server knows FlinkJobs."""
    apiserver.start_api()
    leaders.install_crd(apiserver)


@pytest.fixture
def jobs(apiserver: ApiServer, flinkjobs_served: None, namespace: str) -> FlinkJobs:
    """The FlinkJobs of the test's namespace; there are none yet."""
    return FlinkJobs(apiserver, namespace)


@pytest.fixture
def kubectl(flinkjob: Call, jobs: FlinkJobs) -> Call:
    """``flinkjob COMMAND …`` as the administrator, in the test's namespace."""

    def call(command: str, *arguments: object) -> Answer:
        return flinkjob(command, *arguments, "-n", jobs.namespace, "--kubeconfig", jobs.server.admin_kubeconfig)

    return call


@pytest.fixture
def leader(jobs: FlinkJobs, monkeypatch: pytest.MonkeyPatch) -> Iterator[Leader]:
    """A leader behind the pod wordcount-jobmanager-0."""
    address = leaders.machine_address()
    if address is None:
        pytest.skip("this machine has no address but loopback, and the API server connects to no pod there")
    with leaders.leader_on(address) as leader:
        monkeypatch.setattr(names, "REST_PORT", leader.port)
        jobs.add_pod("wordcount-jobmanager-0", address)
        yield leader
