"""Partitions written and read without processes."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from flinkjob.api.job import InputSpec, Partitioner, TaskSpec, VertexSpec
from flinkjob.graph.jobgraph import JobGraph
from flinkjob.graph.operations import ResultPartition
from flinkjob.taskmanager.exchange import PartitionWriter, partition_path, read_partition, subpartition_of
from flinkjob.taskmanager.storage import LocalStorage
from flinkjob.worker.protocol import AttemptId, InputPartition
from taskmanager.scripted import RUN, graph_of

TASK = TaskSpec(python="module:function")


def edge_graph(partitioner: Partitioner, *, producers: int = 1, consumers: int = 1) -> JobGraph:
    """A producer and a consumer."""
    return graph_of(
        VertexSpec(name="producer", parallelism=producers, task=TASK),
        VertexSpec(
            name="consumer",
            parallelism=consumers,
            task=TASK,
            inputs=(InputSpec(source="producer", partitioner=partitioner),),
        ),
    )


def write(
    root: Path, graph: JobGraph, records: Iterable[Any], *, vertex: int = 0, subtask: int = 0, attempt: int = 0
) -> ResultPartition:
    """The partition of an attempt that emits these records."""
    id = AttemptId(RUN, vertex, subtask, attempt)
    writer = PartitionWriter(LocalStorage(str(root)), id, graph.output_edges(vertex))
    for record in records:
        writer.emit(record)
    return writer.finish()


def read(
    root: Path,
    graph: JobGraph,
    partitions: Sequence[ResultPartition],
    *,
    consumer: int = 1,
    number: int = 0,
    subtask: int = 0,
) -> list[Any]:
    """What a consumer's subtask reads of the first attempts of these producers."""
    source = graph.vertices[consumer].inputs[number].source
    subpartition = subpartition_of(graph, consumer, number, subtask)
    storage = LocalStorage(str(root))
    return [
        record
        for producer, partition in enumerate(partitions)
        for record in read_partition(storage, RUN, source, InputPartition(producer, 0, partition), subpartition)
    ]


def path_of(root: Path, *, vertex: int = 0, subtask: int = 0, attempt: int = 0) -> Path:
    """Where an attempt's partition file is."""
    return root / partition_path(RUN, vertex, subtask, attempt)
