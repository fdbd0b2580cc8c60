"""What a Python task sees of its world: the TaskContext.

::

    def count(context):
        totals = {}
        for word, number in context.read():
            totals[word] = totals.get(word, 0) + number
        for pair in totals.items():
            context.emit(pair)

The function is called in a worker process that lives on: modules stay imported, and what they keep in globals is seen by
later tasks. A task that must stop gets a TaskCancelled raised wherever it is. Use the context from the thread that called
the function only.
"""

import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flinkjob.api.errors import PartitionUnavailable, StorageError
from flinkjob.graph.jobgraph import JobGraph
from flinkjob.graph.operations import InputSplit
from flinkjob.taskmanager.exchange import PartitionWriter, read_partition, subpartition_of
from flinkjob.taskmanager.storage import MissingFile, PendingFile, Storage, open_file, open_input, read_range
from flinkjob.worker.protocol import AttemptId, Deployment, InputPartition

MAX_CHECKPOINT_BYTES = 64 << 20
"""The largest checkpoint of a task."""

PROGRESS_INTERVAL = 0.1
"""Seconds between two reports of progress at least; a task may call ``progress`` as often as it likes."""

_CHECKPOINT_MAGIC = b"FJCHKP\r\n"


@dataclass(frozen=True, slots=True)
class Split:
    """A piece of a source's input: a byte range of a file, or whatever a custom enumerator made of ``payload``.

    Attributes:
        path: the file, as a path or a URL; empty for a split that is only a payload.
        start: the first byte.
        length: bytes in the range; -1 reaches to the end of the file.
        payload: anything JSON can carry, for the task's own use.
    """

    path: str = ""
    start: int = 0
    length: int = -1
    payload: Any = None

    def lines(self, *, encoding: str = "utf-8", errors: str = "replace") -> Iterator[str]:
        """The lines that *start* in the range, without their ends (``\\n`` or ``\\r\\n``).

        A line that crosses the end of the range belongs to this split, one that began before its start does not. So the
        splits of a file have each of its lines exactly once.

        Raises:
            StorageError: the file cannot be read.
        """
        with open_input(self.path) as file:
            position = self.start
            if position:
                # The line that begins at the first byte is ours: look for its predecessor's end one byte earlier.
                file.seek(position - 1)
                position += len(file.readline()) - 1
            while self.length < 0 or position < self.start + self.length:
                line = file.readline()
                if not line:
                    return
                position += len(line)
                yield line.removesuffix(b"\n").removesuffix(b"\r").decode(encoding, errors)

    def read(self) -> bytes:
        """The bytes of the range.

        Raises:
            StorageError: the file cannot be read.
        """
        with open_input(self.path) as file:
            return read_range(file, self.start, self.length, self.path)


class Port(Protocol):
    """The way from a task to its TaskManager."""

    @property
    def cancelled(self) -> bool:
        """Whether the task has been told to stop."""

    def request_split(self, attempt: AttemptId, index: int) -> InputSplit | None:
        """The attempt's split of this number, None when there are no more; waits for it."""

    def report_progress(self, attempt: AttemptId, fraction: float, records: int, size: int) -> None:
        """Say how far the attempt is."""


