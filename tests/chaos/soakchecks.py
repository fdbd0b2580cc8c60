"""What must hold of a job however many faults have struck it, and of the processes that ran it."""

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from flinkjob.graph import operations as ops
from flinkjob.oplog.append import AppendMedium
from flinkjob.oplog.inspect import show

MORE_FILES = 8
"""So many more files than before may a process have open for a while: connections come and go."""

SAMPLES = 8
"""So many looks are compared, first and last ones."""


class FollowedLog:
    """All of a log from its first operation on: each segment is held open, so that it can be read after its removal."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._segments: dict[str, BinaryIO] = {}

    def follow(self) -> None:
        """Take hold of what is new."""
        with contextlib.suppress(FileNotFoundError):
            for path in self._directory.glob("*.log"):
                if path.name not in self._segments:
                    self._segments[path.name] = path.open("rb")

    def operations(self, scratch: Path) -> list[ops.Operation]:
        """Everything that was ever logged.

        Raises:
            StorageError: not all segments were seen in time.
        """
        self.follow()
        (scratch / "oplog").mkdir(parents=True)
        for name, file in self._segments.items():
            (scratch / "oplog" / name).write_bytes(file.read())
        told = list(show(AppendMedium(scratch)))
        assert told[0][0] == 1, f"the log is known from LSN {told[0][0]} on only"
        return [operation for _, _, operation in told]

    def close(self) -> None:
        """Let go."""
        for file in self._segments.values():
            file.close()


@dataclass
class Deeds:
    """What was done that a task may have to be run again for.

    Attributes:
        killed: when each TaskManager was, in milliseconds, by its id.
        kills: how many processes were killed in all.
        told_to_fail: attempts, as (vertex, subtask, attempt).
    """

    killed: dict[str, int] = field(default_factory=dict)
    kills: int = 0
    told_to_fail: set[tuple[int, int, int]] = field(default_factory=set)


def finished_again(told: Iterable[ops.Operation]) -> list[tuple[int, int]]:
    """Tasks that were reset or deployed after they had finished, as (vertex, subtask). No fault here loses a partition."""
    finished: set[tuple[int, int]] = set()
    again: list[tuple[int, int]] = []
    for op in told:
        if isinstance(op, ops.TaskFinished):
            finished.add((op.vertex, op.subtask))
        elif isinstance(op, ops.TasksReset):
            again += sorted(finished & {(op.vertex, subtask) for subtask in op.subtasks})
        elif isinstance(op, ops.TaskDeploying) and (op.vertex, op.subtask) in finished:
            again.append((op.vertex, op.subtask))
    return again


def undue_failures(told: Iterable[ops.Operation], deeds: Deeds) -> list[str]:
    """What failed, or was reset without a failure, although nobody had done anything to it before.

    A failure is due where its TaskManager had been killed before, and its cause says so, or where the attempt had been told
    to fail, and its cause says that.
    """
    taskmanagers: list[str] = []
    on: dict[tuple[int, int, int], str] = {}
    failed: set[tuple[int, int]] = set()
    undue: list[str] = []
    for op in told:
        if isinstance(op, ops.TaskManagerRegistered):
            taskmanagers.append(op.id)
        elif isinstance(op, ops.TaskDeploying):
            on[op.vertex, op.subtask, op.attempt] = taskmanagers[op.taskmanager]
            failed.discard((op.vertex, op.subtask))
        elif isinstance(op, ops.TaskFailed):
            attempt = (op.vertex, op.subtask, op.attempt)
            failed.add(attempt[:2])
            killed = deeds.killed.get(on[attempt])
            if not (
                (killed is not None and killed <= op.at and on[attempt] in op.cause)
                or (attempt in deeds.told_to_fail and "told to fail" in op.cause)
            ):
                undue.append(f"{attempt} on {on[attempt]} failed: {op.cause}")
        elif isinstance(op, ops.TasksReset):
            undue += [
                f"{(op.vertex, subtask)} was reset and had not failed"
                for subtask in op.subtasks
                if (op.vertex, subtask) not in failed
            ]
    return undue


class OpenFiles:
    """How many files each process has open, looked at again and again."""

    def __init__(self) -> None:
        self._counts: defaultdict[int, list[int]] = defaultdict(list)

    def look(self, pids: Iterable[int]) -> None:
        """Count them once more."""
        for pid in pids:
            with contextlib.suppress(OSError):
                self._counts[pid].append(len(os.listdir(f"/proc/{pid}/fd")))

    def leaks(self) -> list[str]:
        """The processes that had more open at every one of the last looks than at any of the first."""
        return [
            f"process {pid} had {max(counts[:SAMPLES])} files open and {min(counts[-SAMPLES:])} at last"
            for pid, counts in self._counts.items()
            if len(counts) >= 2 * SAMPLES and min(counts[-SAMPLES:]) > max(counts[:SAMPLES]) + MORE_FILES
        ]


def litter(state: Path, deeds: Deeds) -> list[Path]:
    """Files that nobody will ever read again, but those that a killed process could not remove: the scratch directories of
    a TaskManager, and for each process the one file that it was about to rename.
    """
    scratch = [
        path for path in (state / "work").glob("*/slot-*") if path.is_dir() and path.parent.name not in deeds.killed
    ]
    unfinished = [path for path in state.rglob("*") if path.suffix == ".tmp"]
    return scratch + (unfinished if len(unfinished) > deeds.kills else [])
