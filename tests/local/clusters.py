"""Real clusters under test: a job whose tasks wait at gates, `flinkjob run` as a process, and looks at it from outside.

Nothing depends on timing: a task tells in a file that it has begun, and then waits for a file, its gate. So a test kills
exactly when everybody is where it wants them.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

DEADLINE = 60.0
"""Seconds after which a condition that does not come true is a failure."""

MODULE = """
import json
import os
import time
from pathlib import Path


def gated(context):
    tell(context)
    go_on(context)


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def tell(context):
    directory = Path(context.args["dir"])
    began = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    # It has been forked by the fork server, whose parent is the TaskManager.
    mark = {"pid": os.getpid(), "taskmanager": parent_of(os.getppid()), "began": began}
    with (directory / f"{context.vertex}-{context.subtask}-{context.attempt}.mark").open("a") as file:
        file.write(json.dumps(mark) + "\\n")


def wait(context, gate):
    while not (Path(context.args["dir"]) / f"{gate}.gate").exists():
        time.sleep(0.01)


def go_on(context):
    wait(context, context.vertex)
    if context.vertex == "first":
        context.emit(context.subtask)
    else:
        context.emit(sum(context.read()))


def total(context):
    context.emit(sum(context.read()))
"""

MANIFEST = """
apiVersion: flinkjob.io/v1alpha1
kind: FlinkJob
metadata: {{name: gated}}
spec:
  flinkConfiguration:
    restart-strategy.type: fixed-delay
    restart-strategy.fixed-delay.attempts: 10
    restart-strategy.fixed-delay.delay: 1 ms
  jobManager: {{replicas: 2}}
  taskManager: {{replicas: 2, taskSlots: 2}}
  job:
    vertices:
      - {{name: first, parallelism: 2, task: {{python: "gated:gated", args: {{dir: "{dir}"}}}}}}
      - name: second
        parallelism: 4
        task: {{python: "gated:gated", args: {{dir: "{dir}"}}}}
        inputs: [{{from: first, partitioner: broadcast}}]
      - {{name: total, task: {{python: "gated:total"}}, inputs: [{{from: second}}]}}
"""

RESULT = {"total": [4]}
"""What the gated job gives: four subtasks of ``second`` that each read 0 and 1."""

T = TypeVar("T")


def eventually(probe: Callable[[], T | None], what: str, deadline: float = DEADLINE) -> T:
    """The first answer that is not false or None; a failure of the test where none comes in time."""
    end = time.monotonic() + deadline
    while not (answer := probe()):
        if time.monotonic() > end:
            raise AssertionError(f"in {deadline:g} s it did not come to pass that {what}")
        time.sleep(0.02)
    return answer


def alive(pid: int) -> bool:
    """Whether the process exists and is not a mere entry of one that has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def get(url: str, *, method: str = "GET") -> Any:
    """The JSON that a URL answers with, redirects followed; None where nobody answers or it is an error."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=5) as answer:
            return json.load(answer)
    except (OSError, ValueError):
        return None


@dataclass(frozen=True)
class Mark:
    """What a task has told of one start: its process, when that began (ticks since the boot), and its TaskManager's."""

    pid: int
    taskmanager: int
    began: str


Starts = dict[tuple[int, int], list[Mark]]
"""Starts of tasks of a vertex, by (subtask, attempt)."""


