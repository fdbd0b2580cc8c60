"""The programs: each is made once, whole or not at all."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from cluster import __main__, tools
from cluster.tools import ClusterError, Tool, fresh, provide, told

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def offer(monkeypatch: pytest.MonkeyPatch, made: list[str], *, fails: bool = False) -> Tool:
    def make(tool: Tool, target: Path) -> None:
        made.append(tool.program)
        target.write_text("half")
        if fails:
            raise ClusterError("the compiler is tired")
        target.write_text("whole")

    tool = Tool(program="program", version="v1", make=make)
    monkeypatch.setitem(tools.TOOLS, "program", tool)
    return tool


def test_a_program_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    tool = offer(monkeypatch, made)
    assert provide(["program"]) == provide(["program"]) == {"program": tool.path}
    assert tool.path.read_text() == "whole"
    assert tool.path.stat().st_mode & 0o111
    assert made == ["program"]


def test_one_that_cannot_be_made_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tool = offer(monkeypatch, [], fails=True)
    with pytest.raises(ClusterError, match="tired"):
        provide(["program"])
    assert list(tool.path.parent.parent.iterdir()) == []


def test_without_go_the_reason_says_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ClusterError, match=r"kube-apiserver v1\.\S+ has to be built, which needs go"):
        provide(["kube-apiserver"])


def test_of_a_go_that_is_too_old_the_reason_says_which_and_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\necho go version go1.19.8 linux/amd64\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match=rf"etcd \S+ has to be built, which needs go 1\.21 .*; {go} is go1\.19"):
        provide(["etcd"])


def test_what_make_provides_for_the_tests_is_what_they_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\nkube-programs:")[2].partition("\n\n")[0]
    assert recipe.endswith("-m cluster build"), "a list of its own may lack what a test demands"
    asked: list[str] = []

    def note(names: Iterable[str]) -> dict[str, Path]:
        asked.extend(names)
        return {}

    monkeypatch.setattr(__main__, "provide", note)
    monkeypatch.setattr("sys.argv", ["cluster", "build"])
    assert __main__.main() == 0
    assert set(asked) >= {*tools.API_SERVER, "helm", "helm3"}


def test_a_directory_appears_only_when_its_block_ended_well(tmp_path: Path) -> None:
    place = tmp_path / "a" / "place"
    with fresh(place) as partial:
        (partial / "file").touch()
        assert not place.exists()
    assert [path.name for path in place.iterdir()] == ["file"]


def test_versions_are_those_of_the_module() -> None:
    assert tools.KUBERNETES.startswith("v1.")
    assert tools.TOOLS["kubelet"].version == tools.KUBERNETES
    assert tools.TOOLS["etcd"].version == tools.ETCD


def test_what_takes_long_tells_that_it_is_not_done(capsys: pytest.CaptureFixture[str]) -> None:
    with told("the program", every=0.001):
        while "the program: 0 s so far" not in (seen := capsys.readouterr().err):
            assert seen == "" or "so far" in seen
    assert "so far" not in capsys.readouterr().err
