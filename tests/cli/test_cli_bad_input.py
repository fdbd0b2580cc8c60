"""Whatever is wrong, it ends in one sentence on standard error that says where and why, with the right exit code."""

import os
import socket
from pathlib import Path

import pytest

from .conftest import MANIFEST, Call

VERTICES = MANIFEST[MANIFEST.index("    vertices:") :]
NUMBERS = '{python: "small:numbers", args: {count: 3}}'


def check_sentence(err: str, *words: str) -> None:
    """One sentence, in one line or with the lines of the user's code below it."""
    assert err.startswith("Error: ")
    first, *others = err.rstrip("\n").split("\n")
    assert all(line.startswith("  ") for line in others), err
    for word in words:
        assert word in first


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        # The text
        (MANIFEST, "", ["the text is empty"]),
        (MANIFEST, "a: [", ["line 1", "not valid YAML"]),
        (MANIFEST, MANIFEST + "---\n" + MANIFEST, ["line 16", "second document"]),
        (MANIFEST, "- 1\n", ["a mapping", "a list"]),
        (MANIFEST, "\0", ["not valid YAML"]),
        ("kind: FlinkJob\n", "kind: FlinkJob\nkind: FlinkJob\n", ["line 3", "'kind'", "twice"]),
        # The resource
        ("kind: FlinkJob\n", "", ["kind", "missing", "FlinkJob"]),
        ("flinkjob.io/v1alpha1", "flinkjob.io/v9", ["apiVersion", "flinkjob.io/v9", "flinkjob.io/v1alpha1"]),
        ("name: small}", "name: Not A Name}", ["metadata.name", "'Not A Name'", "lower-case"]),
        ("{name: small}", "{}", ["metadata.name", "missing"]),
        ("  jobManager:", "  jobmanager:", ["spec: unknown field 'jobmanager'", "did you mean 'jobManager'"]),
        ("jobManager: {replicas: 1}", "jobManager: {replicas: 0}", ["spec.jobManager.replicas", "less than 1"]),
        ("jobManager: {replicas: 1}", "jobManager: {replicas: many}", ["spec.jobManager.replicas", "'many'"]),
        ("taskSlots: 2", "taskSlots: -2", ["spec.taskManager.taskSlots", "-2"]),
        # The options
        (
            "restart-strategy.type: disable",
            "restart-strategie.type: disable",
            ["'restart-strategie.type'", "did you mean"],
        ),
        ("type: disable", "type: sometimes", ["restart-strategy.type", "'sometimes'", "fixed-delay"]),
        (
            "type: disable",
            "type: disable\n    heartbeat.timeout: 10 parsecs",
            ["heartbeat.timeout", "'10 parsecs'", "'60 s'"],
        ),
        ("type: disable", "type: disable\n    taskmanager.numberOfTaskSlots: 3", ["taskSlots", "contradicts"]),
        (
            "type: disable",
            "type: disable\n    heartbeat.timeout: 1 s\n    heartbeat.interval: 2 s",
            ["heartbeat.interval (2 s)", "less than", "heartbeat.timeout (1 s)"],
        ),
        (
            "type: disable",
            "type: disable\n    high-availability.kubernetes.leader-election.renew-deadline: 2100 ms",
            ["renew-deadline (2.1 s)", "retry-period (2 s)"],
        ),
        # The vertices
        (VERTICES, "    vertices: []\n", ["spec.job.vertices", "at least one"]),
        (VERTICES, "    {}\n", ["spec.job", "exactly one of vertices, entrypoint"]),
        ("parallelism: 2", "parallelism: 0", ["spec.job.vertices[0].parallelism", "between 1 and"]),
        ("parallelism: 2", "parallelism: two", ["spec.job.vertices[0].parallelism", "'two'"]),
        (f"task: {NUMBERS}", "task: {}", ["spec.job.vertices[0].task", "exactly one of python, command"]),
        (f"task: {NUMBERS}", "task: {command: []}", ["spec.job.vertices[0].task.command", "program"]),
        (f"task: {NUMBERS}", "task: {command: ls}", ["spec.job.vertices[0].task.command", "a list"]),
        (f"task: {NUMBERS}", "task: {python: numbers}", ["spec.job.vertices[0].task.python", "module:function"]),
        ("name: sum", "name: numbers", ["spec.job.vertices[1].name", "'numbers'", "already"]),
        ("from: numbers", "from: nobody", ["'sum'", "inputs[0]", "'nobody'", "numbers"]),
        ("from: numbers", "from: sum", ["cycle", "sum"]),
        ("partitioner: rebalance", "partitioner: random", ["inputs[0].partitioner", "'random'", "broadcast"]),
        ("partitioner: rebalance", "partitioner: forward", ["'sum'", "forward", "parallelism"]),
        ("exchange: blocking", "exchange: pipelined", ["inputs[0].exchange", "'pipelined'"]),
        (
            f"task: {NUMBERS}",
            f"task: {NUMBERS}, splits: {{files: x, python: 'a:b'}}",
            ["vertices[0].splits", "exactly one"],
        ),
        (
            f"task: {NUMBERS}",
            f"task: {NUMBERS}, splits: {{files: x, maxSplitSize: 5 apples}}",
            ["maxSplitSize", "5 apples"],
        ),
        # The functions
        ("small:numbers", "smaller:numbers", ["'numbers'", "task.python", "no module 'smaller'"]),
        ("small:numbers", "small:digits", ["'numbers'", "task.python", "'small' has no 'digits'"]),
        ("small:numbers", "small:NOT_A_FUNCTION", ["task.python", "is a int, not a function"]),
        (
            f"task: {NUMBERS}",
            f"task: {NUMBERS}, splits: {{python: 'small:none'}}",
            ["'numbers'", "splits.python", "'none'"],
        ),
        (VERTICES, "    entrypoint: small:nobody\n", ["spec.job.entrypoint", "'small' has no 'nobody'"]),
        (
            VERTICES,
            "    entrypoint: small:build_badly\n",
            ["spec.job.entrypoint: small:build_badly: KeyError: 'width'"],
        ),
        (
            VERTICES,
            "    entrypoint: small:build_nonsense\n",
            ["small:build_nonsense must return a JobGraphBuilder", "int"],
        ),
        (VERTICES, "    entrypoint: small:build_nothing\n", ["one vertex at least"]),
        (VERTICES, "    entrypoint: small:build_and_leave\n", ["spec.job.entrypoint", "ended with code 3"]),
        (VERTICES, "    entrypoint: small:build\n    args: 3\n", ["spec.job.args", "a mapping", "3"]),
    ],
)
def test_a_wrong_manifest_is_refused_by_plan_and_by_run(
    flinkjob: Call, job: Path, tmp_path: Path, old: str, new: str, words: list[str]
) -> None:
    assert old in MANIFEST
    job.write_text(MANIFEST.replace(old, new, 1))
    planned = flinkjob("plan", job)
    assert (planned.code, planned.out) == (2, "")
    check_sentence(planned.err, *words)
    state = tmp_path / "state"
    run = flinkjob("run", job, "--state-dir", state, "--output", "json")
    assert (run.code, run.out) == (2, "")
    check_sentence(run.err, *words)
    # Nothing has begun, and the directory is still free for the manifest when it has been mended.
    assert not (state / "cluster.json").exists()
    assert not (state / "job.json").exists()


