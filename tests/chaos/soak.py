"""Jobs in a row on real clusters, and every few seconds a random fault: ``make soak MINUTES=…``.

After each job it is looked whether anything was lost, done twice or left behind; the report counts what happened. The same
seed gives the same faults in the same order; when they strike is the machine's doing.
"""

import argparse
import contextlib
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local.clusters import GatedJob, Run, eventually, operations

JOB_DEADLINE = 300.0
"""Seconds in which a job has to end, whatever is done to it."""

LEASE = 2
LONGEST_STOP = 4.0
"""Seconds; a leader that is stopped for more than the lease is a zombie when it goes on."""

ENOUGH_PROBLEMS = 5
"""No further job is begun when there are so many."""

SPLITS = 120
KEYS = 7

MODULE = """
import json
import os
import time
from pathlib import Path

from flinkjob import Split


def begin(context):
    path = Path(context.args["dir"]) / f"{context.vertex}-{context.subtask}-{context.attempt}.mark"
    mark = {"pid": os.getpid(), "taskmanager": os.getppid(), "began": ""}
    with path.open("a") as file:
        file.write(json.dumps(mark) + "\\n")


def numbers(args):
    for number in range(args["splits"]):
        yield Split(payload=number)


def read(context):
    begin(context)
    for split in context.splits():
        time.sleep(0.15)
        context.emit((split.payload % context.args["keys"], split.payload))
        context.add("splits", 1)


def add(context):
    begin(context)
    sums = {}
    for key, number in context.read():
        sums[key] = sums.get(key, 0) + number
    for _ in range(40):
        time.sleep(0.1)
    for key, total in sums.items():
        context.emit((key, total))


def collect(context):
    begin(context)
    for item in sorted(context.read()):
        context.emit(item)
"""

MANIFEST = """
apiVersion: flinkjob.io/v1alpha1
kind: FlinkJob
metadata: {{name: soak}}
spec:
  flinkConfiguration:
    restart-strategy.type: fixed-delay
    restart-strategy.fixed-delay.attempts: 1000
    restart-strategy.fixed-delay.delay: 1 ms
    heartbeat.timeout: 6 s
    high-availability.kubernetes.leader-election.lease-duration: {lease} s
    high-availability.kubernetes.leader-election.renew-deadline: 1500 ms
    high-availability.kubernetes.leader-election.retry-period: 300 ms
    jobmanager.failover.snapshot-interval-operations: 40
  jobManager: {{replicas: 2}}
  taskManager: {{replicas: 2, taskSlots: 2}}
  job:
    vertices:
      - name: read
        parallelism: 8
        task: {{python: "soak:read", args: {{dir: "{dir}", keys: {keys}}}}}
        splits: {{python: "soak:numbers", args: {{splits: {splits}}}}}
      - name: add
        parallelism: 6
        task: {{python: "soak:add", args: {{dir: "{dir}"}}}}
        inputs: [{{from: read, partitioner: hash}}]
      - {{name: collect, task: {{python: "soak:collect", args: {{dir: "{dir}"}}}}, inputs: [{{from: add}}]}}
"""

VERTICES = ("read", "add", "collect")

RESULT = {"collect": [[key, sum(range(key, SPLITS, KEYS))] for key in range(KEYS)]}


class SoakJob(GatedJob):
    """A job of three vertices with splits and a hash exchange; its tasks tell of their starts as gated ones do."""

    @classmethod
    def create(cls, path: Path) -> "SoakJob":
        """Write the files."""
        path.mkdir()
        (path / "soak.py").write_text(MODULE)
        job = cls(path)
        job.manifest.write_text(MANIFEST.format(dir=path, lease=LEASE, splits=SPLITS, keys=KEYS))
        return job


@dataclass
class Report:
    """What has happened; ``problems`` are sentences, and there must be none."""

    seed: int
    jobs: int = 0
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    gaps: list[int] = field(default_factory=list)
    verdicts: Counter[str] = field(default_factory=Counter)
    failovers: int = 0
    tasks: int = 0
    restarted: int = 0
    finished_again: int = 0
    begun_twice: int = 0
    undue_restarts: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        gaps = f"{statistics.median(self.gaps):.0f} ms median, {max(self.gaps)} ms max" if self.gaps else "-"
        rows = {
            "seed": self.seed,
            "jobs": f"{self.jobs} in {self.seconds:.0f} s",
            "faults": f"{self.faults.total()}: " + ", ".join(f"{n} x {what}" for what, n in self.faults.most_common()),
            "failovers": self.failovers,
            "gaps": f"{gaps} (after deaths; a stopped leader has none)",
            "verdicts": ", ".join(f"{count} {verdict}" for verdict, count in self.verdicts.most_common() if count)
            or "-",
            "tasks": f"{self.tasks}, {self.restarted} run again because their TaskManager died",
            "finished tasks run again": self.finished_again,
            "running tasks restarted without need": self.undue_restarts,
            "attempts begun twice": self.begun_twice,
            "problems": len(self.problems),
        }
        lines = [f"{name:<38} {value}" for name, value in rows.items()]
        return "\n".join([*lines, *(f"  - {problem}" for problem in self.problems)])


