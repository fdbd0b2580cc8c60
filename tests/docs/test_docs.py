"""The documentation: its commands are run, its links lead somewhere, and what it lists is complete."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from docs.blocks import ROOT, RUNNERS, Block, blocks, documents, run_by
from docs.generate import pages
from flinkjob.api.flinkjob import FlinkJob, parse_manifest
from flinkjob.cli.main import CLUSTER_COMMANDS, COMMANDS
from flinkjob.controller.conditions import REASONS

COMMAND = re.compile(
    r"^\s*(?:\$ |[A-Z_]+=\S+ )*(?:\.venv/bin/)?(flinkjob|kubectl|helm|make|docker|pip|curl|flink) ", re.MULTILINE
)
ALL = [block for path in documents() for block in blocks(path)]
CI = [ROOT / ".ci" / "run", *(ROOT / ".github" / "workflows").glob("*.yaml")]
FILES = sorted({block.file for block in run_by("local")})


@pytest.mark.parametrize("block", [block for block in ALL if block.language == "sh"], ids=str)
def test_somebody_runs_each_block_of_commands(block: Block) -> None:
    if block.runner not in RUNNERS:
        assert (ROOT / block.runner).is_file(), f"{block}: who runs it? One of {', '.join(RUNNERS)}, or a test's path"
        reading = f'run_by("{block.runner}")'
        assert reading in (ROOT / block.runner).read_text(), f"{block}: {block.runner} does not read it"


@pytest.mark.parametrize("block", [block for block in ALL if block.language != "sh"], ids=str)
def test_no_command_hides_in_another_block(block: Block) -> None:
    # The end of a demo's output has no commands, and YAML's values only look like some.
    assert block.language in ("yaml", "python") or not COMMAND.search(block.text), f"{block} has commands: mark it `sh`"


@pytest.mark.parametrize("block", run_by("placeholder"), ids=str)
def test_a_placeholder_has_something_to_be_replaced(block: Block) -> None:
    assert "REGISTRY" in block.text


@pytest.mark.parametrize("block", run_by("ci"), ids=str)
def test_what_ci_runs_is_in_its_script(block: Block) -> None:
    targets = _made_by_ci()
    for line in block.text.strip().splitlines():
        command = line.partition("#")[0].strip()
        assert command.removeprefix("make ") in targets, f"{block}: {command}"


def _made_by_ci() -> set[str]:
    """The targets that .ci/run and the workflows make, and those that they need."""
    made = (ROOT / "Makefile").read_text()
    needs = {target: needed.split() for target, needed in re.findall(r"^([\w-]+):(?!=)(.*)$", made, re.MULTILINE)}
    targets = set(re.findall(r"\bmake ([\w-]+)", "".join(path.read_text() for path in CI)))
    return targets | {needed for target in targets for needed in needs.get(target, [])}


@pytest.mark.parametrize("file", FILES)
def test_what_runs_on_one_machine_does(file: str, tmp_path: Path) -> None:
    """As a reader would type it, from a checkout of his own, except that /tmp is the test's."""
    for name in ("examples", "charts", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    flinkjob = programs / "flinkjob"
    flinkjob.write_text(f'#!/bin/sh\nexec {sys.executable} -m flinkjob "$@"\n')
    flinkjob.chmod(0o755)
    script = "\n".join(block.text for block in run_by("local") if block.file == file)
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace("/tmp/", f"{tmp_path}/")],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    assert "Traceback" not in ended.stdout + ended.stderr


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not target.startswith(("http:", "https:")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


@pytest.mark.parametrize("name", pages())
def test_pages_that_are_made_are_up_to_date(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == pages()[name], "`make docs` writes it"


def test_each_page_is_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for path in (ROOT / "docs").glob("*.md"):
        assert f"docs/{path.name}" in readme


def test_each_reason_of_a_condition_is_explained_and_no_other() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    conditions = text[text.index("### Ready") : text.index("## What a failover did")]
    rows = [line.split("|") for line in conditions.splitlines() if line.startswith("| `")]
    assert {row[1].strip(" `") for row in rows} == set(REASONS)
    for row in rows:
        reason, remedy = row[1].strip(" `"), row[3].strip()
        assert remedy or not REASONS[reason], f"{reason}: what is to be done?"


def test_each_alert_is_explained_and_no_other() -> None:
    rules = (ROOT / "charts" / "flinkjob-operator" / "templates" / "prometheusrule.yaml").read_text()
    text = (ROOT / "docs" / "operations.md").read_text()
    table = text[text.index("## Alerts") :]
    assert set(re.findall(r"`(FlinkJob\w+)`", table)) == set(re.findall(r"alert: (\w+)", rules))


def test_the_commands_for_clusters_have_their_permissions_told() -> None:
    text = (ROOT / "docs" / "installation.md").read_text()
    told = re.findall(r"^\| `(\w+)[^`]*` \| `get`", text, re.MULTILINE)
    assert set(told) == set(CLUSTER_COMMANDS)


def test_commands_that_are_named_exist() -> None:
    for path in documents():
        for command in re.findall(r"`(?:kubectl )?flinkjob ([a-z]+)", path.read_text()):
            assert command in COMMANDS, f"{path.name}: flinkjob {command}"


def test_manifests_in_the_text_are_valid() -> None:
    found = [block for block in ALL if block.language == "yaml" and "kind: FlinkJob" in block.text]
    assert found
    for block in found:
        assert isinstance(parse_manifest(block.text, source=str(block)), FlinkJob)


def test_the_readmes_walk_through_is_the_tutorials_line_by_line() -> None:
    (shown,) = run_by("tutorial")
    tutorial = [block.text for block in run_by("cluster") if block.file == "docs/tutorial.md"]
    assert shown.text == "".join(tutorial)


def test_the_readmes_manifest_is_the_tutorials() -> None:
    (shown,) = (block for block in ALL if block.file == "README.md" and block.language == "yaml")
    example = yaml.safe_load((ROOT / "examples" / "tutorial" / "tutorial.yaml").read_text())
    assert yaml.safe_load(shown.text) == example
