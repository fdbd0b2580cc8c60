"""Every command of the documentation that is for a cluster, typed on one.

Most pages install the operator themselves, into the namespace `default` and for the whole cluster: one runs after the other.
"""

import re
from collections.abc import Iterator

import pytest

from docs.blocks import Block, run_by
from jobs import Job
from kubernetes_cluster import Kubernetes, eventually, uninstall_operator
from tidying import remove_tutorial
from walkthrough import walk_through

TUTORIAL = "docs/tutorial.md"
PAGES = sorted({block.file for block in run_by("cluster")})


@pytest.fixture
def alone(kubernetes: Kubernetes) -> Iterator[Kubernetes]:
    """A cluster without an operator and a tutorial, before and after, however far the page comes."""
    yield kubernetes
    remove_tutorial(kubernetes)
    uninstall_operator(kubernetes)


def run(blocks: list[Block], kubernetes: Kubernetes, **names: str) -> str:
    """What commands print; all of them have to succeed."""
    done = walk_through(blocks, kubernetes, show=False, names=names)
    print(done.stdout)
    assert done.returncode == 0, f"{blocks[0].file}: a command failed"
    assert "Traceback" not in done.stdout
    return done.stdout


def of(page: str, runner: str) -> list[Block]:
    return [block for block in run_by(runner) if block.file == page]


@pytest.mark.alone
@pytest.mark.parametrize("page", [page for page in PAGES if page != TUTORIAL])
def test_the_commands_of_a_page(alone: Kubernetes, page: str) -> None:
    run(of(page, "cluster"), alone)


@pytest.mark.alone
def test_the_tutorial_keeps_what_it_promises(alone: Kubernetes) -> None:
    said = run(of(TUTORIAL, "cluster"), alone)
    failovers = said[said.index("Failovers\n") :].splitlines()[1:]
    header = failovers[0].split()
    assert header[-4:] == ["Running", "Continued", "Restarted", "Gap"]
    (line,) = (line for line in failovers[1:] if re.match(r"\s*2 +wordcount-jobmanager-", line))
    running, continued, restarted = (int(number) for number in re.split(r"\s{2,}", line.strip())[-4:-1])
    assert running == continued > 0
    assert restarted == 0
    assert "These and the most frequent phrases of 2 to 7 words are the same." in said


def test_the_commands_for_a_job_that_runs(job: Job) -> None:
    """One of its JobManagers was restarted once, so that it has earlier logs."""
    job.create()
    job.holding()
    job.in_pod(f"{job.name}-jobmanager-0", "python3", "-c", "import os; os.kill(1, 15)")
    eventually(lambda: _restarts(job) == 1, "the container is restarted")
    eventually(lambda: job.condition("Protected")["status"] == "True", "the job is protected again")
    pages = sorted({block.file for block in run_by("job")})
    for page in pages:
        said = run(of(page, "job"), job.kubernetes, JOB=job.name, NAMESPACE=job.namespace)
        assert job.name in said
    assert job.state() == "CANCELED"


def _restarts(job: Job) -> int:
    pods = job.kubernetes.get(job.namespace, "pods", "--selector=app.kubernetes.io/component=jobmanager")["items"]
    return sum(status["restartCount"] for pod in pods for status in pod["status"]["containerStatuses"])
