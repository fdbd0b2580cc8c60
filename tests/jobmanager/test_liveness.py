"""The cluster file tells which TaskManagers have ended."""

import json
from pathlib import Path

from flinkjob.jobmanager.liveness import ClusterFileWatch, NoWatch

EVERYBODY = ("a", "b", "c")


def test_the_ended_are_those_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    watch = ClusterFileWatch(path)
    assert watch.ended(EVERYBODY) == {}
    path.write_text(json.dumps({"pid": 1, "taskmanagers": [{"id": "b", "pid": 2}], "ended": {"a": "killed"}}))
    assert watch.ended(EVERYBODY) == {"a": "killed"}


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps({"ended": {}}))
    watch = ClusterFileWatch(path)
    assert watch.ended(EVERYBODY) == {}
    beside = tmp_path / "next"
    beside.write_text(json.dumps({"ended": {"b": "stopped"}}))
    beside.replace(path)
    assert watch.ended(EVERYBODY) == {"b": "stopped"}


def test_a_file_that_makes_no_sense_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps({"ended": {"a": "killed"}}))
    watch = ClusterFileWatch(path)
    assert watch.ended(EVERYBODY) == {"a": "killed"}
    path.write_text('{"ended": {"a')
    assert watch.ended(EVERYBODY) == {"a": "killed"}
    path.unlink()
    assert watch.ended(EVERYBODY) == {"a": "killed"}


def test_only_what_is_asked_for_is_told(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps({"ended": {"a": "killed", "b": "killed"}}))
    assert ClusterFileWatch(path).ended(["b", "c"]) == {"b": "killed"}


def test_where_nobody_lists_them_nobody_has_ended() -> None:
    assert NoWatch().ended(EVERYBODY) == {}