def test_an_entrypoints_failure_names_the_line(flinkjob: Call, job: Path) -> None:
    job.write_text(MANIFEST.replace(VERTICES, "    entrypoint: small:build_badly\n"))
    told = flinkjob("plan", job).err
    line = (job.parent / "small.py").read_text().splitlines().index('    raise KeyError("width")') + 1
    assert f"small.py:{line} in build_badly" in told


class TestManifestsThatCannotBeRead:
    @pytest.mark.parametrize("command", ["run", "plan", "jobmanager"])
    def test_a_missing_file(self, flinkjob: Call, tmp_path: Path, command: str) -> None:
        answer = flinkjob(command, tmp_path / "none.yaml")
        assert answer.code == 2
        check_sentence(answer.err, f"{tmp_path}/none.yaml: cannot be read: No such file or directory")

    def test_a_directory(self, flinkjob: Call, tmp_path: Path) -> None:
        answer = flinkjob("run", tmp_path)
        assert answer.code == 2
        check_sentence(answer.err, f"{tmp_path}: cannot be read: Is a directory")

    def test_a_binary_file(self, flinkjob: Call, tmp_path: Path) -> None:
        (tmp_path / "job.yaml").write_bytes(b"\x7fELF\xff\xfe\x00")
        answer = flinkjob("run", tmp_path / "job.yaml")
        assert answer.code == 2
        check_sentence(answer.err, "job.yaml: cannot be read: it is not UTF-8 text")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--set", "heartbeat.timeout"], 2, ["--set", "KEY=VALUE"]),
        (["--set", "=3"], 2, ["--set", "KEY=VALUE"]),
        (["--set", "heartbeat.timeout=never"], 2, ["heartbeat.timeout", "'never'"]),
        (["--set", "heartbeat.timeouts=3 s"], 2, ["'heartbeat.timeouts'", "did you mean 'heartbeat.timeout'"]),
        (["--set", "high-availability.storageDir="], 2, ["high-availability.storageDir", "path or a URL"]),
        (["--set", "high-availability.storageDir=floppy://a/b"], 2, ["floppy://", "supported", "file://"]),
        (["--set", "high-availability.storageDir=file://host/b"], 2, ["file://", "absolute path"]),
        (["--set", "high-availability.storageDir=/dev/null/x"], 1, ["/dev/null/x", "cannot be", "Not a directory"]),
        (["--kill-leader-at", "half"], 2, ["--kill-leader-at", "'half'", "0% up to below 100%"]),
        (["--kill-leader-at", "100%"], 2, ["--kill-leader-at", "'100%'"]),
        (["--kill-leader-at", "-1%"], 2, ["--kill-leader-at", "'-1%'"]),
        (["--kill-leader-at", "nan%"], 2, ["--kill-leader-at", "'nan%'"]),
        (["--kill-leader-at", "50"], 2, ["--kill-leader-at", "'50'"]),
        (["--jobmanagers", "0"], 2, ["--jobmanagers", "0"]),
        (["--taskmanagers", "some"], 2, ["--taskmanagers", "some"]),
        (["--slots", "-1"], 2, ["--slots", "-1"]),
        (["--output", "xml"], 2, ["--output", "xml", "json"]),
        (["--state-dir", "/dev/null"], 2, ["--state-dir", "/dev/null", "Not a directory"]),
        (["--state-dir", "/dev/null/x"], 2, ["--state-dir", "/dev/null/x", "Not a directory"]),
        (["--no-such-flag"], 2, ["--no-such-flag"]),
        (["another.yaml"], 2, ["another.yaml"]),
    ],
)
def test_a_wrong_flag_is_refused(flinkjob: Call, job: Path, arguments: list[str], code: int, words: list[str]) -> None:
    answer = flinkjob("run", job, *arguments)
    assert (answer.code, answer.out) == (code, "")
    # click puts two lines on how to get help above a sentence about a flag.
    last = answer.err.splitlines()[-1]
    check_sentence(last, *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], ["'nonsense'"]),
        (["--nonsense"], ["--nonsense"]),
        (["log", "nonsense"], ["'nonsense'"]),
        (["taskmanager"], ["--jobmanagers"]),
        (["taskmanager", "--slots", "1"], ["--jobmanagers"]),
        (["taskmanager", "--jobmanagers", "here"], ["--jobmanagers", "'here'", "HOST:PORT"]),
        (["taskmanager", "--jobmanagers", "here:99999"], ["--jobmanagers", "'here:99999'"]),
        (["taskmanager", "--jobmanagers", ", ,"], ["--jobmanagers", "names no JobManager"]),
        (["taskmanager", "--jobmanagers", "here:1", "--slots", "0"], ["--slots"]),
        (["jobmanager", "x.yaml", "--port", "http"], ["--port", "http"]),
        (["jobmanager", "x.yaml", "--port", "70000"], ["--port", "70000"]),
    ],
)
def test_a_wrong_command_is_refused(flinkjob: Call, arguments: list[str], words: list[str]) -> None:
    answer = flinkjob(*arguments)
    assert (answer.code, answer.out) == (2, "")
    check_sentence(answer.err.splitlines()[-1], *words)


