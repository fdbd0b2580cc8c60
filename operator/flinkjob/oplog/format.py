"""The bytes of the operation log: blocks, each of which is one group commit, and snapshots.

A segment file is nothing but blocks, one after the other. All numbers are big-endian and unsigned::

    offset  bytes  field
         0      4  magic, ``FJOL``
         4      4  format version, 1
         8      8  epoch: the term of the leader that wrote the block
        16      8  previous epoch: that of the block before this one in the log, 0 for the first block of all
        24      8  first LSN: the position of the block's first operation; the first operation of a log has LSN 1
        32      4  count of operations, 1 at least
        36      4  length of the payload in bytes
        40      4  previous checksum: the header checksum of the block before this one, 0 where that is not known
        44      4  CRC-32 of the payload
        48      4  header checksum: CRC-32 of the bytes 0 to 47
        52      …  payload: the operations, as ``flinkjob.graph.operations.encode_operations`` gives them

The header checksum covers that of the payload and that of the block before, so the blocks of a log form a chain through
segments and epochs, and the chain can be followed by headers alone. The previous epoch tells a reader which of the older
epochs a leader continued, and so which blocks belong to the log and which were written in vain by a deposed leader.

A snapshot file holds one ExecutionGraph::

    offset  bytes  field
         0      4  magic, ``FJSN``
         4      4  format version, 1
         8      8  epoch of the leader that wrote it
        16      8  LSN of the last operation that it contains
        24      8  length of the data in bytes
        32      4  CRC-32 of the bytes 0 to 31 and of the data
        36      …  data
"""

import struct
from dataclasses import dataclass
from zlib import crc32

from flinkjob.api.errors import UnsupportedStorage

FORMAT_VERSION = 1
BLOCK_MAGIC = b"FJOL"
SNAPSHOT_MAGIC = b"FJSN"

_HEADER = struct.Struct(">4sIQQQIIII")
_CHECKSUM = struct.Struct(">I")
_SNAPSHOT = struct.Struct(">4sIQQQ")

HEADER_SIZE = _HEADER.size + _CHECKSUM.size
SNAPSHOT_HEADER_SIZE = _SNAPSHOT.size + _CHECKSUM.size


class BadBlock(ValueError):
    """The bytes are no block; the text says why. Whether that is a torn end or damage is for the reader to find out."""


@dataclass(frozen=True, slots=True)
class BlockHeader:
    """What the header of a block says; see the module's table for the meaning of the fields."""

    epoch: int
    previous_epoch: int
    first_lsn: int
    count: int
    length: int
    previous_checksum: int
    payload_checksum: int
    checksum: int

    @property
    def last_lsn(self) -> int:
        """The LSN of the block's last operation."""
        return self.first_lsn + self.count - 1


def encode_block(
    payload: bytes, *, epoch: int, previous_epoch: int, first_lsn: int, count: int, previous_checksum: int
) -> tuple[bytes, int]:
    """A block as it is written, and its header checksum, which the next block names."""
    header = _HEADER.pack(
        BLOCK_MAGIC,
        FORMAT_VERSION,
        epoch,
        previous_epoch,
        first_lsn,
        count,
        len(payload),
        previous_checksum,
        crc32(payload),
    )
    checksum = crc32(header)
    return b"".join((header, _CHECKSUM.pack(checksum), payload)), checksum


def decode_header(data: bytes) -> BlockHeader:
    """The header in the first ``HEADER_SIZE`` bytes.

    Raises:
        BadBlock: too short, no magic, or the checksum does not match.
        UnsupportedStorage: an intact header of another format version.
    """
    if len(data) < HEADER_SIZE:
        raise BadBlock(f"{len(data)} bytes are left, and a block's header has {HEADER_SIZE}")
    if not data.startswith(BLOCK_MAGIC):
        raise BadBlock("a block should begin here, but its magic is missing")
    (checksum,) = _CHECKSUM.unpack_from(data, _HEADER.size)
    if crc32(data[: _HEADER.size]) != checksum:
        raise BadBlock("the header's checksum does not match")
    _, version, epoch, previous_epoch, first_lsn, count, length, previous_checksum, payload_checksum = (
        _HEADER.unpack_from(data)
    )
    if version != FORMAT_VERSION:
        raise UnsupportedStorage(
            f"the operation log has format version {version}; this program reads version {FORMAT_VERSION}"
        )
    return BlockHeader(epoch, previous_epoch, first_lsn, count, length, previous_checksum, payload_checksum, checksum)


def check_payload(header: BlockHeader, payload: bytes) -> None:
    """Compare a payload with its header.

    Raises:
        BadBlock: it is shorter than the header says, or its checksum does not match.
    """
    if len(payload) != header.length:
        raise BadBlock(f"{len(payload)} bytes of the payload are there, of {header.length}")
    if crc32(payload) != header.payload_checksum:
        raise BadBlock("the payload's checksum does not match")


def holds_header(data: bytes, epoch: int) -> bool:
    """Whether an intact block header of the epoch begins anywhere in the bytes: the end of a log never holds one."""
    at = data.find(BLOCK_MAGIC)
    while at >= 0:
        try:
            if decode_header(data[at : at + HEADER_SIZE]).epoch == epoch:
                return True
        except BadBlock:
            pass
        at = data.find(BLOCK_MAGIC, at + 1)
    return False


def encode_snapshot(data: bytes, *, epoch: int, lsn: int) -> bytes:
    """A snapshot file."""
    header = _SNAPSHOT.pack(SNAPSHOT_MAGIC, FORMAT_VERSION, epoch, lsn, len(data))
    return b"".join((header, _CHECKSUM.pack(crc32(data, crc32(header))), data))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot: the graph's bytes as of an LSN, and the epoch of the leader that took it."""

    lsn: int
    epoch: int
    data: bytes


def decode_snapshot(file: bytes) -> Snapshot:
    """The snapshot in a file's bytes.

    Raises:
        BadBlock: the bytes are no whole snapshot.
        UnsupportedStorage: an intact snapshot of another format version.
    """
    if len(file) < SNAPSHOT_HEADER_SIZE or not file.startswith(SNAPSHOT_MAGIC):
        raise BadBlock("the file does not begin with a snapshot's header")
    _, version, epoch, lsn, length = _SNAPSHOT.unpack_from(file)
    (checksum,) = _CHECKSUM.unpack_from(file, _SNAPSHOT.size)
    data = file[SNAPSHOT_HEADER_SIZE:]
    if len(data) != length:
        raise BadBlock(f"{len(data)} bytes of the data are there, of {length}")
    if crc32(data, crc32(file[: _SNAPSHOT.size])) != checksum:
        raise BadBlock("the checksum does not match")
    if version != FORMAT_VERSION:
        raise UnsupportedStorage(
            f"the snapshot at LSN {lsn} has format version {version}; this program reads version {FORMAT_VERSION}"
        )
    return Snapshot(lsn, epoch, data)
