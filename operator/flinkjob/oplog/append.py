"""The log on a local or shared file system: files that are appended to, synced, and fenced by a file that successors mark.

::

    oplog/0000000003.000000.log     segment 0 of epoch 3; its exclusive creation is the claim of the epoch
    oplog/0000000003.000001.log     the next one, begun after a snapshot or a failed write
    oplog/0000000003.fence          empty as long as epoch 3 is the newest; every successor writes its name into it
    snapshots/00000000000000001000.snapshot

The order of steps is what makes it safe. A successor claims its epoch, marks the fences of *all* lower ones, and reads
their segments after that. A leader writes its block, syncs it, and reads its own fence after that, before it tells
anybody. So a block is acknowledged only if its fence was unmarked when it was durable, and then the successor, who
marked first and read later, sees it.

Why a fence file, and not a look for files of a higher epoch: on NFS a listing, a stat or a failed lookup may be answered
from a cache that is a minute old, while opening a file that exists shows what was written to it before (close-to-open).
For the same reason fences are never removed: they are tiny, there is one for each leader that the job has had, and a
leader that slept through its whole term must still find its own one marked.
"""

import contextlib
import os
import re
from pathlib import Path
from typing import BinaryIO

from flinkjob.api.errors import Deposed
from flinkjob.oplog.files import make_directory, replace_file, sync_directory, write_fully
from flinkjob.oplog.medium import Segment

_SEGMENT_NAME = re.compile(r"(\d{10})\.(\d{6})\.log")
_FENCE_NAME = re.compile(r"(\d{10})\.fence")
_SNAPSHOT_NAME = re.compile(r"(\d{20})\.snapshot")

MARK_BYTES = 4096
"""How much of a fence file is read: whether there is anything in it counts, and its first line is told."""


class AppendMedium:
    """The ``oplog/`` and ``snapshots/`` directories below a job's directory. They are made when an epoch is claimed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._log = directory / "oplog"
        self._snapshots = directory / "snapshots"

    @property
    def location(self) -> str:
        """The job's directory."""
        return str(self._directory)

    # Claiming

    def claim(self) -> int:
        """See Medium: the exclusive creation of segment 0 is the claim."""
        make_directory(self._log)
        make_directory(self._snapshots)
        epoch = max([segment.epoch for segment in self.segments()] + list(self._fences()), default=0) + 1
        while True:
            try:
                os.close(self._create(Segment(epoch, 0)))
            except FileExistsError:
                epoch += 1
                continue
            # A name that is free may have been trimmed away while this one slept or saw an old listing; the fence stays.
            if epoch not in self._fences():
                return epoch
            self.remove_segment(Segment(epoch, 0))
            epoch += 1

    def fence(self, epoch: int, leader: str) -> None:
        """See Medium: mark the fence of every lower number, of those too whose files a stale listing hides."""
        marked = {other for other, size in self._fences().items() if size}
        for other in range(1, epoch):
            if other not in marked:
                self._mark(other, f"{epoch} {leader}\n".encode())
        # A change of both directories last of all, so that an NFS client lists them anew before it reads.
        passing = self._snapshots / f".{epoch:010d}.tmp"
        self._touch(passing)
        passing.unlink(missing_ok=True)
        self._touch(self._fence(epoch))
        sync_directory(self._log)

    def check_fence(self, epoch: int) -> None:
        """See Medium: the file is opened anew each time, which is what makes it fresh on NFS."""
        try:
            descriptor = os.open(self._fence(epoch), os.O_RDONLY)
        except FileNotFoundError:
            raise Deposed(f"epoch {epoch} is over: its fence file is gone from {self._log}") from None
        # Bare calls, not a file object, which makes several more: at each one threads contend for the interpreter.
        try:
            mark = os.read(descriptor, MARK_BYTES)
        finally:
            os.close(descriptor)
        if mark:
            newer = mark.decode(errors="replace").split("\n")[0]
            raise Deposed(f"epoch {epoch} is over: a newer leader claimed epoch {newer} of {self.location}")

    def appender(self, epoch: int) -> "FileAppender":
        """See Medium."""
        return FileAppender(self, epoch)

    def _mark(self, epoch: int, mark: bytes) -> None:
        # Never truncated: whatever several successors leave in it, it is not empty any more.
        descriptor = os.open(self._fence(epoch), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
        try:
            write_fully(descriptor, mark)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _create(self, segment: Segment) -> int:
        descriptor = os.open(self._path(segment), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o644)
        try:
            sync_directory(self._log)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _touch(self, path: Path) -> None:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))

    def _fence(self, epoch: int) -> Path:
        return self._log / f"{epoch:010d}.fence"

    def _fences(self) -> dict[int, int]:
        """The size of each fence file."""
        with os.scandir(self._log) as entries:
            matches = ((entry, _FENCE_NAME.fullmatch(entry.name)) for entry in entries)
            return {int(match[1]): entry.stat().st_size for entry, match in matches if match}

    # Segments

    def segments(self) -> list[Segment]:
        """See Medium."""
        matches = (_SEGMENT_NAME.fullmatch(name) for name in _names(self._log))
        return sorted(Segment(int(match[1]), int(match[2])) for match in matches if match)

    def describe(self, segment: Segment) -> str:
        """See Medium."""
        return f"oplog/{self._path(segment).name}"

    def open_segment(self, segment: Segment) -> BinaryIO:
        """See Medium."""
        return self._path(segment).open("rb")

    def settle(self, epoch: int) -> None:
        """See Medium: what a writer left that died before its sync may be in the page cache only."""
        for segment in self.segments():
            if segment.epoch < epoch:
                with contextlib.suppress(FileNotFoundError), self.open_segment(segment) as file:
                    os.fsync(file.fileno())

    def remove_segment(self, segment: Segment) -> None:
        """See Medium."""
        self._path(segment).unlink(missing_ok=True)

    def _path(self, segment: Segment) -> Path:
        return self._log / f"{segment.epoch:010d}.{segment.number:06d}.log"

    # Snapshots

    def snapshots(self) -> list[int]:
        """See Medium."""
        matches = (_SNAPSHOT_NAME.fullmatch(name) for name in _names(self._snapshots))
        return sorted(int(match[1]) for match in matches if match)

    def describe_snapshot(self, lsn: int) -> str:
        """See Medium."""
        return f"snapshots/{self._snapshot(lsn).name}"

    def read_snapshot(self, lsn: int) -> bytes:
        """See Medium."""
        return self._snapshot(lsn).read_bytes()

    def put_snapshot(self, lsn: int, file: bytes) -> None:
        """See Medium. Only one leader gets here, one snapshot at a time: what lies half-written is a dead one's."""
        for leftover in self._snapshots.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)
        replace_file(self._snapshot(lsn), file)

    def remove_snapshot(self, lsn: int) -> None:
        """See Medium."""
        self._snapshot(lsn).unlink(missing_ok=True)

    def _snapshot(self, lsn: int) -> Path:
        return self._snapshots / f"{lsn:020d}.snapshot"

    # Damage

    def set_aside(self, epoch: int) -> str:
        """See Medium. Snapshots go first and the oldest segments next: what an interruption leaves still reads as damaged."""
        number = 1
        while True:
            target = self._directory / f"damaged-{number}"
            try:
                target.mkdir()
                break
            except FileExistsError:
                number += 1
        sync_directory(self._directory)
        (target / "oplog").mkdir()
        (target / "snapshots").mkdir()
        moves = [(self._snapshot(lsn), target / "snapshots") for lsn in self.snapshots()]
        moves += [(self._path(segment), target / "oplog") for segment in self.segments() if segment.epoch < epoch]
        for path, directory in moves:
            path.rename(directory / path.name)
            sync_directory(path.parent)
        for directory in (target / "oplog", target / "snapshots", target):
            sync_directory(directory)
        return str(target)


