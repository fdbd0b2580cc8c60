"""The cluster's coming and going, with an engine and a kind that only keep lists: nothing foreign is touched."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import engine, kindcluster, projectimage
from cluster.engine import Engine
from cluster.kindcluster import current, directory, down, remains, up
from cluster.tools import TOOLS, ClusterError

# Each writes down how it was called. kind has its clusters in a file; what `create` is to do besides is in another.
_DOCKER = """#!/bin/sh
echo "docker $*" >> "$FAKE/calls"
test -e "$FAKE/engine" || exit 1
"""
_KIND = """#!/bin/sh
echo "kind $*" >> "$FAKE/calls"
case "$1 $2" in
    "get clusters") cat "$FAKE/clusters" ;;
    "create cluster") echo flinkjob >> "$FAKE/clusters"; test ! -e "$FAKE/creating" || . "$FAKE/creating" ;;
    "delete cluster") : > "$FAKE/clusters" ;;
esac
"""
_KUBECTL = "#!/bin/sh\n"

# What the machine itself has of an engine is out of these tests' sight.
_HIDING = """
from pathlib import Path
from cluster import engine
engine.RUN, engine.NETWORK = Path({run!r}) / "run", Path({run!r}) / "netns"
engine._CGROUPS, engine._OUTER = Path({run!r}) / "cgroup", "no-such-link"
"""


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose Docker engine answers and can pull; its lists are in this directory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "cgroup" / "cgroup.controllers").touch()
    for name in ("RUN", "NETWORK", "_CGROUPS", "_OUTER"):
        monkeypatch.setattr(engine, name, getattr(engine, name))
    exec(_HIDING.format(run=str(tmp_path)))
    programs = {tmp_path / "bin" / "docker": _DOCKER, TOOLS["kind"].path: _KIND, TOOLS["kubectl"].path: _KUBECTL}
    for path, script in programs.items():
        path.parent.mkdir(parents=True)
        path.write_text(script)
        path.chmod(0o755)
    for name in ("calls", "clusters", "engine"):
        (tmp_path / name).touch()
    return tmp_path


def test_up_and_down_again_leave_nothing(machine: Path) -> None:
    assert up().pulls
    assert current() is not None
    assert (machine / "clusters").read_text() == "flinkjob\n"
    down()
    assert current() is None
    assert not remains()
    assert (machine / "clusters").read_text() == ""
    assert not directory().exists()


def test_a_cluster_of_the_same_name_that_somebody_else_made_is_left_alone(machine: Path) -> None:
    (machine / "clusters").write_text("other\nflinkjob\n")
    with pytest.raises(ClusterError, match="kind cluster named flinkjob is there"):
        up()
    down()
    assert (machine / "clusters").read_text() == "other\nflinkjob\n"


def test_down_takes_away_what_an_up_had_begun_that_was_killed(machine: Path) -> None:
    """The kill comes while kind creates the cluster."""
    (machine / "creating").write_text("kill -9 $PPID")
    script = f"{_HIDING.format(run=str(machine))}\nfrom cluster.kindcluster import up\nup()"
    e2e = Path(engine.__file__).parents[1]
    killed = subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(e2e)}, check=False)
    assert killed.returncode == -9
    assert (machine / "clusters").read_text() == "flinkjob\n"
    assert remains()
    down()
    assert (machine / "clusters").read_text() == ""
    assert not remains()


def test_an_engine_that_does_not_answer_is_told_and_nothing_is_forgotten(machine: Path) -> None:
    up()
    (machine / "engine").unlink()
    with pytest.raises(ClusterError, match="does not answer; start it"):
        down()
    (machine / "engine").touch()
    down()
    assert (machine / "clusters").read_text() == ""


def test_files_of_pods_are_removed_by_the_engine_where_this_user_may_not(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    up()
    removing = shutil.rmtree
    refused: list[Path] = []

    def remove(path: Path) -> None:
        if not refused:
            refused.append(path)
            raise PermissionError(13, "Permission denied", str(path))
        removing(path)

    monkeypatch.setattr(shutil, "rmtree", remove)
    down()
    assert f"--volume {directory()}/shared:/shared busybox:stable find /shared" in (machine / "calls").read_text()
    assert not directory().exists()


def test_after_a_restart_of_the_machine_what_our_engine_has_in_its_files_is_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No process, network or socket is left then; containers and volumes are, in the cache."""
    directory().mkdir(parents=True)
    own = Engine(f"unix://{engine.RUN}/docker.sock", engine.ADDRESS)
    kindcluster._state_file().write_text(f'{{"host": "{own.host}", "address": "{own.address}", "pulls": false}}')
    removed: list[bool] = []
    monkeypatch.setattr(kindcluster, "remove_own_engine", lambda: removed.append(True))
    assert remains()
    down()
    assert removed
    assert not remains()


def test_another_caches_engine_is_neither_used_nor_ended() -> None:
    engine.RUN.mkdir()
    (engine.RUN / "cache").write_text("/home/somebody/.cache/flinkjob")
    assert engine.own_engine_left() == []
    with pytest.raises(ClusterError, match=r"XDG_CACHE_HOME=/home/somebody/\.cache"):
        engine.own_engine()
    down()
    assert (engine.RUN / "cache").exists()


def test_of_two_that_start_an_engine_at_once_one_goes_on() -> None:
    engine._claim()
    with pytest.raises(ClusterError, match="somebody else is starting an engine"):
        engine._claim()
    assert [path.name for path in engine.RUN.parent.glob(f"{engine.NAME}*")] == []


@pytest.mark.parametrize("own", [False, True], ids=["a developer's", "our own"])
def test_images_that_nobody_names_are_removed_from_our_own_engine_only(machine: Path, own: bool) -> None:
    projectimage.build_project(Engine(f"unix://{engine.RUN}/docker.sock" if own else "", ""), pulls=True)
    assert ("docker image prune" in (machine / "calls").read_text()) == own
