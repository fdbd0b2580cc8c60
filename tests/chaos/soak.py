"""Jobs in a row on real clusters, and every few seconds a random fault: ``make soak MINUTES=…``.

After each job it is looked whether anything was lost, done twice or left behind; the report counts what happened. The same
seed gives the same faults in the same order; when they strike is the machine's doing.
"""

import argparse
import contextlib
import itertools
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

from chaos.faults import FullDisk, ReadOnly
from chaos.soakchecks import Deeds, FollowedLog, OpenFiles, finished_again, litter, undue_failures
from chaos.soakjob import RESULT, SPLITS, VERTICES, SoakJob, log_of
from flinkjob.api.errors import StorageError
from local.clusters import Run, alive, eventually

JOB_DEADLINE = 300.0
"""Seconds in which a job has to end, whatever is done to it."""

LONGEST_STOP = 4.0
"""Seconds; a leader that is stopped for more than the lease is a zombie when it goes on."""

ENOUGH_PROBLEMS = 5
"""No further job is begun when there are so many."""

LONGEST_OUTAGE = 3.0
"""Seconds in which the log cannot be written; its leader holds back meanwhile."""

LOOK_EVERY = 0.5
"""Seconds between two looks at the open files of all processes."""


@dataclass
class Report:
    """What has happened; ``problems`` are sentences, and there must be none."""

    seed: int
    without: list[str] = field(default_factory=list)
    jobs: int = 0
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    gaps: list[int] = field(default_factory=list)
    verdicts: Counter[str] = field(default_factory=Counter)
    failovers: int = 0
    tasks: int = 0
    operations: int = 0
    restarted: int = 0
    finished_again: int = 0
    begun_twice: int = 0
    undue_failures: int = 0
    leaks: int = 0
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
            "faults that cannot be made here": "; ".join(self.without) or "-",
            "operations": f"{self.operations}, each of which was looked at",
            "tasks": f"{self.tasks}, {self.restarted} run again because their TaskManager died or they were told to fail",
            "finished tasks run again": self.finished_again,
            "running tasks restarted without need": self.undue_failures,
            "attempts begun twice": self.begun_twice,
            "processes with more and more open files": self.leaks,
            "problems": len(self.problems),
        }
        lines = [f"{name:<41} {value}" for name, value in rows.items()]
        return "\n".join([*lines, *(f"  - {problem}" for problem in self.problems)])


