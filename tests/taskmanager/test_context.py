"""The TaskContext, on real files; only the TaskManager's answers are the test's."""

from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from flinkjob.api.errors import PartitionUnavailable, StorageError
from flinkjob.api.job import InputSpec, Partitioner, SplitsSpec, TaskSpec, VertexSpec
from flinkjob.graph.jobgraph import JobGraph
from flinkjob.graph.operations import InputSplit
from flinkjob.taskmanager import context as contexts
from flinkjob.taskmanager.context import Split, TaskContext
from flinkjob.taskmanager.storage import LocalStorage
from flinkjob.worker.protocol import AttemptId, Deployment, InputPartition
from taskmanager.partitions import TASK, edge_graph, path_of, read, write
from taskmanager.scripted import RUN, graph_of


class Port:
    """Answers from a list of splits, and remembers what was said."""

    def __init__(self, *splits: InputSplit) -> None:
        self.splits = splits
        self.requests: list[int] = []
        self.progress: list[tuple[float, int, int]] = []
        self.cancelled = False

    def request_split(self, attempt: AttemptId, index: int) -> InputSplit | None:
        self.requests.append(index)
        return self.splits[index] if index < len(self.splits) else None

    def report_progress(self, attempt: AttemptId, fraction: float, records: int, size: int) -> None:
        self.progress.append((fraction, records, size))


def context_of(
    graph: JobGraph,
    root: Path,
    *,
    vertex: int = 0,
    subtask: int = 0,
    attempt: int = 0,
    inputs: tuple[tuple[InputPartition, ...], ...] = (),
    port: Port | None = None,
) -> TaskContext:
    deployment = Deployment(AttemptId(RUN, vertex, subtask, attempt), inputs)
    return TaskContext(graph, deployment, storage=LocalStorage(str(root)), port=port or Port())


def one_vertex(splits: SplitsSpec | None = None, **args: Any) -> JobGraph:
    task = TaskSpec(python="module:function", args=args)
    return graph_of(VertexSpec(name="source", parallelism=3, task=task, splits=splits))


def test_a_task_knows_who_it_is(tmp_path: Path) -> None:
    context = context_of(one_vertex(lower=True), tmp_path, subtask=2, attempt=4)
    assert (context.job, context.vertex, context.subtask) == ("job", "source", 2)
    assert (context.parallelism, context.attempt, context.args) == (3, 4, {"lower": True})


def test_inputs_are_read_by_name_or_all_together(tmp_path: Path) -> None:
    inputs = tuple(InputSpec(source=name, partitioner=Partitioner.BROADCAST) for name in ("left", "right"))
    graph = graph_of(
        VertexSpec(name="left", task=TASK),
        VertexSpec(name="right", task=TASK),
        VertexSpec(name="join", task=TASK, inputs=inputs),
    )
    index = {vertex.name: vertex.index for vertex in graph.vertices}
    partitions = {name: write(tmp_path, graph, [name], vertex=index[name]) for name in ("left", "right")}
    producers = tuple((InputPartition(0, 0, partitions[name]),) for name in ("left", "right"))
    context = context_of(graph, tmp_path, vertex=index["join"], inputs=producers)
    assert list(context.read("right")) == ["right"]
    assert list(context.read("right", "left")) == ["right", "left"]
    assert list(context.read()) == ["left", "right"]
    with pytest.raises(ValueError, match="no input 'middle'; its inputs: left, right"):
        context.read("middle")


def test_a_forward_consumer_reads_only_its_own_producer(tmp_path: Path) -> None:
    graph = edge_graph(Partitioner.FORWARD, producers=3, consumers=3)
    partition = write(tmp_path, graph, ["own"], subtask=1, attempt=2)
    context = context_of(graph, tmp_path, vertex=1, subtask=1, inputs=((InputPartition(1, 2, partition),),))
    assert list(context.read()) == ["own"]


def test_a_lost_partition_is_remembered_whatever_the_task_makes_of_it(tmp_path: Path) -> None:
    graph = edge_graph(Partitioner.REBALANCE, producers=2)
    partition = write(tmp_path, graph, ["x"], subtask=1)
    path_of(tmp_path, subtask=1).unlink()
    context = context_of(graph, tmp_path, vertex=1, inputs=((InputPartition(1, 0, partition),),))
    with pytest.raises(PartitionUnavailable):
        list(context.read())
    assert context.lost_input == (0, 1)


def test_what_is_emitted_reaches_the_partition(tmp_path: Path) -> None:
    graph = edge_graph(Partitioner.HASH, consumers=2)
    context = context_of(graph, tmp_path)
    context.emit(("a", 1))
    context.emit("b", key="a")
    partition = context.writer.finish()
    parts = [read(tmp_path, graph, [partition], subtask=subtask) for subtask in range(2)]
    assert sorted(parts, key=len) == [[], [("a", 1), "b"]]


def test_accumulators_are_sums(tmp_path: Path) -> None:
    context = context_of(one_vertex(), tmp_path)
    context.add("words", 2)
    context.add("words", 3)
    context.add("share", 0.5)
    assert context.accumulators == {"words": 5, "share": 0.5}
    with pytest.raises(TypeError, match="'words' and 'three'"):
        context.add("words", "three")  # type: ignore[arg-type]


