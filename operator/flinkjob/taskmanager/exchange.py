"""The exchange: what a subtask emits for its consumers, kept in one partition file per attempt.

A vertex's outgoing edges divide the file into subpartitions (``JobGraph.output_edges``). Subtask *j* of a consumer reads
subpartition ``first + j`` of a hash or rebalance edge, the only one of a forward or broadcast edge. An attempt that emits
nothing has no file.

The file is at ``partitions/<run>/<vertex>-<subtask>-<attempt>`` (decimal numbers) in the job's storage, and appears there
whole or not at all. Its parts, integers little-endian::

    chunks   one after the other, those of the subpartitions mixed; each is a msgpack array 32 of records:
             byte 0xDD, u32 big-endian number of records, the records
    footer   u32          number of subpartitions, n
             n times u32  number of chunks of each subpartition
             24 bytes for each chunk, by subpartition and in the order of writing:
                 u64 offset in the file, u64 length, u32 records, u32 CRC-32 of the chunk
    trailer  u64 length of the footer
             u32 CRC-32 of the footer
             u32 format version, 1
             8 bytes "FJPART\\r\\n"

The footer's CRC is the checksum of the ResultPartition, which travels with the operation log. So a reader that has it knows
that it reads this attempt's file and no other, and every byte that it uses is covered: the footer by the checksum, a chunk
by its CRC in the footer, the trailer by what it must say.

A record is anything msgpack can carry: str, bytes, int of 64 bits, float, bool, None, list, tuple, dict. A record that was a
list or a tuple comes back as a tuple; lists and tuples *inside* a record come back as lists.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import msgspec

from flinkjob.api.errors import PartitionUnavailable
from flinkjob.api.job import Partitioner
from flinkjob.graph.jobgraph import JobGraph, OutputEdge
from flinkjob.graph.operations import ResultPartition
from flinkjob.taskmanager.storage import MissingFile, PendingFile, Storage, open_file, open_storage, read_range
from flinkjob.worker.protocol import AttemptId, InputPartition

FORMAT_VERSION = 1
MAGIC = b"FJPART\r\n"

CHUNK_BYTES = 1 << 20
"""A subpartition's buffer is written as a chunk when it has reached this size, or sooner:"""
BUFFER_BYTES = 32 << 20
"""the buffers of all subpartitions together stay below this size, however many there are."""

_TRAILER = struct.Struct("<QII8s")
_CHUNK = struct.Struct("<QQII")
_COUNT = struct.Struct(">I")
_EMPTY_CHUNK = b"\xdd\0\0\0\0"

_encode_into = msgspec.msgpack.Encoder().encode_into
_encode_key = msgspec.msgpack.Encoder(order="deterministic").encode
_decode_chunk = msgspec.msgpack.Decoder(list[Any]).decode


def hash_of(key: object) -> int:
    """The hash of a key: 32 bits, the same in every process and for ever (CRC-32 of its msgpack bytes).

    Keys are equal when their encodings are: the int 1, the float 1.0 and the bool True are three keys.
    """
    return zlib.crc32(_encode_key(key))


def partition_path(run: int, vertex: int, subtask: int, attempt: int) -> str:
    """Where an attempt's partition file is, below the job's storage."""
    return f"partitions/{run}/{vertex}-{subtask}-{attempt}"


