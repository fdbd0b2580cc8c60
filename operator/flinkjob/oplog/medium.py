"""What a store must be able to do to keep an operation log.

A medium holds *segments*, numbered within the epoch whose leader wrote them, and *snapshots*, named by LSN. Two things it
must guarantee, whatever it is made of:

- **An epoch has one owner.** ``claim`` gives every caller another, higher number, also when several call at once.
- **A deposed leader acknowledges nothing.** When ``fence`` has returned to the claimant of epoch N, an ``append`` of a lower
  epoch either was durable before, and then ``open_segment`` shows it, or raises Deposed.

A writer that does not know yet that it has been deposed may go on writing for a moment. Readers recognise what it wrote in
vain, and it never removes or changes a byte that a successor may have read: after a failed write it repeats the block, byte
by byte, elsewhere or where it finds it whole.

Three media stand: ``append`` (file systems), ``object`` (object stores) and ``hdfs``. One suite of tests holds them all to
what is said here.
"""

from dataclasses import dataclass
from typing import BinaryIO, Protocol


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """A stretch of the log, a file or a run of objects: its epoch and its number within the epoch, from 0."""

    epoch: int
    number: int


class Appender(Protocol):
    """The pen of one epoch's leader. It is used by one thread at a time."""

    def append(self, block: bytes) -> None:
        """Write a block durably and make sure that nobody has claimed a newer epoch meanwhile.

        After an OSError the same block, byte by byte, may be given again; no other one.

        Raises:
            OSError: it could not be written, or not be made certain.
            Deposed: a newer epoch exists. The block may be in the store, and must not be acted upon.
        """

    def roll(self) -> None:
        """Begin a new segment, so that the ones before can be removed one day; nothing happens where the present is empty.

        Raises:
            OSError: it could not be made.
        """

    def close(self) -> None:
        """Let go of what is open."""


class Medium(Protocol):
    """A store of one job's log. Its methods raise OSError where the store fails."""

    @property
    def location(self) -> str:
        """The store's URL, for messages."""

    def claim(self) -> int:
        """Take the next epoch for oneself, with an empty segment 0, and return its number."""

    def fence(self, epoch: int, leader: str) -> None:
        """Depose every lower epoch, for good.

        Args:
            epoch: one's own, as claimed.
            leader: one's own name, for the message that the deposed leader sees.
        """

    def check_fence(self, epoch: int) -> None:
        """Make sure that nobody has claimed a newer epoch than this one, which is one's own.

        Raises:
            OSError: that could not be found out.
            Deposed: somebody has.
        """

    def appender(self, epoch: int) -> Appender:
        """The pen of the epoch that this process has claimed. Nothing may have been appended to the epoch before."""

    def segments(self) -> list[Segment]:
        """All segments there are, in order."""

    def describe(self, segment: Segment) -> str:
        """The name of a segment's file or objects, for messages."""

    def open_segment(self, segment: Segment) -> BinaryIO:
        """The segment's bytes, seekable. Of an epoch that has not been fenced, the newest ones may be missing."""

    def settle(self, epoch: int) -> None:
        """Make durable all that can be read now of the epochs below, before anything is built on it."""

    def remove_segment(self, segment: Segment) -> None:
        """Remove a segment; it may be gone already."""

    def snapshots(self) -> list[int]:
        """The LSNs of all snapshots there are, in order."""

    def describe_snapshot(self, lsn: int) -> str:
        """The name of a snapshot's file or object, for messages."""

    def read_snapshot(self, lsn: int) -> bytes:
        """A snapshot file's bytes."""

    def put_snapshot(self, lsn: int, file: bytes) -> None:
        """Write a snapshot file durably; readers see the whole of it or nothing."""

    def remove_snapshot(self, lsn: int) -> None:
        """Remove a snapshot; it may be gone already."""

    def set_aside(self, epoch: int) -> str:
        """Move all snapshots and the segments below the epoch away and say where to; fences and numbering stay."""