def test_progress_is_told_with_what_was_written_and_not_more_often_than_useful(tmp_path: Path) -> None:
    port = Port()
    context = context_of(one_vertex(), tmp_path, port=port)
    context.emit("record")
    context.progress(1.5)
    for _ in range(1000):
        context.progress(0.1)
    assert port.progress[0] == (1.0, 1, len(b"\xdd\0\0\0\0\xa6record"))
    assert len(port.progress) < 1000


def test_cancellation_can_be_looked_at(tmp_path: Path) -> None:
    port = Port()
    context = context_of(one_vertex(), tmp_path, port=port)
    assert not context.cancelled
    port.cancelled = True
    assert context.cancelled


# Splits


def test_splits_are_asked_for_one_by_one(tmp_path: Path) -> None:
    port = Port(InputSplit("one", 1, 2), InputSplit(payload={"n": 1}))
    context = context_of(one_vertex(SplitsSpec(files=("*",))), tmp_path, port=port)
    splits = context.splits()
    assert next(splits) == Split("one", 1, 2)
    assert port.requests == [0]
    assert list(context.splits()) == [Split("", 0, 0, {"n": 1})]
    assert port.requests == [0, 1, 2]


def test_a_vertex_without_splits_asks_for_none(tmp_path: Path) -> None:
    port = Port(InputSplit("one"))
    assert list(context_of(one_vertex(), tmp_path, port=port).splits()) == []
    assert port.requests == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.sampled_from(["", "a", "bc", "\r", "é"]), max_size=12), st.booleans(), st.integers(1, 9))
def test_the_splits_of_a_file_have_each_line_once(tmp_path: Path, words: list[str], ended: bool, size: int) -> None:
    data = ("\n".join(words) + ("\n" if ended else "")).encode()
    path = tmp_path / "input"
    path.write_bytes(data)
    splits = [Split(str(path), start, min(size, len(data) - start)) for start in range(0, len(data), size)]
    expected = [line.removesuffix(b"\r").decode() for line in data.split(b"\n")]
    if data.endswith(b"\n") or not data:
        expected.pop()
    assert [line for split in splits for line in split.lines()] == expected
    assert b"".join(split.read() for split in splits) == data


def test_a_line_belongs_to_the_split_in_which_it_starts(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"first\nsecond\nthird")
    assert list(Split(str(path), 0, 6).lines()) == ["first"]
    assert list(Split(str(path), 0, 7).lines()) == ["first", "second"]
    assert list(Split(str(path), 6, 7).lines()) == ["second"]
    assert list(Split(str(path), 7, 6).lines()) == []
    assert list(Split(str(path), 7).lines()) == ["third"]
    assert Split(str(path), 6, 6).read() == b"second"
    assert Split(str(path)).read() == path.read_bytes()


def test_what_is_no_utf_8_is_replaced_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"caf\xe9\n")
    assert list(Split(str(path)).lines()) == ["caf\ufffd"]
    assert list(Split(str(path)).lines(encoding="latin-1")) == ["café"]


# Checkpoints


def test_a_first_attempt_has_nothing_to_restore(tmp_path: Path) -> None:
    assert context_of(one_vertex(), tmp_path).restored is None


def test_an_attempt_restores_what_its_latest_predecessor_left(tmp_path: Path) -> None:
    graph = one_vertex()
    context_of(graph, tmp_path, attempt=0).checkpoint(b"zero")
    first = context_of(graph, tmp_path, attempt=1)
    assert first.restored == b"zero"
    first.checkpoint(b"one")
    first.checkpoint(b"")
    assert first.restored == b"zero"
    assert context_of(graph, tmp_path, attempt=4).restored == b""
    assert context_of(graph, tmp_path, subtask=1, attempt=4).restored is None


def test_a_checkpoint_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "MAX_CHECKPOINT_BYTES", 10)
    context = context_of(one_vertex(), tmp_path)
    context.checkpoint(b"x" * 10)
    with pytest.raises(ValueError, match="11 bytes is larger than the 10"):
        context.checkpoint(b"x" * 11)


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = context_of(one_vertex(), tmp_path)
    context.checkpoint(b"good")

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(StorageError, match="Input/output error"):
        context.checkpoint(b"bad")
    assert [path.name for path in (tmp_path / "checkpoints" / str(RUN)).iterdir()] == ["0-0-0"]
    assert context_of(one_vertex(), tmp_path, attempt=1).restored == b"good"


def test_a_damaged_checkpoint_is_refused_at_every_byte(tmp_path: Path) -> None:
    context_of(one_vertex(), tmp_path).checkpoint(b"state")
    path = tmp_path / "checkpoints" / str(RUN) / "0-0-0"
    data = path.read_bytes()
    for offset in range(len(data)):
        path.write_bytes(data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :])
        with pytest.raises(StorageError, match="is damaged"):
            _ = context_of(one_vertex(), tmp_path, attempt=1).restored
