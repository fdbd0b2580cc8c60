"""Reading the blocks of one segment, and telling a torn end from damage.

A write that was cut short leaves a torn end: some bytes that are no block, and nothing behind them. Where an intact block
header follows later in the same segment, the bytes in between were whole once: that is damage. A leader never appends
behind a torn end, so the two cannot be confused.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from flinkjob.api.errors import CorruptedLog, LogUnavailable
from flinkjob.oplog.format import HEADER_SIZE, BadBlock, BlockHeader, check_payload, decode_header, holds_header
from flinkjob.oplog.medium import Medium, Segment

_SCAN_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """A position in a segment, for messages."""

    file: str
    offset: int

    def __str__(self) -> str:
        return f"{self.file}, offset {self.offset}"


@dataclass(frozen=True, slots=True)
class Block:
    """A block as it lies in a segment. The payload is empty where only the header was asked for."""

    header: BlockHeader
    place: Place
    payload: bytes


@dataclass(frozen=True, slots=True)
class TornEnd:
    """What follows the last intact block of a segment: ``size`` bytes that are no block, and why they are none."""

    place: Place
    size: int
    reason: str


def damaged(place: Place, lsn: int, reason: str) -> CorruptedLog:
    """The error for damage at a place, where the operation ``lsn`` should be or is (0: that cannot be told)."""
    return CorruptedLog(f"the operation log is damaged in {place}, LSN {lsn or 'unknown'}: {reason}")


@contextmanager
def reading(medium: Medium, what: str) -> Iterator[None]:
    """Have a failure of the store within the block raise LogUnavailable, which says what could not be read."""
    try:
        yield
    except OSError as error:
        raise LogUnavailable(f"{what} of the job at {medium.location} cannot be read: {error}") from error


class SegmentReader:
    """Reads a segment's blocks in order.

    Attributes:
        size: of the segment in bytes, once reading has begun.
        torn: the torn end, once the blocks have been read and there is one.
    """

    def __init__(self, medium: Medium, segment: Segment) -> None:
        self._medium = medium
        self._segment = segment
        self._file_name = medium.describe(segment)
        self.size = 0
        self.torn: TornEnd | None = None

    def blocks(self, *, after_lsn: int = 0, expected_lsn: int = 0) -> Iterator[Block]:
        """All intact blocks up to the end or the torn end.

        Args:
            after_lsn: of blocks that end here or before, the payload is skipped.
            expected_lsn: what the segment should begin with, for messages (0: unknown).

        Raises:
            CorruptedLog: a bad block has an intact header behind it, or an intact block is of another epoch.
            LogUnavailable: the segment cannot be read.
        """
        with reading(self._medium, self._file_name), self._medium.open_segment(self._segment) as file:
            # Taken once: a deposed leader may still be appending.
            self.size = file.seek(0, os.SEEK_END)
            yield from self._read(file, self.size, after_lsn, expected_lsn)

    def _read(self, file: BinaryIO, size: int, after_lsn: int, lsn: int) -> Iterator[Block]:
        offset = file.seek(0)
        while offset < size:
            place = Place(self._file_name, offset)
            try:
                header = decode_header(file.read(min(HEADER_SIZE, size - offset)))
                lsn, end = header.first_lsn, offset + HEADER_SIZE + header.length
                payload = self._payload(file, header, size - offset - HEADER_SIZE, after_lsn)
            except BadBlock as error:
                self._check_torn(file, place, size, lsn, str(error))
                return
            self._check_header(header, place)
            yield Block(header, place, payload)
            lsn = header.last_lsn + 1
            offset = file.seek(end)

    @staticmethod
    def _payload(file: BinaryIO, header: BlockHeader, available: int, after_lsn: int) -> bytes:
        if header.length > available:
            raise BadBlock(f"{available} bytes of the payload are there, of {header.length}")
        if header.last_lsn <= after_lsn:
            return b""
        payload = file.read(header.length)
        check_payload(header, payload)
        return payload

    def _check_header(self, header: BlockHeader, place: Place) -> None:
        if header.epoch != self._segment.epoch:
            raise damaged(
                place, header.first_lsn, f"a block of epoch {header.epoch} stands in a segment of another one"
            )
        if not (header.count and header.first_lsn and header.previous_epoch <= header.epoch):
            raise damaged(place, header.first_lsn, "the header is intact and makes no sense")

    def _check_torn(self, file: BinaryIO, place: Place, size: int, lsn: int, reason: str) -> None:
        """Note the torn end, unless an intact header further on shows that it is damage."""
        file.seek(place.offset + 1)
        left = size - place.offset - 1
        window = b""
        while left > 0 and (chunk := file.read(min(_SCAN_BYTES, left))):
            left -= len(chunk)
            window = window[-HEADER_SIZE:] + chunk
            if holds_header(window, self._segment.epoch):
                raise damaged(place, lsn, f"{reason}, and intact blocks follow")
        self.torn = TornEnd(place, size - place.offset, reason)