class TaskContext:
    """One attempt of one subtask, as its function sees it.

    Attributes:
        job: name of the job.
        vertex: name of the vertex.
        subtask: number of this subtask, from 0.
        parallelism: how many subtasks the vertex has.
        attempt: number of this attempt, from 0.
        args: the vertex's ``task.args``.
        accumulators: sums of what was added so far, by name.
        lost_input: the producer (vertex, subtask) whose partition could not be read, if that happened.
    """

    __slots__ = (
        "_graph", "_id", "_inputs", "_port", "_progress_at", "_restored", "_restored_known", "_splits", "_storage",
        "_writer", "accumulators", "args", "attempt", "job", "lost_input", "parallelism", "subtask", "vertex",
    )  # fmt: skip

    def __init__(self, graph: JobGraph, deployment: Deployment, *, storage: Storage, port: Port) -> None:
        self._id = deployment.attempt
        vertex = graph.vertices[self._id.vertex]
        self.job = graph.name
        self.vertex = vertex.name
        self.subtask = self._id.subtask
        self.parallelism = vertex.parallelism
        self.attempt = self._id.attempt
        self.args: dict[str, Any] = vertex.task.args
        self.accumulators: dict[str, int | float] = {}
        self.lost_input: tuple[int, int] | None = None
        self._graph = graph
        self._inputs = deployment.inputs
        self._storage = storage
        self._port = port
        self._writer = PartitionWriter(storage, self._id, graph.output_edges(self._id.vertex))
        self._splits: Iterator[Split] | None = None
        self._progress_at = 0.0
        self._restored: bytes | None = None
        self._restored_known = False

    def splits(self) -> Iterator[Split]:
        """The input splits of this subtask, asked for one by one; each call goes on where the last one stopped.

        A subtask that runs again gets the splits it had, in the same order, and then new ones.
        """
        if self._splits is None:
            self._splits = self._requested_splits()
        return self._splits

    def read(self, *names: str) -> Iterator[Any]:
        """The records of the named inputs (all of them if none is named), one input and one producer after the other.

        Args:
            names: names of producing vertices.

        Raises:
            ValueError: the vertex has no such input.
            PartitionUnavailable: a producer's output is gone or damaged. Let it pass: the producer runs again.
        """
        sources = self.input_names
        for name in names:
            if name not in sources:
                known = ", ".join(sources) or "it has none"
                raise ValueError(f"vertex {self.vertex!r} has no input {name!r}; its inputs: {known}")
        return self._records([sources.index(name) for name in names or sources])

    def emit(self, record: object, key: object = None) -> None:
        """Give a record to every vertex that reads this one, or to the job's result if none does.

        Args:
            record: str, bytes, int, float, bool, None, or a list, tuple or dict of these. A list or tuple is read as a tuple,
                one inside a record as a list.
            key: what a hash edge goes by; without one the first item of a tuple or list, or the record itself.

        Raises:
            TypeError: the record or its key is of another type.
            StorageError: it could not be written.
        """
        self._writer.emit(record, key)

    def add(self, name: str, number: int | float) -> None:
        """Add to an accumulator: the sums over all subtasks are the job's, once they have finished.

        Raises:
            TypeError: not a name or not a number.
        """
        if not isinstance(name, str) or not isinstance(number, (int, float)):
            raise TypeError(f"an accumulator is a name and a number, not {name!r} and {number!r}")
        self.accumulators[name] = self.accumulators.get(name, 0) + number

    def progress(self, fraction: float) -> None:
        """Say how far the task is, from 0 to 1: shown to people, and nothing else depends on it."""
        now = time.monotonic()
        if now >= self._progress_at:
            self._progress_at = now + PROGRESS_INTERVAL
            done = min(1.0, max(0.0, float(fraction)))
            self._port.report_progress(self._id, done, self._writer.records, self._writer.size)

    @property
    def cancelled(self) -> bool:
        """Whether the task has been told to stop: for one that catches TaskCancelled, or that looks now and then."""
        return self._port.cancelled

    def checkpoint(self, data: bytes) -> None:
        """Leave something for the next attempt, in place of what this one left before; durable on return.

        What was emitted is not part of it: the next attempt's output begins empty.

        Raises:
            ValueError: more than MAX_CHECKPOINT_BYTES.
            StorageError: it could not be written; what was left before is still there.
        """
        if len(data) > MAX_CHECKPOINT_BYTES:
            raise ValueError(f"a checkpoint of {len(data)} bytes is larger than the {MAX_CHECKPOINT_BYTES} allowed")
        file = PendingFile(self._storage, self._checkpoint_path(self.attempt))
        try:
            file.write(_CHECKPOINT_MAGIC + zlib.crc32(data).to_bytes(4, "little"))
            file.write(data)
            file.commit()
        finally:
            file.discard()

    @property
    def restored(self) -> bytes | None:
        """What the most recent previous attempt left that left anything; None on a first attempt.

        Raises:
            StorageError: it cannot be read now.
        """
        if not self._restored_known:
            earlier = (self._checkpoint_of(attempt) for attempt in range(self.attempt - 1, -1, -1))
            self._restored = next((data for data in earlier if data is not None), None)
            self._restored_known = True
        return self._restored

    @property
    def writer(self) -> PartitionWriter:
        """The attempt's partition."""
        return self._writer

    @property
    def has_splits(self) -> bool:
        """Whether the vertex is a source with input splits."""
        return self._graph.vertices[self._id.vertex].splits is not None

    @property
    def input_names(self) -> list[str]:
        """Names of the producing vertices, in the order of the vertex's inputs."""
        return [self._graph.vertices[edge.source].name for edge in self._graph.vertices[self._id.vertex].inputs]

    def _requested_splits(self) -> Iterator[Split]:
        if not self.has_splits:
            return
        index = 0
        while (split := self._port.request_split(self._id, index)) is not None:
            yield Split(split.path, split.start, split.length, split.payload)
            index += 1

    def _records(self, numbers: Sequence[int]) -> Iterator[Any]:
        vertex = self._graph.vertices[self._id.vertex]
        for number in numbers:
            subpartition = subpartition_of(self._graph, self._id.vertex, number, self.subtask)
            for producer in self._inputs[number] if number < len(self._inputs) else ():
                yield from self._records_of(vertex.inputs[number].source, producer, subpartition)

    def _records_of(self, source: int, producer: InputPartition, subpartition: int) -> Iterator[Any]:
        try:
            yield from read_partition(self._storage, self._id.run, source, producer, subpartition)
        except PartitionUnavailable as error:
            # Whatever the task makes of the error: if it fails, this is why.
            self.lost_input = (error.vertex, error.subtask)
            raise

    def _checkpoint_path(self, attempt: int) -> str:
        return f"checkpoints/{self._id.run}/{self._id.vertex}-{self.subtask}-{attempt}"

    def _checkpoint_of(self, attempt: int) -> bytes | None:
        path = self._checkpoint_path(attempt)
        try:
            with open_file(self._storage, path) as file:
                data = read_range(file, 0, -1, path)
        except MissingFile:
            return None
        head = len(_CHECKPOINT_MAGIC) + 4
        if data[:head] != _CHECKPOINT_MAGIC + zlib.crc32(data[head:]).to_bytes(4, "little"):
            raise StorageError(f"checkpoint {path} is damaged; remove it to let the task begin without it")
        return data[head:]
