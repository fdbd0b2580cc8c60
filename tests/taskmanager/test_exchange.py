"""Partitions: every record reaches who shall have it, and damage never passes for data."""

import struct
import subprocess
import sys
import zlib
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from flinkjob.api.errors import PartitionUnavailable, StorageError
from flinkjob.api.job import InputSpec, Partitioner, VertexSpec
from flinkjob.graph.operations import ResultPartition
from flinkjob.taskmanager import exchange
from flinkjob.taskmanager.exchange import PartitionWriter, hash_of, read_result, verify_partition
from flinkjob.taskmanager.storage import LocalStorage
from flinkjob.worker.protocol import AttemptId
from taskmanager.partitions import TASK, edge_graph, path_of, read, write
from taskmanager.scripted import RUN, graph_of

SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary()
)
RECORDS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=6,
)
FILES = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def as_read(record: Any, *, top: bool = True) -> Any:
    """What becomes of a record on its way: tuples at the top, lists below."""
    if isinstance(record, (list, tuple)):
        items = [as_read(item, top=False) for item in record]
        return tuple(items) if top else items
    if isinstance(record, dict):
        return {key: as_read(value, top=False) for key, value in record.items()}
    return record


def bag(records: list[Any]) -> Counter[str]:
    return Counter(map(repr, records))


@FILES
@given(
    st.lists(st.lists(RECORDS, max_size=20), min_size=1, max_size=3), st.integers(1, 4), st.sampled_from(Partitioner)
)
def test_every_record_reaches_who_shall_have_it(
    tmp_path: Path, emitted: list[list[Any]], parallelism: int, partitioner: Partitioner
) -> None:
    consumers = len(emitted) if partitioner is Partitioner.FORWARD else parallelism
    graph = edge_graph(partitioner, producers=len(emitted), consumers=consumers)
    partitions = [write(tmp_path, graph, records, subtask=subtask) for subtask, records in enumerate(emitted)]
    expected = [as_read(record) for record in chain(*emitted)]
    if partitioner is Partitioner.FORWARD:
        for subtask in range(consumers):
            found = read(tmp_path, graph, [ResultPartition()] * subtask + [partitions[subtask]], subtask=subtask)
            assert repr(found) == repr([as_read(record) for record in emitted[subtask]])
        return
    parts = [read(tmp_path, graph, partitions, subtask=subtask) for subtask in range(consumers)]
    if partitioner is Partitioner.BROADCAST:
        assert all(repr(part) == repr(expected) for part in parts)
    else:
        assert bag(list(chain(*parts))) == bag(expected)
    if partitioner is Partitioner.REBALANCE:
        assert max(map(len, parts)) - min(map(len, parts)) <= len(emitted)


def test_the_order_of_one_producer_is_kept(tmp_path: Path) -> None:
    graph = edge_graph(Partitioner.HASH, consumers=3)
    partition = write(tmp_path, graph, ((number % 5, number) for number in range(1000)))
    for subtask in range(3):
        numbers = [number for _, number in read(tmp_path, graph, [partition], subtask=subtask)]
        assert numbers == sorted(numbers)


def test_equal_keys_meet_whatever_the_record_looks_like(tmp_path: Path) -> None:
    graph = edge_graph(Partitioner.HASH, producers=2, consumers=7)
    first = write(tmp_path, graph, [("key", 1), ["key", 2], "key"])
    writer = PartitionWriter(LocalStorage(str(tmp_path)), AttemptId(RUN, 0, 1, 0), graph.output_edges(0))
    writer.emit({"other": "shape"}, key="key")
    partitions = [first, writer.finish()]
    parts = [read(tmp_path, graph, partitions, subtask=subtask) for subtask in range(7)]
    assert sorted(map(len, parts)) == [0] * 6 + [4]
    assert len(parts[hash_of("key") % 7]) == 4


def test_the_hash_is_the_same_for_ever_and_in_every_process() -> None:
    assert [hash_of(key) for key in ("word", b"word", 1, ("a", 1), {"b": 1, "a": 2}, None)] == [
        zlib.crc32(data)
        for data in (b"\xa4word", b"\xc4\x04word", b"\x01", b"\x92\xa1a\x01", b"\x82\xa1a\x02\xa1b\x01", b"\xc0")
    ]
    code = "from flinkjob.taskmanager.exchange import hash_of; print(hash_of(('word', {'b': 1, 'a': 2})))"
    seeds = [{"PYTHONHASHSEED": seed} for seed in ("1", "2")]
    outputs = {
        subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True).stdout for env in seeds
    }
    assert outputs == {b"%d\n" % hash_of(["word", {"a": 2, "b": 1}])}


