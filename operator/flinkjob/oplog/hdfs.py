"""The log on HDFS: files that are appended to and synced, whose old writers HDFS itself shuts out.

::

    oplog/0000000003.000000.log     segment 0 of epoch 3; its exclusive creation is the claim of the epoch
    oplog/0000000003.000001.log     the next one, begun after a snapshot or a failed write
    oplog/0000000003.fence/         a directory, empty as long as epoch 3 is the newest
    oplog/0000000003.fence/4 jm-2   one in it for every successor, by its name
    snapshots/00000000000000001000.snapshot

A successor marks the fences of all lower epochs and recovers the leases of their files after that (``recoverLease``, until
HDFS says that the file is closed). A file whose lease has been recovered holds all that was synced to it, and the next sync
of its old writer fails. A writer looks at its fence whenever it has opened a file, before it writes: so it either sees the
mark, or the successor sees the file. Nothing else needs to be looked at while blocks are written: one ``hsync`` each.

Directories are marks because they are the NameNode's alone: closing a file of even one byte takes half a second. What a
dead writer has left without a sync is made durable by HDFS as it makes closed files (``dfs.datanode.synconclose``).

An open file reads as empty to others, as far as its last HDFS block goes: only the segments of a leader that has been
fenced can be relied upon.
"""

import contextlib
import re
import time
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote, unquote

from flinkjob.api.errors import Deposed
from flinkjob.oplog.hdfsfiles import HdfsDirectory, hdfs_errors
from flinkjob.oplog.medium import Segment

if TYPE_CHECKING:
    from hdfs_native import FileWriter

_SEGMENT_NAME = re.compile(r"(\d{10})\.(\d{6})\.log")
_FENCE_NAME = re.compile(r"(\d{10})\.fence")
_SNAPSHOT_NAME = re.compile(r"(\d{20})\.snapshot")
RECOVERY_PAUSE = 0.1
"""Seconds between two questions whether a lease has been recovered."""
RECOVERY_DEADLINE = 120.0
"""Seconds after which a file that HDFS does not close makes the log unavailable. If the DataNode that is to recover a block
dies with it, the NameNode has another one do so after 30 heartbeats, which is 90 s by default."""


class HdfsMedium:
    """The ``oplog/`` and ``snapshots/`` of a job's directory in HDFS."""

    def __init__(self, url: str) -> None:
        self._files = HdfsDirectory(url)
        self._fenced_below = 0

    @property
    def location(self) -> str:
        """The job's directory."""
        return self._files.location

    # Claiming

    def claim(self) -> int:
        """See Medium: the exclusive creation of segment 0 is the claim."""
        names = self._files.names("oplog")
        epoch = max([s.epoch for s in _segments(names)] + [int(m[1]) for m in _matches(_FENCE_NAME, names)], default=0)
        while True:
            epoch += 1
            try:
                file = self._files.create_open(_name(Segment(epoch, 0)))
            except FileExistsError:
                continue
            with hdfs_errors():
                file.close()
            # A name that is free may have been trimmed away while this one slept or saw an old listing; the fence stays.
            if f"{epoch:010d}.fence" not in self._files.names("oplog"):
                return epoch
            self.remove_segment(Segment(epoch, 0))

    def fence(self, epoch: int, leader: str) -> None:
        """See Medium: first the marks, then the leases."""
        names = set(self._files.names("oplog", recursive=True))
        marked = {name.partition("/")[0] for name in names if "/" in name}
        for lower in range(1, epoch):
            if f"{lower:010d}.fence" not in marked:
                self._files.make_directory(f"{_fence(lower)}/{epoch} {quote(leader, safe='')}")
        self._files.make_directory(_fence(epoch))
        self._recover([segment for segment in self.segments() if segment.epoch < epoch])
        self._fenced_below = max(epoch, self._fenced_below)

    def check_fence(self, epoch: int) -> None:
        """See Medium."""
        marks = self._files.names(_fence(epoch))
        if marks:
            newer = unquote(marks[0])
            raise Deposed(f"epoch {epoch} is over: a newer leader claimed epoch {newer} of {self.location}")

    def appender(self, epoch: int) -> "HdfsAppender":
        """See Medium."""
        return HdfsAppender(self, self._files, epoch)

    def _recover(self, segments: list[Segment]) -> None:
        """Have HDFS close files, so that their old writers cannot write to them any more.

        Raises:
            OSError: it has not closed them in time.
        """
        deadline = time.monotonic() + RECOVERY_DEADLINE
        while segments := [segment for segment in segments if not self._recovered(segment)]:
            if time.monotonic() > deadline:
                raise OSError(f"HDFS has not closed {self.describe(segments[0])} in {RECOVERY_DEADLINE:g} s")
            time.sleep(RECOVERY_PAUSE)

    def _recovered(self, segment: Segment) -> bool:
        try:
            return self._files.recover_lease(_name(segment))
        except FileNotFoundError:  # trimmed in this moment
            return True

    # Segments

    def segments(self) -> list[Segment]:
        """See Medium."""
        return _segments(self._files.names("oplog"))

    def describe(self, segment: Segment) -> str:
        """See Medium."""
        return _name(segment)

    def open_segment(self, segment: Segment) -> BinaryIO:
        """See Medium."""
        return self._files.open(_name(segment), closed=segment.epoch < self._fenced_below)

    def settle(self, epoch: int) -> None:
        """See Medium: what can be read is in files that HDFS has closed."""

    def remove_segment(self, segment: Segment) -> None:
        """See Medium."""
        self._files.remove(_name(segment))

    # Snapshots

    def snapshots(self) -> list[int]:
        """See Medium."""
        return [int(match[1]) for match in _matches(_SNAPSHOT_NAME, self._files.names("snapshots"))]

    def describe_snapshot(self, lsn: int) -> str:
        """See Medium."""
        return _snapshot(lsn)

    def read_snapshot(self, lsn: int) -> bytes:
        """See Medium."""
        return self._files.read(_snapshot(lsn))

    def put_snapshot(self, lsn: int, file: bytes) -> None:
        """See Medium. Only one leader gets here, one snapshot at a time: what lies half-written is a dead one's."""
        for name in self._files.names("snapshots"):
            if name.endswith(".tmp"):
                self._files.remove(f"snapshots/{name}")
        self._files.put(_snapshot(lsn), file)

    def remove_snapshot(self, lsn: int) -> None:
        """See Medium."""
        self._files.remove(_snapshot(lsn))

    # Damage

    def set_aside(self, epoch: int) -> str:
        """See Medium. Snapshots go first and the oldest segments next: what an interruption leaves still reads as damaged."""
        place = self._new_place()
        self._files.make_directory(f"{place}/oplog")
        self._files.make_directory(f"{place}/snapshots")
        names = [_snapshot(lsn) for lsn in self.snapshots()]
        names += [_name(segment) for segment in self.segments() if segment.epoch < epoch]
        for name in names:
            self._files.rename(name, f"{place}/{name}")
        return f"{self.location}/{place}"

    def _new_place(self) -> str:
        number = 1
        while True:
            try:
                with hdfs_errors(), self._files.create_open(f"damaged-{number}/set-aside"):
                    return f"damaged-{number}"
            except FileExistsError:
                number += 1


