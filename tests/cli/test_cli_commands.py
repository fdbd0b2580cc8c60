"""The commands that look at things: plan, options, log."""

import json
from pathlib import Path
from typing import Any

import pytest

from flinkjob.api.options import OPTIONS

from .conftest import MANIFEST, Call

NEEDING: list[list[str]] = [
    *([], ["run"], ["plan"], ["jobmanager"], ["log"]),
    *(["result"], ["watch"], ["cancel"], ["failover"]),
]
"""Commands that do nothing without an argument."""

DOCS = Path(__file__).parents[2] / "docs"


class TestPlan:
    def test_shows_vertices_edges_and_regions(self, flinkjob: Call, job: Path) -> None:
        answer = flinkjob("plan", job)
        assert (answer.code, answer.err) == (0, "")
        lines = answer.out.splitlines()
        assert lines[0] == "Job small"
        (numbers,) = (line for line in lines if " numbers " in line and "small:numbers" in line)
        assert [cell.strip() for cell in numbers.strip("│").split("│")] == [
            "numbers",
            "2",
            "python small:numbers",
            "-",
            "2",
        ]
        (total,) = (line for line in lines if "small:add" in line)
        assert "numbers (rebalance, blocking)" in total
        assert "3 tasks in 2 vertices; 3 failover regions" in answer.out

    def test_shows_splits(self, flinkjob: Call, job: Path) -> None:
        splits = 'splits: {files: ["*.txt", "*.md"], maxSplitSize: 2 kb}'
        job.write_text(MANIFEST.replace("parallelism: 2", f"parallelism: 2, {splits}"))
        assert "*.txt, *.md in ranges of at most 2048 bytes" in flinkjob("plan", job).out

    def test_runs_the_entrypoint_and_keeps_its_prints_off_standard_output(self, flinkjob: Call, job: Path) -> None:
        vertices = MANIFEST[MANIFEST.index("    vertices:") :]
        job.write_text(MANIFEST.replace(vertices, "    entrypoint: small:build\n    args: {count: 5}\n"))
        answer = flinkjob("plan", job)
        assert answer.code == 0
        assert "python small:numbers" in answer.out
        assert answer.err == "an entrypoint may print what it likes\n"

    def test_checks_options_that_are_set_on_the_command_line(self, flinkjob: Call, job: Path) -> None:
        assert flinkjob("plan", job, "--set", "heartbeat.timeout=3 s").code == 0
        answer = flinkjob("plan", job, "--set", "heartbeat.timeout=3 parsecs")
        assert answer.code == 2
        assert "'3 parsecs'" in answer.err

    def test_starts_nothing_and_writes_nothing(self, flinkjob: Call, job: Path) -> None:
        before = sorted(path.name for path in job.parent.iterdir())
        assert flinkjob("plan", job).code == 0
        assert sorted(path.name for path in job.parent.iterdir() if path.name != "__pycache__") == before


class TestOptions:
    def test_prints_the_table_that_the_documentation_has(self, flinkjob: Call) -> None:
        answer = flinkjob("options")
        assert (answer.code, answer.err) == (0, "")
        assert answer.out == (DOCS / "options.md").read_text()

    def test_has_a_row_for_each_option(self, flinkjob: Call) -> None:
        rows = [line for line in flinkjob("options").out.splitlines() if line.startswith("| `")]
        assert [row.split("`")[1] for row in rows] == list(OPTIONS)


@pytest.fixture
def log(flinkjob: Call, job: Path, tmp_path: Path) -> Path:
    """The directory of a job that has finished."""
    assert flinkjob("run", job, "--state-dir", tmp_path / "state").code == 0
    (directory,) = (tmp_path / "state" / "storage" / "default").iterdir()
    return directory


def lines_of(out: str) -> list[dict[str, Any]]:
    """JSON lines."""
    return [json.loads(line) for line in out.splitlines()]