def test_a_vertex_with_several_readers_gives_each_all_records(tmp_path: Path) -> None:
    def reader(name: str, partitioner: Partitioner, parallelism: int) -> VertexSpec:
        edge = InputSpec(source="producer", partitioner=partitioner)
        return VertexSpec(name=name, parallelism=parallelism, task=TASK, inputs=(edge,))

    graph = graph_of(
        VertexSpec(name="producer", task=TASK),
        reader("hashed", Partitioner.HASH, 3),
        reader("all", Partitioner.BROADCAST, 2),
        reader("dealt", Partitioner.REBALANCE, 4),
    )
    producer = next(vertex.index for vertex in graph.vertices if vertex.name == "producer")
    partition = write(tmp_path, graph, range(100), vertex=producer)
    assert partition.records == 300
    for vertex in graph.vertices:
        if vertex.index != producer:
            parts = [
                read(tmp_path, graph, [partition], consumer=vertex.index, subtask=n) for n in range(vertex.parallelism)
            ]
            copies = vertex.parallelism if vertex.name == "all" else 1
            assert sorted(chain(*parts)) == sorted(list(range(100)) * copies)


def test_an_attempt_that_emits_nothing_has_no_file(tmp_path: Path) -> None:
    graph = edge_graph(Partitioner.HASH, consumers=2)
    partition = write(tmp_path, graph, [])
    assert partition == ResultPartition()
    assert list(tmp_path.iterdir()) == []
    assert read(tmp_path, graph, [partition]) == []
    assert verify_partition(str(tmp_path), RUN, 0, 0, 0, partition)


def test_the_result_of_a_sink_is_its_only_subpartition(tmp_path: Path) -> None:
    graph = edge_graph(Partitioner.FORWARD)
    partition = write(tmp_path, graph, ["a", ("b", 1)], vertex=1, attempt=3)
    assert list(read_result(f"file://{tmp_path}", RUN, 1, 0, 3, partition)) == ["a", ("b", 1)]


def test_nothing_is_visible_before_the_end_nor_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "CHUNK_BYTES", 10)
    graph = edge_graph(Partitioner.HASH, consumers=2)
    writer = PartitionWriter(LocalStorage(str(tmp_path)), AttemptId(RUN, 0, 0, 0), graph.output_edges(0))
    for number in range(100):
        writer.emit(str(number))
    assert not path_of(tmp_path).exists()
    assert list(path_of(tmp_path).parent.iterdir()) != []
    writer.discard()
    assert list(path_of(tmp_path).parent.iterdir()) == []


def test_attempts_do_not_share_a_file(tmp_path: Path) -> None:
    graph = edge_graph(Partitioner.FORWARD)
    first = write(tmp_path, graph, ["first"], attempt=0)
    second = write(tmp_path, graph, ["second attempt"], attempt=1)
    assert list(read_result(str(tmp_path), RUN, 0, 0, 0, first)) == ["first"]
    assert list(read_result(str(tmp_path), RUN, 0, 0, 1, second)) == ["second attempt"]
    with pytest.raises(PartitionUnavailable):
        list(read_result(str(tmp_path), RUN, 0, 0, 1, first))


def test_memory_is_bounded_however_many_records_and_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "CHUNK_BYTES", 1 << 14)
    monkeypatch.setattr(exchange, "BUFFER_BYTES", 1 << 16)
    graph = edge_graph(Partitioner.HASH, consumers=64)
    writer = PartitionWriter(LocalStorage(str(tmp_path)), AttemptId(RUN, 0, 0, 0), graph.output_edges(0))
    largest = 0
    for number in range(20_000):
        writer.emit((number, "x" * 20))
        if number % 500 == 0:
            largest = max(largest, sum(len(buffer) for buffer in writer._buffers if buffer))
    partition = writer.finish()
    assert partition.records == 20_000
    assert largest <= 1 << 16
    parts = [read(tmp_path, graph, [partition], subtask=subtask) for subtask in range(64)]
    assert sorted(number for number, _ in chain(*parts)) == list(range(20_000))


@pytest.mark.parametrize("record", [object(), 2**64, ("fine", {"bad": 3j}), "\ud800"])
def test_what_cannot_be_emitted_is_refused_and_leaves_no_trace(tmp_path: Path, record: object) -> None:
    graph = edge_graph(Partitioner.REBALANCE)
    writer = PartitionWriter(LocalStorage(str(tmp_path)), AttemptId(RUN, 0, 0, 0), graph.output_edges(0))
    writer.emit("before")
    with pytest.raises(TypeError, match="cannot be emitted"):
        writer.emit(record)
    writer.emit("after")
    partition = writer.finish()
    assert partition.records == 2
    assert read(tmp_path, graph, [partition]) == ["before", "after"]


def test_what_cannot_be_a_key_is_refused(tmp_path: Path) -> None:
    graph = edge_graph(Partitioner.HASH, consumers=2)
    writer = PartitionWriter(LocalStorage(str(tmp_path)), AttemptId(RUN, 0, 0, 0), graph.output_edges(0))
    with pytest.raises(TypeError, match="a complex cannot be a key"):
        writer.emit("record", key=3j)