class FileAppender:
    """The pen of an AppendMedium's epoch; it goes on in the newest segment of the epoch."""

    def __init__(self, medium: AppendMedium, epoch: int) -> None:
        self._medium = medium
        self._epoch = epoch
        self._number = 0
        self._descriptor: int | None = None
        self._size = 0
        """The segment's length after its last acknowledged block."""
        self._clean = True
        """Whether the segment ends with an acknowledged block; after a failed write its end is unknown for good."""
        self._empty = True

    def append(self, block: bytes) -> None:
        """See Appender: write, sync, and look at the fence only after that."""
        try:
            self._write(block)
        except OSError:
            # One who cannot write may be deposed all the same, and is to know it now.
            with contextlib.suppress(OSError):
                self._medium.check_fence(self._epoch)
            raise

    def _write(self, block: bytes) -> None:
        if not self._clean:
            self._begin_segment()
        descriptor = self._open()
        self._clean = False
        try:
            write_fully(descriptor, block)
        except OSError:
            # A disk that is full may have taken nothing at all of the block: then no torn end is left behind.
            self._clean = os.fstat(descriptor).st_size == self._size
            raise
        os.fdatasync(descriptor)
        self._medium.check_fence(self._epoch)
        self._clean, self._empty = True, False
        self._size += len(block)

    def roll(self) -> None:
        """See Appender."""
        if not self._empty:
            self._begin_segment()

    def close(self) -> None:
        """See Appender."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None:
            path = self._medium._path(Segment(self._epoch, self._number))
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
            self._size = os.fstat(self._descriptor).st_size
        return self._descriptor

    def _begin_segment(self) -> None:
        self._number += 1  # also when it fails: the file may be there all the same
        descriptor = self._medium._create(Segment(self._epoch, self._number))
        self.close()
        self._descriptor, self._size, self._clean, self._empty = descriptor, 0, True, True


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