class TestLog:
    def test_show_tells_every_operation(self, flinkjob: Call, log: Path) -> None:
        text, lines = flinkjob("log", "show", log), flinkjob("log", "show", f"file://{log}", "--output", "json")
        assert (text.code, text.err, lines.code, lines.err) == (0, "", 0, "")
        operations = lines_of(lines.out)
        assert [operation["lsn"] for operation in operations] == list(range(1, len(operations) + 1))
        assert {operation["epoch"] for operation in operations} == {1}
        shown = text.out.splitlines()
        assert len(shown) == len(operations)
        assert shown[0].split()[:3] == ["1", "epoch", "1"]
        assert any("numbers[1]" in line for line in shown)
        assert "FINISHED" in shown[-1]

    def test_verify_says_how_far_the_log_is_intact(self, flinkjob: Call, log: Path) -> None:
        text, report = flinkjob("log", "verify", log), flinkjob("log", "verify", log, "--output", "json")
        assert (text.code, report.code) == (0, 0)
        last = len(flinkjob("log", "show", log).out.splitlines())
        assert text.out.splitlines()[-1] == f"intact up to LSN {last}"
        found = report.json
        assert (found["last_lsn"], found["oldest_lsn"], found["damage"], found["replayable"]) == (last, 1, "", True)
        assert [epoch["epoch"] for epoch in found["epochs"]] == [1]
        assert sum(segment["operations"] for segment in found["segments"]) == last

    def test_replay_folds_the_log(self, flinkjob: Call, log: Path) -> None:
        text, graph = flinkjob("log", "replay", log), flinkjob("log", "replay", log, "--output", "json").json
        assert text.code == 0
        assert text.out.startswith("job small is FINISHED at LSN ")
        assert text.out.splitlines()[1:] == ["  numbers: 2 FINISHED", "  sum: 1 FINISHED"]
        assert graph["job"]["name"] == "small"
        assert graph["job"]["state"] == "FINISHED"
        assert graph["accumulators"] == {"numbers": 6}
        assert (graph["epoch"], graph["leader"], graph["failovers"], graph["restarts"]) == (1, "jobmanager-0", 0, 0)
        states = {vertex["name"]: [task["state"] for task in vertex["subtasks"]] for vertex in graph["vertices"]}
        assert states == {"numbers": ["FINISHED"] * 2, "sum": ["FINISHED"]}

    def test_replay_stops_at_an_lsn(self, flinkjob: Call, log: Path) -> None:
        operations = lines_of(flinkjob("log", "show", log, "--output", "json").out)
        for lsn in (0, 1, len(operations) // 2, len(operations)):
            answer = flinkjob("log", "replay", log, "--until", lsn, "--output", "json")
            assert answer.json["lsn"] == lsn
        assert flinkjob("log", "replay", log, "--until", 0, "--output", "json").json["job"]["state"] == "CREATED"
        beyond = flinkjob("log", "replay", log, "--until", len(operations) + 1)
        assert (beyond.code, beyond.out) == (2, "")
        assert f"it ends at LSN {len(operations)}" in beyond.err

    @pytest.mark.parametrize("command", ["show", "verify", "replay"])
    def test_damage_is_told_with_file_and_offset(self, flinkjob: Call, log: Path, command: str) -> None:
        (segment,) = log.glob("oplog/*.log")
        data = bytearray(segment.read_bytes())
        data[len(data) // 2] ^= 1
        segment.write_bytes(data)
        answer = flinkjob("log", command, log)
        assert answer.code == 1
        (sentence,) = [
            line for line in (answer.out + answer.err).splitlines() if "damaged: " in line or "Error: " in line
        ]
        assert segment.name in sentence
        assert "offset" in sentence
        assert segment.read_bytes() == data

    def test_verify_reports_damage_as_json_too(self, flinkjob: Call, log: Path) -> None:
        (segment,) = log.glob("oplog/*.log")
        segment.write_bytes(b"x" + segment.read_bytes()[1:])
        answer = flinkjob("log", "verify", log, "--output", "json")
        assert answer.code == 1
        assert segment.name in answer.json["damage"]
        assert answer.json["replayable"] is False

    def test_looking_changes_nothing(self, flinkjob: Call, log: Path) -> None:
        before = {path: path.stat().st_mtime_ns for path in log.rglob("*")}
        for command in ("show", "verify", "replay"):
            assert flinkjob("log", command, log).code == 0
        assert {path: path.stat().st_mtime_ns for path in log.rglob("*")} == before


class TestResult:
    def test_is_what_the_run_reported(self, flinkjob: Call, job: Path, tmp_path: Path) -> None:
        report = flinkjob("run", job, "--state-dir", tmp_path, "--output", "json").json
        (directory,) = (tmp_path / "storage" / "default").iterdir()
        answer = flinkjob("result", directory, "--output", "json")
        assert (answer.code, answer.err) == (0, "")
        assert answer.json == report
        text = flinkjob("result", f"file://{directory}")
        assert text.out.splitlines()[1:] == ["Accumulators: numbers 6", "Result of sum:", "  6"]

    def test_of_a_failed_job_ends_with_1(self, flinkjob: Call, job: Path, tmp_path: Path) -> None:
        job.write_text(MANIFEST.replace("small:add", "small:fails"))
        assert flinkjob("run", job, "--state-dir", tmp_path).code == 1
        (directory,) = (tmp_path / "storage" / "default").iterdir()
        answer = flinkjob("result", directory)
        assert answer.code == 1
        assert "the disk is purple" in answer.out

    def test_of_a_job_that_goes_on_is_not_there(self, flinkjob: Call, log: Path) -> None:
        (log / "result").unlink()
        answer = flinkjob("result", log)
        assert (answer.code, answer.out) == (1, "")
        assert answer.err == f"Error: {log}: the job has not ended yet\n"

    def test_of_no_job_is_wrong_input(self, flinkjob: Call, tmp_path: Path) -> None:
        answer = flinkjob("result", tmp_path)
        assert (answer.code, answer.out) == (2, "")
        assert answer.err.startswith(f"Error: {tmp_path}: there is no job")


class TestHelp:
    @pytest.mark.parametrize(
        "command",
        [
            "run",
            "plan",
            "jobmanager",
            "taskmanager",
            "options",
            "log",
            "result",
            "status",
            "watch",
            "cancel",
            "failover",
        ],
    )
    def test_each_command_explains_itself(self, flinkjob: Call, command: str) -> None:
        answer = flinkjob(command, "--help")
        assert (answer.code, answer.err) == (0, "")
        assert f"Usage: flinkjob {command}" in answer.out
        assert command in flinkjob("--help").out

    @pytest.mark.parametrize(
        "command", [[], ["run"], ["plan"], ["jobmanager"], ["log"], ["result"], ["watch"], ["cancel"], ["failover"]]
    )
    def test_a_command_without_what_it_needs_shows_its_help(self, flinkjob: Call, command: list[str]) -> None:
        answer = flinkjob(*command)
        assert (answer.code, answer.out) == (2, "")
        assert answer.err.startswith(" ".join(["Usage: flinkjob", *command]))

    def test_the_version(self, flinkjob: Call) -> None:
        answer = flinkjob("--version")
        assert answer.code == 0
        assert answer.out.startswith("flinkjob, version ")
