"""The objects of the log's chain, and a segment of them read as one file.

Every object begins with a letter that says what it is. A block has a header before it::

    offset  bytes  field
         0      1  ``B``
         1      8  offset: how many bytes of blocks lie before this one in its segment
         9      4  CRC-32 of the bytes 0 to 8
        13      …  the block

A seal is ``S`` and a record; ``segments`` and ``fence`` are records. A record is its CRC-32 in hexadecimal, a space, and
JSON.
"""

import io
import os
import struct
from collections.abc import Callable
from typing import TypeVar
from zlib import crc32

import msgspec

from flinkjob.oplog.objectchain import Links

SEAL = b"S"
_HEADER = struct.Struct(">1sQ")
_CHECKSUM = struct.Struct(">I")
_HEADER_SIZE = _HEADER.size + _CHECKSUM.size

_T = TypeVar("_T")


class BadObject(ValueError):
    """The bytes are no object of the kind that should be there; the text says why."""


def encode_record(record: msgspec.Struct) -> bytes:
    """A record as it is written."""
    data = msgspec.json.encode(record)
    return b"%08x %s" % (crc32(data), data)


def decode_record(data: bytes, kind: type[_T]) -> _T:
    """The record in an object's bytes.

    Raises:
        BadObject: there is none, or its checksum does not match.
    """
    checksum, _, body = data.partition(b" ")
    if checksum != b"%08x" % crc32(body):
        raise BadObject("the record's checksum does not match")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise BadObject(f"the record makes no sense: {error}") from None


def encode_link(block: bytes, offset: int) -> bytes:
    """A block as an object of the chain."""
    header = _HEADER.pack(b"B", offset)
    return b"".join((header, _CHECKSUM.pack(crc32(header)), block))


def _decode_link(data: bytes) -> tuple[int, bytes]:
    header = data[: _HEADER.size]
    if len(data) <= _HEADER_SIZE or data[_HEADER.size : _HEADER_SIZE] != _CHECKSUM.pack(crc32(header)):
        raise BadObject("the object's header is damaged, or nothing follows it")
    kind, offset = _HEADER.unpack(header)
    if kind != b"B":
        raise BadObject("the object is no block")
    return offset, data[_HEADER_SIZE:]


class SegmentFile(io.RawIOBase):
    """The blocks of a segment's objects, one after the other. They are fetched when they are reached, some in advance."""

    def __init__(self, links: Links, damaged: Callable[[str, str], Exception]) -> None:
        """Make the file.

        Args:
            links: the objects, in order.
            damaged: makes the error to raise for a name and what is wrong with the object.
        """
        self._links = links
        self._damaged = damaged
        self._position = 0
        self._size = -1
        self._index = 0
        self._begin = 0
        self._fetched: list[bytes | None] = []
        self._fetched_from = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes; going back is slow."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go elsewhere; the size is found out when it is first needed."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        self._position = offset + (self._whole_size() if base is None else base)
        return self._position

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]  # any writable buffer
        """Read up to the end of the present object."""
        if self._position >= self._whole_size():
            return 0
        if self._position < self._begin:
            self._index = self._begin = 0
        while self._position >= self._begin + len(block := self._block(self._index, self._begin)):
            self._begin += len(block)
            self._index += 1
        at = self._position - self._begin
        part = block[at : at + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)

    def _whole_size(self) -> int:
        if self._size < 0:
            self._size = self._find_size()
        return self._size

    def _find_size(self) -> int:
        if not self._links:
            return 0
        first, last = self._links.ends()
        self._fetched = [first]
        offset, block = self._decode(len(self._links) - 1, last)
        return offset + len(block)

    def _block(self, index: int, begin: int) -> bytes:
        if index == len(self._links):
            raise self._damaged(self._links.name(-1), "the segment is shorter than its last object says")
        if not 0 <= index - self._fetched_from < len(self._fetched):
            self._fetched = self._links.read(index)
            self._fetched_from = index
        offset, block = self._decode(index, self._fetched[index - self._fetched_from])
        if offset != begin:
            raise self._damaged(
                self._links.name(index), f"{begin} bytes lie before it in its segment, and not {offset}"
            )
        return block

    def _decode(self, index: int, data: bytes | None) -> tuple[int, bytes]:
        if data is None:
            raise self._damaged(self._links.name(index), "the object is missing")
        try:
            return _decode_link(data)
        except BadObject as error:
            raise self._damaged(self._links.name(index), str(error)) from None