# Damage


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ResultPartition:
    """A small partition of two subpartitions with several chunks each."""
    monkeypatch.setattr(exchange, "CHUNK_BYTES", 32)
    return write(tmp_path, edge_graph(Partitioner.HASH, consumers=2), [(number, "x") for number in range(60)])


def read_all(root: Path, partition: ResultPartition) -> list[Any]:
    graph = edge_graph(Partitioner.HASH, consumers=2)
    return [*read(root, graph, [partition], subtask=0), *read(root, graph, [partition], subtask=1)]


def test_damage_of_any_byte_is_noticed(tmp_path: Path, written: ResultPartition) -> None:
    path = path_of(tmp_path)
    data = path.read_bytes()
    assert len(data) == written.size
    assert len(read_all(tmp_path, written)) == 60
    for offset in range(len(data)):
        damaged = bytearray(data)
        damaged[offset] ^= 1 << offset % 8
        path.write_bytes(damaged)
        with pytest.raises(PartitionUnavailable) as caught:
            read_all(tmp_path, written)
        assert (caught.value.vertex, caught.value.subtask) == (0, 0)


def test_a_file_of_any_other_length_is_noticed(tmp_path: Path, written: ResultPartition) -> None:
    path = path_of(tmp_path)
    data = path.read_bytes()
    for other in [*(data[:length] for length in range(len(data))), data + b"\0", data + data]:
        path.write_bytes(other)
        assert not verify_partition(str(tmp_path), RUN, 0, 0, 0, written)
        with pytest.raises(PartitionUnavailable):
            read_all(tmp_path, written)


def test_verifying_sees_the_index_and_reads_no_data(tmp_path: Path, written: ResultPartition) -> None:
    path = path_of(tmp_path)
    data = bytearray(path.read_bytes())
    assert verify_partition(str(tmp_path), RUN, 0, 0, 0, written)
    (footer_length,) = struct.unpack_from("<Q", data, len(data) - 24)
    data[0] ^= 1
    path.write_bytes(data)
    assert verify_partition(str(tmp_path), RUN, 0, 0, 0, written)
    data[len(data) - 24 - footer_length] ^= 1
    path.write_bytes(data)
    assert not verify_partition(str(tmp_path), RUN, 0, 0, 0, written)


def test_a_missing_file_is_noticed(tmp_path: Path, written: ResultPartition) -> None:
    path_of(tmp_path).unlink()
    assert not verify_partition(str(tmp_path), RUN, 0, 0, 0, written)
    with pytest.raises(PartitionUnavailable, match="partitions/1/0-0-0 does not exist"):
        read_all(tmp_path, written)


def test_the_whole_file_of_another_attempt_is_noticed(tmp_path: Path, written: ResultPartition) -> None:
    graph = edge_graph(Partitioner.HASH, consumers=2)
    other = write(tmp_path, graph, [(number, "y") for number in range(60)], attempt=1)
    path_of(tmp_path, attempt=1).replace(path_of(tmp_path))
    assert other.size == written.size
    assert not verify_partition(str(tmp_path), RUN, 0, 0, 0, written)
    with pytest.raises(PartitionUnavailable, match="another partition"):
        read_all(tmp_path, written)


def test_a_reader_beyond_the_subpartitions_is_refused(tmp_path: Path, written: ResultPartition) -> None:
    with pytest.raises(PartitionUnavailable, match="has 2 subpartitions"):
        read(tmp_path, edge_graph(Partitioner.HASH, consumers=9), [written], subtask=5)


def test_storage_that_cannot_be_asked_is_no_verdict(tmp_path: Path, written: ResultPartition) -> None:
    path = path_of(tmp_path)
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(StorageError):
        verify_partition(str(tmp_path), RUN, 0, 0, 0, written)


def test_the_format_is_as_documented(tmp_path: Path) -> None:
    partition = write(tmp_path, edge_graph(Partitioner.REBALANCE, consumers=2), ["a", "b", "c"])
    chunks = b"\xdd\0\0\0\x02\xa1a\xa1c", b"\xdd\0\0\0\x01\xa1b"
    footer = struct.pack("<III", 2, 1, 1)
    footer += struct.pack("<QQII", 0, 9, 2, zlib.crc32(chunks[0])) + struct.pack(
        "<QQII", 9, 7, 1, zlib.crc32(chunks[1])
    )
    trailer = struct.pack("<QII", len(footer), zlib.crc32(footer), 1) + b"FJPART\r\n"
    assert path_of(tmp_path).read_bytes() == b"".join((*chunks, footer, trailer))
    assert partition == ResultPartition(16 + len(footer) + 24, 3, zlib.crc32(footer))