class HdfsAppender:
    """The pen of an HdfsMedium's epoch; it goes on in the newest segment of the epoch."""

    def __init__(self, medium: HdfsMedium, files: HdfsDirectory, epoch: int) -> None:
        self._medium = medium
        self._files = files
        self._epoch = epoch
        self._number = 0
        self._file: FileWriter | None = None
        self._clean = True
        """Whether the segment ends with an acknowledged block; after a failed write its end is unknown for good."""
        self._empty = True

    def append(self, block: bytes) -> None:
        """See Appender: a sync that succeeds says that nobody has recovered the file's lease."""
        try:
            self._write(block)
        except OSError:
            # A successor is one of the reasons why it may have failed.
            with contextlib.suppress(OSError):
                self._medium.check_fence(self._epoch)
            raise

    def _write(self, block: bytes) -> None:
        file = self._open()
        self._clean = False
        with hdfs_errors():
            file.write(block)
            file.hsync()
        self._clean, self._empty = True, False

    def _open(self) -> "FileWriter":
        if not self._clean:
            self._begin_segment()
        elif self._file is None:
            # The claim's file: closed since then, and empty.
            self._file = self._opened(self._files.append_to(_name(Segment(self._epoch, self._number))))
        assert self._file is not None
        return self._file

    def _begin_segment(self) -> None:
        self._number += 1  # also when it fails: the file may be there all the same
        file = self._opened(self._files.create_open(_name(Segment(self._epoch, self._number))))
        self.close()
        self._file, self._clean, self._empty = file, True, True

    def _opened(self, file: "FileWriter") -> "FileWriter":
        """A file that a successor will see, since it had not fenced this epoch when the file was open."""
        self._medium.check_fence(self._epoch)
        return file

    def roll(self) -> None:
        """See Appender."""
        if not self._empty:
            self._begin_segment()

    def close(self) -> None:
        """See Appender. A file that cannot be closed is closed by the successor's recovery of its lease."""
        if self._file is not None:
            with contextlib.suppress(OSError), hdfs_errors():
                self._file.close()
            self._file = None


def _matches(pattern: "re.Pattern[str]", names: list[str]) -> list["re.Match[str]"]:
    return [match for name in names if (match := pattern.fullmatch(name))]


def _segments(names: list[str]) -> list[Segment]:
    return sorted(Segment(int(match[1]), int(match[2])) for match in _matches(_SEGMENT_NAME, names))


def _name(segment: Segment) -> str:
    return f"oplog/{segment.epoch:010d}.{segment.number:06d}.log"


def _fence(epoch: int) -> str:
    return f"oplog/{epoch:010d}.fence"


def _snapshot(lsn: int) -> str:
    return f"snapshots/{lsn:020d}.snapshot"