class Faults:
    """Strikes one run, at random."""

    def __init__(self, run: Run, dice: random.Random, counts: Counter[str]) -> None:
        self.killed: set[int] = set()
        self._run = run
        self._dice = dice
        self._counts = counts
        self._stopped: list[tuple[float, int]] = []
        self._kinds: dict[str, Callable[[Any, list[Any], list[Any]], bool]] = {
            "leader killed": lambda leader, standbys, workers: self._kill(leader),
            "standby killed": lambda leader, standbys, workers: self._kill(standbys[0]),
            "TaskManager killed": lambda leader, standbys, workers: self._kill(workers[0]),
            "leader and TaskManager killed": lambda leader, standbys, workers: self._kill(leader, workers[0]),
            "all JobManagers killed": lambda leader, standbys, workers: self._kill(leader, *standbys),
            "all TaskManagers killed": lambda leader, standbys, workers: self._kill(*workers),
            "leader stopped": lambda leader, standbys, workers: self._stop(leader, LONGEST_STOP),
            "standby stopped": lambda leader, standbys, workers: self._stop(standbys[0], LONGEST_STOP),
            "TaskManager stopped": lambda leader, standbys, workers: self._stop(workers[0], LONGEST_STOP / 2),
        }

    def strike(self) -> None:
        """Do something, if the cluster is there to have it done."""
        kind = self._dice.choice(sorted(self._kinds))
        cluster = self._run.cluster()
        if cluster is None:
            return
        leaders = [entry for entry in cluster["jobmanagers"] if entry["leader"]]
        standbys = [entry for entry in cluster["jobmanagers"] if not entry["leader"]]
        workers = self._dice.sample(cluster["taskmanagers"], len(cluster["taskmanagers"]))
        if leaders and standbys and workers and self._kinds[kind](leaders[0], standbys, workers):
            self._counts[kind] += 1

    def wake(self, *, all: bool = False) -> None:
        """Have those go on that have been stopped for long enough."""
        for due, pid in list(self._stopped):
            if all or time.monotonic() >= due:
                self._stopped.remove((due, pid))
                _signal(pid, signal.SIGCONT)

    def _kill(self, *entries: Any) -> bool:
        for entry in entries:
            self.killed.add(entry["pid"])
            _signal(entry["pid"], signal.SIGKILL)
        return bool(entries)

    def _stop(self, entry: Any, longest: float) -> bool:
        self._stopped.append((time.monotonic() + self._dice.uniform(0.2, longest), entry["pid"]))
        return _signal(entry["pid"], signal.SIGSTOP)


def _signal(pid: int, number: signal.Signals) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


def soak(
    *, seconds: float, seed: int, every: float = 5.0, directory: Path, tell: Callable[[str], None] = print
) -> Report:
    """Run jobs until the time is over, and the last one to its end.

    Args:
        every: seconds between two faults.
        directory: for jobs and their state; what a job without problems leaves is removed.
    """
    report, dice = Report(seed), random.Random(seed)
    began, opened = time.monotonic(), len(os.listdir("/proc/self/fd"))
    while time.monotonic() - began < seconds and len(report.problems) < ENOUGH_PROBLEMS:
        path = directory / f"job-{report.jobs + 1}"
        path.mkdir()
        before = len(report.problems)
        _one_job(path, dice, every, report)
        report.jobs += 1
        if len(report.problems) > before:
            tell(f"job {report.jobs}: {'; '.join(report.problems[before:])} (see {path})")
        else:
            subprocess.run(["rm", "-r", path], check=True)
    report.seconds = time.monotonic() - began
    if (left := len(os.listdir("/proc/self/fd"))) > opened:
        report.problems.append(f"{left - opened} files are still open")
    return report