class Faults:
    """Strikes one run, at random."""

    def __init__(
        self, run: Run, job: SoakJob, outage: FullDisk | ReadOnly | None, dice: random.Random, counts: Counter[str]
    ) -> None:
        self.deeds = Deeds()
        self._run = run
        self._job = job
        self._outage = outage
        self._dice = dice
        self._counts = counts
        self._undoing: list[tuple[float, Callable[[], object]]] = []
        self._broken = False
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
            "task told to fail": lambda leader, standbys, workers: self._fail_a_task(),
        }
        if outage is not None:
            name = "the log's disk full" if isinstance(outage, FullDisk) else "the log unwritable"
            self._kinds[name] = lambda leader, standbys, workers: self._break_the_log()

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

    def undo(self, *, all: bool = False) -> None:
        """Have those go on that have been stopped for long enough, and the log be written again."""
        for due, action in list(self._undoing):
            if all or time.monotonic() >= due:
                self._undoing.remove((due, action))
                action()

    def _later(self, longest: float, action: Callable[[], object]) -> None:
        self._undoing.append((time.monotonic() + self._dice.uniform(0.2, longest), action))

    def _kill(self, *entries: Any) -> bool:
        for entry in entries:
            self.deeds.killed.setdefault(entry["id"], time.time_ns() // 1_000_000)
            self.deeds.kills += 1
            _signal(entry["pid"], signal.SIGKILL)
        return bool(entries)

    def _stop(self, entry: Any, longest: float) -> bool:
        self._later(longest, lambda: _signal(entry["pid"], signal.SIGCONT))
        return _signal(entry["pid"], signal.SIGSTOP)

    def _fail_a_task(self) -> bool:
        """Any attempt whose process lives; it may have ended in the same moment, and then nothing comes of it."""
        running = [
            (number, subtask, attempt)
            for number, vertex in enumerate(VERTICES)
            for (subtask, attempt), marks in self._job.starts(vertex).items()
            if alive(marks[-1].pid)
        ]
        if not running:
            return False
        number, subtask, attempt = self._dice.choice(sorted(running))
        self.deeds.told_to_fail.add((number, subtask, attempt))
        self._job.fail(VERTICES[number], subtask, attempt)
        return True

    def _break_the_log(self) -> bool:
        if self._broken or self._outage is None:
            return False
        self._outage.begin()
        self._broken = True
        self._later(LONGEST_OUTAGE, self._mend_the_log)
        return True

    def _mend_the_log(self) -> None:
        assert self._outage is not None
        self._outage.end()
        self._broken = False


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
    job, state = SoakJob.create(path / "job"), path / "state"
    with _outage(log_of(state), dice, report) as outage, contextlib.closing(FollowedLog(log_of(state))) as log:
        run, files = Run.start(job, state), OpenFiles()
        faults = Faults(run, job, outage, dice, report.faults)
        try:
            if not _until_the_end(run, faults, log, files, every):
                report.problems.append(f"the job did not end in {JOB_DEADLINE:g} s")
                return
            faults.undo(all=True)
            outcome = run.end()
            if outcome.code != 0 or "Traceback" in outcome.stderr:
                report.problems.append(f"the run ended with exit code {outcome.code}: {outcome.stderr[-500:]}")
                return
            _check(run, outcome.report, faults.deeds, log, path / "followed", report)
        finally:
            faults.undo(all=True)
            run.close()
    leaks = files.leaks()
    report.leaks += len(leaks)
    report.problems += leaks
    with contextlib.suppress(AssertionError):
        eventually(lambda: not list(_processes_of(path)), "no process is left", deadline=10)
    for left in _processes_of(path):
        report.problems.append(f"process {left} is left")


@contextlib.contextmanager
def _outage(oplog: Path, dice: random.Random, report: Report) -> Iterator[FullDisk | ReadOnly | None]:
    """A way for the log to become unwritable, of two; None where it cannot be made, which the report tells."""
    oplog.mkdir(parents=True)
    outage = dice.choice((FullDisk, ReadOnly))(oplog)
    if reason := outage.prepare():
        if reason not in report.without:
            report.without.append(reason)
        yield None
        return
    try:
        yield outage
    finally:
        outage.remove()


def _until_the_end(run: Run, faults: Faults, log: FollowedLog, files: OpenFiles, every: float) -> bool:
    began = looked = time.monotonic()
    due = began + every
    while run.process.poll() is None:
        now = time.monotonic()
        if now - began > JOB_DEADLINE:
            return False
        if now >= due:
            due = now + every
            faults.strike()
        faults.undo()
        log.follow()
        if now >= looked + LOOK_EVERY:
            looked = now
            run.cluster()
            files.look([run.process.pid, *run.seen])
        time.sleep(0.02)
    return True


def _check(run: Run, told: Any, deeds: Deeds, log: FollowedLog, scratch: Path, report: Report) -> None:
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
    try:
        logged = log.operations(scratch)
    except (StorageError, AssertionError) as error:
        problems.append(f"the log could not be followed: {error}")
        logged = []
    report.operations += len(logged)
    again = finished_again(logged)
    report.finished_again += len(again)
    problems += [f"{VERTICES[vertex]}[{subtask}] had finished and ran again" for vertex, subtask in again]
    undue = undue_failures(logged, deeds)
    report.undue_failures += len(undue)
    problems += undue
    twice = [
        f"{vertex}[{subtask}] attempt {attempt} was begun {len(marks)} times"
        for vertex in VERTICES
        for (subtask, attempt), marks in run.job.starts(vertex).items()
        if len(marks) > 1
    ]
    report.begun_twice += len(twice)
    problems += twice
    problems += [f"{file} was left behind" for file in litter(run.state, deeds)]
    report.problems += problems


def _processes_of(path: Path) -> Iterator[str]:
    """Processes that were started for a job: its directory is among their arguments, or they print into a file there."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_text().split("\0")
            outputs = (os.readlink(process / "fd" / number) for number in "12")
            if any(word.startswith(f"{path}/") for word in itertools.chain(words, outputs)):
                yield f"{process.name} ({' '.join(words[:5])} …)"


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
