"""Every command of the documentation that is for a cluster, typed on one.

The pages use the namespace `default` and install the operator for the whole cluster, so that one runs after the other.
"""

import re
from pathlib import Path

import pytest

from docs.blocks import ROOT
from kubernetes_cluster import Kubernetes
from walkthrough import cluster_blocks, walk_through

PAGES = ("installation.md", "tutorial.md", "operations.md", "security.md")


def run(page: str, kubernetes: Kubernetes) -> str:
    """What a page's commands print; all of them have to succeed."""
    done = walk_through(cluster_blocks(ROOT / "docs" / page), kubernetes, show=False)
    print(done.stdout)
    assert done.returncode == 0, f"docs/{page}: a command failed"
    assert "Traceback" not in done.stdout
    return done.stdout


@pytest.mark.parametrize("page", [page for page in PAGES if page != "tutorial.md"])
def test_the_commands_of_a_page(kubernetes: Kubernetes, page: str) -> None:
    run(page, kubernetes)


def test_the_tutorial_keeps_what_it_promises(kubernetes: Kubernetes) -> None:
    said = run("tutorial.md", kubernetes)
    failovers = said[said.index("Failovers\n") :].splitlines()[1:]
    header = failovers[0].split()
    assert header[-4:] == ["Running", "Continued", "Restarted", "Gap"]
    (line,) = (line for line in failovers[1:] if re.match(r"\s*2 +wordcount-jobmanager-", line))
    running, continued, restarted = (int(number) for number in re.split(r"\s{2,}", line.strip())[-4:-1])
    assert running == continued > 0
    assert restarted == 0
    assert "These and the most frequent phrases of 2 to 7 words are the same." in said


def test_no_page_is_left_out() -> None:
    with_commands = {path.name for path in Path(ROOT / "docs").glob("*.md") if cluster_blocks(path)}
    assert with_commands == set(PAGES)
