"""Faults of the machine, made on purpose and undone: a full disk, a directory that refuses writes, a memory limit."""

import contextlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path


def _failure_of(*command: str | Path) -> str:
    """What a command of the system complains of; empty when it has done its work."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return done.stderr.strip() or f"{command[0]} exited with {done.returncode}" if done.returncode else ""


@dataclass(frozen=True)
class FullDisk:
    """A small file system of its own at a directory, filled to its last page."""

    path: Path
    size: str = "1m"

    def prepare(self) -> str:
        """Mount it; returns why that cannot be done, or nothing."""
        if os.geteuid():
            return "a small tmpfs, to be filled up, can only be mounted by root: run the tests as root"
        failure = _failure_of("mount", "-t", "tmpfs", "-o", f"size={self.size}", "tmpfs", self.path)
        return failure and f"no tmpfs can be mounted here: {failure}"

    def begin(self) -> None:
        """Fill it up. What shares its last page with a file that is there already still finds room, up to 4 KiB."""
        with (self.path / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def end(self) -> None:
        """Make space."""
        (self.path / "filler").unlink()

    def remove(self) -> None:
        """Unmount it, also if somebody still has a file open there."""
        _failure_of("umount", "-l", self.path)


@dataclass(frozen=True)
class ReadOnly:
    """A directory whose files refuse every write, also from root and by descriptors that are open already.

    That is the immutable flag of ext4 and others. Permissions do not keep root from writing, and no file system can be
    mounted read-only while somebody has a file open for writing.
    """

    path: Path

    def prepare(self) -> str:
        """Try it; returns why it cannot be done, or nothing."""
        probe = self.path / "probe"
        with probe.open("wb", buffering=0) as file:
            failure = _failure_of("chattr", "+i", probe)
            if not failure:
                with contextlib.suppress(OSError):
                    file.write(b"?")
                    failure = "it does not keep open files from being written"
                _failure_of("chattr", "-i", probe)
        probe.unlink()
        return failure and f"chattr +i, which needs root and a file system like ext4, does not work here: {failure}"

    def begin(self) -> None:
        """Nobody can write, create or remove anything."""
        failure = _failure_of("chattr", "-R", "+i", self.path)
        assert not failure, failure

    def end(self) -> None:
        """Everybody can again."""
        failure = _failure_of("chattr", "-R", "-i", self.path)
        assert not failure, failure

    def remove(self) -> None:
        """As it was."""
        _failure_of("chattr", "-R", "-i", self.path)


@dataclass(frozen=True)
class MemoryLimit:
    """A control group in which the kernel kills whoever takes too much memory, of version 1 or 2, whichever has memory."""

    path: Path
    bytes: int

    @classmethod
    def create(cls, name: str, size: int, root: Path = Path("/sys/fs/cgroup")) -> "MemoryLimit":
        """Make the group.

        Raises:
            OSError: that cannot be done here.
        """
        if (root / "memory").is_dir():
            limits = {"memory.limit_in_bytes": str(size)}
            parent = root / "memory"
        else:
            # Without swap, or the kernel would rather use that.
            limits = {"memory.max": str(size), "memory.swap.max": "0"}
            parent = root
            (root / "cgroup.subtree_control").write_text("+memory")
        group = cls(parent / name, size)
        group.path.mkdir()
        try:
            for file, limit in limits.items():
                if file != "memory.swap.max" or (group.path / file).exists():
                    (group.path / file).write_text(limit)
        except OSError:
            group.remove()
            raise
        return group

    @property
    def members(self) -> Path:
        """The file into which a process writes its id to belong to the group."""
        return self.path / "cgroup.procs"

    def kills(self) -> int:
        """How many processes the kernel has killed in it."""
        (file,) = (path for path in self.path.iterdir() if path.name in ("memory.oom_control", "memory.events"))
        return int(dict(line.split() for line in file.read_text().splitlines())["oom_kill"])

    def remove(self) -> None:
        """Remove the group, whose processes have ended."""
        self.path.rmdir()


def descriptors(pid: int) -> int:
    """How many files a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))
