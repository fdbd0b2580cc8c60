"""Each example, run as its reader would run it; what it gives is known exactly."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str) -> Any:
    """The report of an example that has to finish."""
    command = [sys.executable, "-m", "flinkjob", "run", str(EXAMPLES / name / f"{name}.yaml"), "--output", "json"]
    ended = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    report = json.loads(ended.stdout)
    assert report["job"]["name"] == name
    assert report["job"]["state"] == "FINISHED"
    assert report["tasks"]["finished"] == report["tasks"]["total"]
    return report


def test_commands_counts_the_errors_of_each_host() -> None:
    expected: Counter[str] = Counter()
    for log in (EXAMPLES / "commands" / "logs").iterdir():
        expected.update(line.split()[1] for line in log.read_text().splitlines() if line.split()[2] == "ERROR")
    report = run("commands")
    assert sorted(report["outputs"]["count"]) == [f"{host} {count}" for host, count in sorted(expected.items())]
    assert report["tasks"] == {"total": 4, "finished": 4, "restarted": 0}


def test_broadcast_converts_every_order_once() -> None:
    currencies = {"de": 100, "fr": 100, "gb": 116, "us": 92, "jp": 1}
    countries = list(currencies)
    orders = [(countries[number * 7 % 5], number % 997 + 1) for number in range(3000)]
    sums: Counter[str] = Counter()
    for country, amount in orders:
        sums[country] += amount * currencies[country]
    largest = max((amount * currencies[country], country) for country, amount in orders)
    *found, last = run("broadcast")["outputs"]["summary"]
    assert found == [["sum", country, cents] for country, cents in sorted(sums.items())]
    assert last == ["largest", largest[1], largest[0]]


@pytest.mark.parametrize("kills", [[], ["--kill-leader-at", "40%"]])
def test_retry_runs_the_failed_task_again_and_no_other(kills: list[str]) -> None:
    report = run("retry", *kills)
    assert report["outputs"] == {"total": [sum(range(100))]}
    assert report["accumulators"] == {"attempts": 3 + 3}
    attempts = {vertex["name"]: vertex["attempts"] for vertex in report["vertices"]}
    assert attempts == {"fetch": 4 + 2, "total": 1}
    assert report["tasks"]["restarted"] == 2
    assert [failover["verdicts"]["restarted"] for failover in report["failovers"]] == [0] * (len(kills) // 2)


def test_checkpoints_are_where_killed_tasks_go_on() -> None:
    report = run("checkpoints")
    composite = {multiple for factor in range(2, 448) for multiple in range(factor * factor, 200_000, factor)}
    assert report["outputs"] == {"total": [200_000 - 2 - len(composite)]}
    restarted = report["tasks"]["restarted"]
    # Who is fast may leave too little for the other one to be killed over.
    assert restarted in (1, 2)
    assert report["accumulators"] == {"splits": 20, "splits taken over from a checkpoint": 3 * restarted}


def test_entrypoint_builds_a_tree_that_merges_all_shards() -> None:
    report = run("entrypoint")
    ((estimate),) = report["outputs"]["pi"]
    assert estimate == {"pi": 3.137075, "points": 160_000}
    widths = [(vertex["name"], vertex["parallelism"]) for vertex in report["vertices"]]
    assert widths == [("sample", 8), ("merge-4", 4), ("merge-2", 2), ("merge-1", 1), ("pi", 1)]


def test_every_example_is_listed_with_what_it_shows() -> None:
    names = {path.name for path in EXAMPLES.iterdir() if path.is_dir() and not path.name.startswith("__")}
    listed = [line for line in (EXAMPLES / "README.md").read_text().splitlines() if line.startswith("| [")]
    assert {line.partition("[")[2].partition("]")[0] for line in listed} == names
    for name in names:
        assert (EXAMPLES / name / f"{name}.yaml").is_file()
        assert f"({name}/{name}.yaml)" in (EXAMPLES / "README.md").read_text()


def test_tutorial_counts_the_words_of_its_text() -> None:
    words = [
        word for line in (EXAMPLES / "tutorial" / "text.md").read_text().lower().splitlines() for word in line.split()
    ]
    report = run("tutorial")
    found = dict(line.split("\t")[::-1] for line in report["outputs"]["report"])
    counts = Counter(words)
    assert sorted(found.values(), key=int) == [str(count) for _, count in reversed(counts.most_common(5))]
    assert all(counts[word] == int(number) for word, number in found.items())
    assert report["accumulators"] == {"words": len(counts)}