class TestProcesses:
    def test_a_jobmanager_needs_a_storage_directory(self, flinkjob: Call, job: Path) -> None:
        answer = flinkjob("jobmanager", job)
        assert answer.code == 2
        check_sentence(answer.err, "high-availability.storageDir is not set")

    def test_a_log_needs_a_storage_directory(self, flinkjob: Call, job: Path) -> None:
        answer = flinkjob("jobmanager", job, "--set", "jobmanager.failover.operation-log-store=filesystem")
        assert answer.code == 2
        check_sentence(answer.err, "'filesystem' needs high-availability.storageDir")

    def test_a_port_in_use(self, flinkjob: Call, job: Path, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            storage = f"high-availability.storageDir={tmp_path}"
            answer = flinkjob("jobmanager", job, "--port", port, "--set", storage)
        assert answer.code == 2
        check_sentence(answer.err.splitlines()[-1], f"127.0.0.1:{port} cannot be listened on")

    def test_a_work_directory_that_is_none(self, flinkjob: Call) -> None:
        answer = flinkjob("taskmanager", "--jobmanagers", "127.0.0.1:1", "--work-dir", "/dev/null/x")
        assert answer.code == 1
        check_sentence(answer.err.splitlines()[-1], "Not a directory", "/dev/null/x")


class TestLogs:
    @pytest.mark.parametrize("command", ["show", "verify", "replay"])
    def test_a_directory_that_is_no_jobs(self, flinkjob: Call, tmp_path: Path, command: str) -> None:
        answer = flinkjob("log", command, tmp_path)
        assert (answer.code, answer.out) == (2, "")
        check_sentence(answer.err, str(tmp_path), "job's directory")

    @pytest.mark.parametrize("command", ["show", "verify", "replay"])
    def test_a_place_that_is_not_there(self, flinkjob: Call, tmp_path: Path, command: str) -> None:
        answer = flinkjob("log", command, tmp_path / "none")
        assert (answer.code, answer.out) == (2, "")
        check_sentence(answer.err, f"{tmp_path}/none")

    def test_a_scheme_that_keeps_no_log(self, flinkjob: Call) -> None:
        answer = flinkjob("log", "show", "floppy://a/b")
        assert (answer.code, answer.out) == (2, "")
        check_sentence(answer.err, "floppy://", "supported")

    def test_a_job_graph_that_is_none(self, flinkjob: Call, tmp_path: Path) -> None:
        (tmp_path / "jobgraph").write_bytes(os.urandom(64))
        answer = flinkjob("log", "show", tmp_path)
        assert answer.code == 2
        check_sentence(answer.err, "JobGraph cannot be read")


@pytest.mark.parametrize(
    ("vertex", "words"),
    [
        ('{name: numbers, task: {python: "small:fails"}}', ["RuntimeError: the disk is purple"]),
        ("{name: numbers, task: {command: [no-such-program]}}", ["'no-such-program' cannot be run"]),
        ('{name: numbers, task: {command: [sh, -c, "echo why >&2; exit 7"]}}', ["exited with code 7"]),
        ("{name: numbers, task: {command: [cat]}, splits: {files: none-*.txt}}", ["'numbers'", "none-*.txt"]),
        ('{name: numbers, task: {command: [cat]}, splits: {python: "small:splits_fail"}}', ["no such bucket"]),
        ('{name: numbers, task: {command: [cat]}, splits: {python: "small:splits_nonsense"}}', ["an iterable", "int"]),
    ],
)
def test_a_job_that_fails_ends_with_1_and_says_why(flinkjob: Call, job: Path, vertex: str, words: list[str]) -> None:
    job.write_text(MANIFEST.replace(VERTICES, f"    vertices: [{vertex}]\n"))
    answer = flinkjob("run", job, "--output", "json")
    assert answer.code == 1
    assert answer.json["job"]["state"] == "FAILED"
    assert "numbers" in answer.err
    for word in words:
        assert word in answer.json["job"]["cause"]
        assert word in answer.err