def _one_job(path: Path, dice: random.Random, every: float, report: Report) -> None:
    job = SoakJob.create(path / "job")
    run = Run.start(job, path / "state")
    faults = Faults(run, dice, report.faults)
    try:
        if not _until_the_end(run, faults, every):
            report.problems.append(f"the job did not end in {JOB_DEADLINE:g} s")
            return
        outcome = run.end()
        if outcome.code != 0 or "Traceback" in outcome.stderr:
            report.problems.append(f"the run ended with exit code {outcome.code}: {outcome.stderr[-500:]}")
            return
        _check(run, outcome.report, faults.killed, report)
    finally:
        faults.wake(all=True)
        run.close()
    with contextlib.suppress(AssertionError):
        eventually(lambda: not list(_processes_of(path)), "no process is left", deadline=10)
    for left in _processes_of(path):
        report.problems.append(f"process {left} is left")


def _until_the_end(run: Run, faults: Faults, every: float) -> bool:
    began = time.monotonic()
    due = began + every
    while run.process.poll() is None:
        now = time.monotonic()
        if now - began > JOB_DEADLINE:
            return False
        if now >= due:
            due = now + every
            faults.strike()
        faults.wake()
        time.sleep(0.02)
    return True


def _check(run: Run, told: Any, killed: set[int], report: Report) -> None:
    """Compare what the run and its log tell with what they must."""
    report.failovers += len(told["failovers"])
    report.gaps += [failover["gap_ms"] for failover in told["failovers"] if failover["gap_ms"] is not None]
    for failover in told["failovers"]:
        report.verdicts.update(failover["verdicts"])
    report.tasks += told["tasks"]["total"]
    report.restarted += told["tasks"]["restarted"]
    problems: list[str] = []
    if told["outputs"] != RESULT:
        problems.append(f"the result is {told['outputs']}")
    if told["accumulators"] != {"splits": SPLITS}:
        problems.append(f"the accumulators are {told['accumulators']}")
    again = _finished_again(operations(run))
    report.finished_again += len(again)
    problems += [f"{task} had finished and ran again" for task in again]
    undue = _undue_restarts(run.job, killed)
    report.undue_restarts += len(undue)
    problems += [f"{attempt} was not continued, and its TaskManager lives" for attempt in undue]
    twice = [
        f"{vertex}[{subtask}] attempt {attempt} was begun {len(marks)} times"
        for vertex in VERTICES
        for (subtask, attempt), marks in run.job.starts(vertex).items()
        if len(marks) > 1
    ]
    report.begun_twice += len(twice)
    problems += twice
    # A process that is killed may leave the one file that it is about to rename.
    litter = _litter(run.state)
    problems += [f"{file} was left behind" for file in litter if len(litter) > len(killed)]
    report.problems += problems


def _finished_again(told: list[dict[str, Any]]) -> list[str]:
    """Tasks that were reset after they had finished, as far back as snapshots have left the log."""
    finished: set[tuple[int, int]] = set()
    again: list[str] = []
    for op in told:
        if op["operation"] == "TaskFinished":
            finished.add((op["vertex"], op["subtask"]))
        elif op["operation"] == "TasksReset":
            tasks = finished & {(op["vertex"], subtask) for subtask in op["subtasks"]}
            again += [f"{VERTICES[vertex]}[{subtask}]" for vertex, subtask in sorted(tasks)]
    return again


def _undue_restarts(job: GatedJob, killed: set[int]) -> list[str]:
    """Attempts that were followed by another one although nobody had killed their TaskManager."""
    found = []
    for vertex in VERTICES:
        starts = job.starts(vertex)
        for (subtask, attempt), marks in starts.items():
            later = [number for other, number in starts if other == subtask and number > attempt]
            if later and marks[-1].taskmanager not in killed:
                found.append(f"{vertex}[{subtask}] attempt {attempt}")
    return found


def _processes_of(path: Path) -> Iterator[str]:
    """Processes that were started for a job: its directory is among their arguments."""
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = cmdline.read_text().split("\0")
            if any(word.startswith(f"{path}/") for word in words):
                yield f"{cmdline.parent.name} ({' '.join(words[:5])} …)"


def _litter(state: Path) -> list[Path]:
    """Files that nobody will ever read again."""
    scratch = [path for path in (state / "work").glob("*/slot-*") if path.is_dir()]
    return scratch + [path for path in state.rglob("*") if path.suffix == ".tmp"]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two faults")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="flinkjob-soak-"))
    report = soak(seconds=60 * options.minutes, seed=options.seed, every=options.every, directory=directory)
    print(report)
    if report.problems:
        sys.exit(1)
    directory.rmdir()


if __name__ == "__main__":
    main()