class PartitionWriter:
    """Spreads an attempt's records over its subpartitions; nothing is visible before ``finish``.

    Args:
        storage: the job's.
        attempt: whose output it is.
        edges: the vertex's outgoing edges.
    """

    __slots__ = (
        "_attempt",
        "_buffers",
        "_chunks",
        "_counts",
        "_edges",
        "_file",
        "_limit",
        "_spilled",
        "_storage",
        "_turns",
    )

    def __init__(self, storage: Storage, attempt: AttemptId, edges: Sequence[OutputEdge]) -> None:
        self._storage = storage
        self._attempt = attempt
        self._edges = edges
        self._buffers: list[bytearray | None] = []
        self._counts: list[int] = []
        self._spilled = 0
        self._chunks: dict[int, list[bytes]] = {}
        self._turns = [attempt.subtask] * len(edges)
        self._file: PendingFile | None = None
        self._limit = CHUNK_BYTES

    def emit(self, record: object, key: object = None) -> None:
        """Give the record to every outgoing edge.

        Args:
            record: anything msgpack can carry.
            key: what a hash edge goes by; without one it is the first item of a tuple or list, or the record itself.

        Raises:
            TypeError: the record or its key is nothing that msgpack can carry.
        """
        for position, edge in enumerate(self._edges):
            number = edge.first
            if edge.count > 1:
                if edge.partitioner is Partitioner.HASH:
                    number += self._hash(record, key) % edge.count
                else:
                    number += self._turns[position] % edge.count
                    self._turns[position] += 1
            self._append(number, record)

    @property
    def records(self) -> int:
        """Records written so far; one that goes to two edges counts twice."""
        return self._spilled + sum(self._counts)

    @property
    def size(self) -> int:
        """Bytes written so far, those in buffers included."""
        written = self._file.size if self._file is not None else 0
        return written + sum(len(buffer) for buffer in self._buffers if buffer)

    def finish(self) -> ResultPartition:
        """Make the partition visible, and describe it.

        Raises:
            StorageError: it could not be written.
        """
        for number, buffer in enumerate(self._buffers):
            if buffer:
                self._spill(number, buffer)
        file = self._file
        if file is None:
            return ResultPartition()
        footer = self._footer()
        checksum = zlib.crc32(footer)
        file.write(footer + _TRAILER.pack(len(footer), checksum, FORMAT_VERSION, MAGIC))
        file.commit()
        return ResultPartition(file.size, self.records, checksum)

    def discard(self) -> None:
        """Leave nothing behind, unless it is finished."""
        if self._file is not None:
            self._file.discard()

    @staticmethod
    def _hash(record: object, key: object) -> int:
        if key is None:
            key = record[0] if isinstance(record, (tuple, list)) and record else record
        try:
            return hash_of(key)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise TypeError(f"a {type(key).__name__} cannot be a key: {error}") from None

    def _append(self, number: int, record: object) -> None:
        if not self._buffers:
            self._begin()
        buffer = self._buffers[number]
        if buffer is None:
            buffer = self._buffers[number] = bytearray(_EMPTY_CHUNK)
        before = len(buffer)
        try:
            _encode_into(record, buffer, -1)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            del buffer[before:]
            raise TypeError(f"a {type(record).__name__} cannot be emitted: {error}") from None
        self._counts[number] += 1
        if len(buffer) >= self._limit:
            self._spill(number, buffer)

    def _begin(self) -> None:
        total = sum(edge.count for edge in self._edges)
        self._buffers = [None] * total
        self._counts = [0] * total
        self._limit = min(CHUNK_BYTES, BUFFER_BYTES // total)

    def _spill(self, number: int, buffer: bytearray) -> None:
        records = self._counts[number]
        _COUNT.pack_into(buffer, 1, records)
        if self._file is None:
            self._file = PendingFile(self._storage, partition_path(*self._attempt))
        chunk = _CHUNK.pack(self._file.size, len(buffer), records, zlib.crc32(buffer))
        self._chunks.setdefault(number, []).append(chunk)
        self._file.write(buffer)
        self._buffers[number] = None
        self._counts[number] = 0
        self._spilled += records

    def _footer(self) -> bytes:
        total = len(self._buffers)
        counts = struct.pack(f"<{total + 1}I", total, *(len(self._chunks.get(number, ())) for number in range(total)))
        return counts + b"".join(chunk for number in sorted(self._chunks) for chunk in self._chunks[number])


def subpartition_of(graph: JobGraph, consumer: int, number: int, subtask: int) -> int:
    """The subpartition that a subtask reads of each producer of its vertex's input ``number``."""
    source = graph.vertices[consumer].inputs[number].source
    place = graph.vertices[source].outputs.index((consumer, number))
    edge = graph.output_edges(source)[place]
    return edge.first + (subtask if edge.count > 1 else 0)


def read_partition(
    storage: Storage, run: int, vertex: int, producer: InputPartition, subpartition: int
) -> Iterator[Any]:
    """The records of one subpartition, in the order in which they were emitted.

    Raises:
        PartitionUnavailable: the file is missing, damaged, or not the one that the producer described.
        StorageError: it cannot be read now.
    """
    if not producer.partition.size:
        return
    path = partition_path(run, vertex, producer.subtask, producer.attempt)
    try:
        with open_file(storage, path) as file:
            for offset, length, _, checksum in _chunks(file, path, producer.partition, subpartition):
                data = read_range(file, offset, length, path)
                if zlib.crc32(data) != checksum:
                    raise _Damaged(f"{path}: the chunk at byte {offset} is damaged")
                for record in _decode_chunk(data):
                    yield tuple(record) if type(record) is list else record
    except (MissingFile, _Damaged) as error:
        raise PartitionUnavailable(f"partition {error}", vertex=vertex, subtask=producer.subtask) from None


def verify_partition(
    storage_url: str, run: int, vertex: int, subtask: int, attempt: int, partition: ResultPartition
) -> bool:
    """Whether the attempt's partition file is there, with the size and the footer that were described. Reads no data.

    Raises:
        StorageError: the storage cannot be asked now, so that nobody knows.
    """
    if not partition.size:
        return True
    path = partition_path(run, vertex, subtask, attempt)
    try:
        with open_file(open_storage(storage_url), path) as file:
            _read_footer(file, path, partition)
    except (MissingFile, _Damaged):
        return False
    return True


def read_result(
    storage_url: str, run: int, vertex: int, subtask: int, attempt: int, partition: ResultPartition
) -> Iterator[Any]:
    """The records that a subtask of a sink has emitted: the job's result.

    Raises:
        PartitionUnavailable: the file is missing or damaged.
        StorageError: it cannot be read now.
    """
    return read_partition(open_storage(storage_url), run, vertex, InputPartition(subtask, attempt, partition), 0)


class _Damaged(Exception):
    """The file is there and is not what it should be."""


def _chunks(file: BinaryIO, path: str, partition: ResultPartition, subpartition: int) -> Iterator[tuple[Any, ...]]:
    footer = _read_footer(file, path, partition)
    (total,) = struct.unpack_from("<I", footer)
    if subpartition >= total:
        raise _Damaged(f"{path} has {total} subpartitions, number {subpartition} is asked for")
    counts = struct.unpack_from(f"<{total}I", footer, 4)
    first = 4 + 4 * total + _CHUNK.size * sum(counts[:subpartition])
    return _CHUNK.iter_unpack(footer[first : first + _CHUNK.size * counts[subpartition]])


def _read_footer(file: BinaryIO, path: str, partition: ResultPartition) -> bytes:
    end = partition.size - _TRAILER.size
    # One byte more than there should be, so that a longer file is noticed.
    trailer = read_range(file, max(0, end), _TRAILER.size + 1, path)
    if len(trailer) != _TRAILER.size:
        raise _Damaged(f"{path} does not have the {partition.size} bytes that its producer wrote")
    length, checksum, version, magic = _TRAILER.unpack(trailer)
    if magic != MAGIC or version != FORMAT_VERSION:
        raise _Damaged(f"{path} does not end as a partition of format version {FORMAT_VERSION} does")
    footer = read_range(file, end - length, length, path) if length <= end else b""
    if not zlib.crc32(footer) == checksum == partition.checksum:
        raise _Damaged(f"{path}: the footer is damaged, or it is that of another partition")
    return footer