@dataclass
class GatedJob:
    """The job's directory: its manifest, its module, its marks and its gates."""

    path: Path

    @classmethod
    def create(cls, path: Path) -> "GatedJob":
        """Write the files."""
        path.mkdir(exist_ok=True)
        (path / "gated.py").write_text(MODULE)
        (path / "gated.yaml").write_text(MANIFEST.format(dir=path))
        return cls(path)

    @property
    def manifest(self) -> Path:
        """The manifest's file."""
        return self.path / "gated.yaml"

    def open(self, gate: str) -> None:
        """Open a gate; the one of a vertex's name lets its tasks go on."""
        (self.path / f"{gate}.gate").touch()

    def starts(self, vertex: str) -> Starts:
        """All starts of tasks of a vertex, by (subtask, attempt)."""
        found = {}
        for file in self.path.glob(f"{vertex}-*.mark"):
            subtask, attempt = file.stem.split("-")[1:]
            lines = [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
            if lines:
                found[int(subtask), int(attempt)] = [Mark(**json.loads(line)) for line in lines]
        return found


@dataclass
class Outcome:
    """How a `flinkjob run` ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def report(self) -> Any:
        """The document of ``--output json``: all that standard output has."""
        return json.loads(self.stdout)


@dataclass
class Run:
    """A `flinkjob run --output json` of a job, in a process of its own."""

    job: GatedJob
    state: Path
    process: "subprocess.Popen[str]"
    seen: set[int] = field(default_factory=set)

    @classmethod
    def start(cls, job: GatedJob, state: Path, *arguments: str, **options: str) -> "Run":
        """Start it; ``options`` become ``--set``, with ``_`` for ``.`` and ``__`` for ``-`` in their keys."""
        command = [sys.executable, "-m", "flinkjob", "run", str(job.manifest), "--state-dir", str(state)]
        for key, value in options.items():
            command += ["--set", f"{key.replace('__', '-').replace('_', '.')}={value}"]
        process = subprocess.Popen(
            [*command, "--output", "json", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return cls(job, state, process)

    def cluster(self) -> Any:
        """``cluster.json``, in the form in which the world may rely on it."""
        with contextlib.suppress(OSError):
            cluster = json.loads((self.state / "cluster.json").read_text())
            self.seen |= {entry["pid"] for entry in (*cluster["jobmanagers"], *cluster["taskmanagers"])}
            if cluster["pid"] == self.process.pid:
                return cluster
        return None

    def leader(self, *, but: str = "", not_pid: int = 0, deadline: float = DEADLINE) -> Any:
        """The entry of the JobManager that leads: it answers, and is neither of the given name nor process."""

        def leading() -> Any:
            for entry in (self.cluster() or {"jobmanagers": []})["jobmanagers"]:
                if entry["leader"] and entry["id"] != but and entry["pid"] != not_pid:
                    told = get(f"{entry['rest']}/leader")
                    if told and told["leading"] and told["id"] == entry["id"]:
                        return entry
            return None

        return eventually(leading, f"somebody leads (not {but or not_pid or 'nobody'})", deadline)

    def standby(self) -> Any:
        """The entry of a JobManager that does not lead, and knows who does."""
        leader = self.leader()

        def standing_by() -> Any:
            for entry in self.cluster()["jobmanagers"]:
                told = get(f"{entry['rest']}/leader") if entry["id"] != leader["id"] else None
                if told and f"http://{told['address']}" == leader["rest"]:
                    return entry
            return None

        return eventually(standing_by, f"a standby knows that {leader['id']} leads")

    def progress(self) -> Any:
        """What the leader says of the job; None while there is none."""
        cluster = self.cluster()
        leaders = [entry["rest"] for entry in (cluster or {"jobmanagers": []})["jobmanagers"] if entry["leader"]]
        return get(f"{leaders[0]}/jobs/{cluster['job_id']}/progress") if leaders else None

    def running(self, vertex: str, count: int, *, epoch: int = 1) -> None:
        """Wait until so many tasks of the vertex run, in the log and in truth, and the job does in this epoch."""

        def run() -> bool:
            view = self.progress()
            if not view or view["state"] != "RUNNING" or view["epoch"] != epoch:
                return False
            (found,) = (v for v in view["vertices"] if v["name"] == vertex)
            return bool(found["tasks"].get("RUNNING", 0) == count)

        eventually(run, f"{count} tasks of {vertex} run in epoch {epoch}")
        eventually(lambda: len(self.job.starts(vertex)) >= count, f"{count} tasks of {vertex} have told of themselves")

    def in_second(self) -> Starts:
        """Wait until the first vertex is done and all tasks of the second run; they, by (subtask, attempt)."""
        self.job.open("first")
        self.running("second", 4)
        return self.job.starts("second")

    def finish(self) -> Outcome:
        """Open all gates and wait for the end."""
        self.job.open("first")
        self.job.open("second")
        return self.end()

    def end(self) -> Outcome:
        """Wait for the end."""
        stdout, stderr = self.process.communicate(timeout=DEADLINE)
        return Outcome(self.process.returncode, stdout, stderr)

    def kill_all(self) -> None:
        """kill -9 of everything at once, beginning with the one who would see to the others."""
        self.cluster()
        for pid in (self.process.pid, *self.seen):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate(timeout=DEADLINE)

    def close(self) -> None:
        """End whatever is left."""
        if self.process.poll() is None:
            self.kill_all()
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.stdout.close()
        self.process.stderr.close()


def pids_of(starts: Starts) -> Iterator[int]:
    """The processes of all starts."""
    return (mark.pid for marks in starts.values() for mark in marks)


def operations(run: Run) -> list[dict[str, Any]]:
    """The operation log, as ``flinkjob log show`` tells it."""
    command = [sys.executable, "-m", "flinkjob", "log", "show", str(storage_of(run)), "--output", "json"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=True)
    return [json.loads(line) for line in shown.stdout.splitlines()]


def storage_of(run: Run) -> Path:
    """The job's directory in the storage."""
    (storage,) = (run.state / "storage" / "default").iterdir()
    return storage


def everybody(run: Run) -> set[int]:
    """The processes of the cluster and of all tasks."""
    run.cluster()
    return {*run.seen, *pids_of(run.job.starts("first")), *pids_of(run.job.starts("second"))}


def check_nobody_is_left(pids: set[int]) -> None:
    """All processes have ended, and so have all that were in their groups and sessions."""
    eventually(lambda: not [pid for pid in pids if alive(pid)], "no process is left")
    left = [name for name, group, session in _living() if {group, session} & pids]
    assert not left, f"processes are left: {left}"


def _living() -> Iterator[tuple[str, int, int]]:
    """All processes, with their groups and sessions."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, group, session = stat.read_text().rpartition(")")[2].split()[:4]
            if state not in "ZX":
                yield stat.parent.name, int(group), int(session)


def begun_once(starts: Starts, *, attempts: tuple[int, ...] = (0,)) -> bool:
    """Whether each attempt was begun once, and only attempts of these numbers."""
    return all(len(marks) == 1 and attempt in attempts for (_, attempt), marks in starts.items())


def kill(entry: dict[str, Any], number: int = signal.SIGKILL) -> None:
    """Send a signal to a process of the cluster."""
    os.kill(entry["pid"], number)


def check_undisturbed(run: Run, before: Starts, outcome: Outcome) -> None:
    """The job has finished, and no task has noticed anything: same process, same attempt, begun once."""
    assert outcome.code == 0, outcome.stderr
    assert outcome.report["outputs"] == RESULT
    assert run.job.starts("second") == before
    assert begun_once(before)
    assert begun_once(run.job.starts("first"))
    assert outcome.report["tasks"] == {"total": 7, "finished": 7, "restarted": 0}
    assert [vertex["attempts"] for vertex in outcome.report["vertices"]] == [2, 4, 1]


def says(run: Run, jobmanager: dict[str, Any]) -> tuple[bool, str]:
    """Whether a JobManager says that it leads, and whom it says to be the leader."""
    answer = get(f"{jobmanager['rest']}/leader") or {"leading": True, "address": ""}
    named = [e["id"] for e in run.cluster()["jobmanagers"] if e["rest"] == f"http://{answer['address']}"]
    return answer["leading"], (named or [""])[0]
