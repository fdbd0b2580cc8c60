"""The JobGraph: the vertices of a job in topological order, with their edges resolved and checked.

It is made once, from a manifest or by an entrypoint, and stored beside the operation log; whoever replays the log reads the
stored one, so that indexes and identifiers mean the same for ever.
"""

import hashlib
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

import msgspec

from flinkjob.api.errors import InvalidJobGraph
from flinkjob.api.fields import FieldError
from flinkjob.api.job import Exchange, InputSpec, Partitioner, SplitsSpec, TaskSpec, VertexSpec
from flinkjob.graph.operations import UNREADABLE

FORMAT_VERSION = 1


class JobEdge(msgspec.Struct, frozen=True):
    """An edge, seen from its consumer: the producing vertex by index, and how records are spread over the consumers."""

    source: int
    partitioner: Partitioner
    exchange: Exchange


class JobVertex(msgspec.Struct, frozen=True):
    """A parallel vertex: ``parallelism`` subtasks run the same task.

    Attributes:
        id: 32 hexadecimal digits, made of the name, so the same in every build of the graph.
        index: the place in ``JobGraph.vertices``; operations and messages name the vertex by it.
        outputs: the edges that read this vertex: (index of the consumer, number of its input).
    """

    id: str
    index: int
    name: str
    parallelism: int
    task: TaskSpec
    inputs: tuple[JobEdge, ...] = ()
    outputs: tuple[tuple[int, int], ...] = ()
    splits: SplitsSpec | None = None


class OutputEdge(msgspec.Struct, frozen=True):
    """An edge, seen from its producer: how many subpartitions each producing subtask writes for it, and from which on."""

    consumer: int
    partitioner: Partitioner
    first: int
    count: int


class JobGraph(msgspec.Struct, frozen=True, dict=True):
    """What is to run.

    Attributes:
        id: 32 hexadecimal digits, as Flink's JobID.
        name: the name of the job.
        vertices: in topological order: a vertex stands behind all that it reads.
    """

    id: str
    name: str
    vertices: tuple[JobVertex, ...]

    @classmethod
    def build(cls, *, job_id: str, name: str, vertices: Iterable[VertexSpec]) -> "JobGraph":
        """Resolve and check the declared vertices.

        Raises:
            InvalidJobGraph: no vertices, two of one name, an input that is unknown, read twice or part of a cycle, a
                forward edge between different parallelisms. The message names the vertex and the input.
        """
        specs = _by_name(vertices)
        order = {vertex: index for index, vertex in enumerate(_sorted(specs))}
        outputs: dict[str, list[tuple[int, int]]] = {vertex: [] for vertex in order}
        for vertex, index in order.items():
            for number, edge in enumerate(specs[vertex].inputs):
                outputs[edge.source].append((index, number))
        resolved = (
            JobVertex(
                id=hashlib.md5(vertex.encode(), usedforsecurity=False).hexdigest(),
                index=index,
                name=vertex,
                parallelism=specs[vertex].parallelism,
                task=specs[vertex].task,
                inputs=tuple(JobEdge(order[e.source], e.partitioner, e.exchange) for e in specs[vertex].inputs),
                outputs=tuple(outputs[vertex]),
                splits=specs[vertex].splits,
            )
            for vertex, index in order.items()
        )
        return cls(job_id, name, tuple(resolved))

    def encode(self) -> bytes:
        """The graph as it is stored; ``decode`` gives an equal one."""
        return msgspec.msgpack.encode((FORMAT_VERSION, self))

    @classmethod
    def decode(cls, data: bytes) -> "JobGraph":
        """The graph that ``encode`` made.

        Raises:
            InvalidJobGraph: the bytes are none, damaged, or of another format version.
        """
        try:
            version, graph = msgspec.msgpack.decode(data, type=tuple[int, JobGraph])
        except (*UNREADABLE, FieldError) as error:
            raise InvalidJobGraph(f"the stored JobGraph cannot be read: {error}") from None
        if version != FORMAT_VERSION:
            raise InvalidJobGraph(
                f"the stored JobGraph has format version {version}; this program reads {FORMAT_VERSION}"
            )
        graph._check_indexes()
        return graph

    def _check_indexes(self) -> None:
        """Everybody relies on the indexes that a stored graph has resolved."""
        outputs: list[list[tuple[int, int]]] = [[] for _ in self.vertices]
        for index, vertex in enumerate(self.vertices):
            if vertex.index != index or vertex.parallelism < 1 or not all(0 <= e.source < index for e in vertex.inputs):
                raise InvalidJobGraph(f"the stored JobGraph is damaged at vertices[{index}], {vertex.name!r}")
            for number, edge in enumerate(vertex.inputs):
                outputs[edge.source].append((index, number))
        if not self.vertices or [tuple(edges) for edges in outputs] != [vertex.outputs for vertex in self.vertices]:
            raise InvalidJobGraph("the stored JobGraph is damaged: its edges do not fit together")

    def output_edges(self, vertex: int) -> tuple[OutputEdge, ...]:
        """How the subtasks of a vertex lay out their partition: the subpartitions of each outgoing edge, one after the other.

        A vertex that nobody reads has one edge of one subpartition, to consumer -1: the job's result.
        """
        edges: list[OutputEdge] = []
        first = 0
        for consumer, number in self.vertices[vertex].outputs:
            partitioner = self.vertices[consumer].inputs[number].partitioner
            single = partitioner in (Partitioner.FORWARD, Partitioner.BROADCAST)
            count = 1 if single else self.vertices[consumer].parallelism
            edges.append(OutputEdge(consumer, partitioner, first, count))
            first += count
        return tuple(edges) or (OutputEdge(-1, Partitioner.REBALANCE, 0, 1),)

    @property
    def total_tasks(self) -> int:
        """How many subtasks the job has."""
        return sum(vertex.parallelism for vertex in self.vertices)


class JobGraphBuilder:
    """Builds the vertices of a job in Python, for a manifest's ``spec.job.entrypoint``.

    ::

        def build(args):
            graph = JobGraphBuilder()
            text = SplitsSpec(files=("/data/*.txt",), max_split_size=64 << 10)
            words = graph.python("tokenize", "wordcount:tokenize", parallelism=8, splits=text)
            graph.python("count", "wordcount:count", parallelism=4, inputs=[words.by_hash()])
            return graph
    """

    def __init__(self) -> None:
        self.vertices: list[VertexSpec] = []

    def python(
        self,
        name: str,
        function: str,
        *,
        args: Mapping[str, Any] | None = None,
        parallelism: int = 1,
        inputs: Iterable[InputSpec] = (),
        splits: SplitsSpec | None = None,
    ) -> "VertexHandle":
        """Add a vertex whose subtasks call ``function`` (``module:function``) with a TaskContext."""
        task = TaskSpec(python=function, args=dict(args or {}))
        return self._add(VertexSpec(name=name, parallelism=parallelism, task=task, inputs=tuple(inputs), splits=splits))

    def command(
        self,
        name: str,
        command: Iterable[str],
        *,
        env: Mapping[str, str] | None = None,
        parallelism: int = 1,
        inputs: Iterable[InputSpec] = (),
        splits: SplitsSpec | None = None,
    ) -> "VertexHandle":
        """Add a vertex whose subtasks run a program."""
        task = TaskSpec(command=tuple(command), env=dict(env or {}))
        return self._add(VertexSpec(name=name, parallelism=parallelism, task=task, inputs=tuple(inputs), splits=splits))

    def _add(self, vertex: VertexSpec) -> "VertexHandle":
        self.vertices.append(vertex)
        return VertexHandle(vertex.name)


class VertexHandle:
    """A vertex that was added to a JobGraphBuilder, to be read by others: each method makes an input of it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def forward(self) -> InputSpec:
        """Subtask i is read by subtask i."""
        return InputSpec(source=self.name, partitioner=Partitioner.FORWARD)

    def by_hash(self) -> InputSpec:
        """Records of one key are read by one subtask."""
        return InputSpec(source=self.name, partitioner=Partitioner.HASH)

    def rebalanced(self) -> InputSpec:
        """Records are dealt out in turn."""
        return InputSpec(source=self.name, partitioner=Partitioner.REBALANCE)

    def broadcast(self) -> InputSpec:
        """Every subtask reads every record."""
        return InputSpec(source=self.name, partitioner=Partitioner.BROADCAST)


def _by_name(vertices: Iterable[VertexSpec]) -> dict[str, VertexSpec]:
    specs: dict[str, VertexSpec] = {}
    for vertex in vertices:
        if vertex.name in specs:
            raise InvalidJobGraph(f"vertex {vertex.name!r} is declared twice; names are unique in a job")
        specs[vertex.name] = vertex
    if not specs:
        raise InvalidJobGraph("a job has one vertex at least")
    for vertex in specs.values():
        for number, edge in enumerate(vertex.inputs):
            _check_edge(specs, vertex, number, edge)
    return specs


def _check_edge(specs: Mapping[str, VertexSpec], vertex: VertexSpec, number: int, edge: InputSpec) -> None:
    where = f"vertex {vertex.name!r}, inputs[{number}]"
    if edge.source not in specs:
        raise InvalidJobGraph(f"{where}: there is no vertex {edge.source!r}; there are {', '.join(sorted(specs))}")
    if edge.source in [other.source for other in vertex.inputs[:number]]:
        raise InvalidJobGraph(f"{where}: {edge.source!r} is an input already; a vertex reads another one once")
    source = specs[edge.source]
    if edge.partitioner is Partitioner.FORWARD and source.parallelism != vertex.parallelism:
        raise InvalidJobGraph(
            f"{where}: forward needs equal parallelism, and {edge.source!r} has {source.parallelism} where "
            f"{vertex.name!r} has {vertex.parallelism}; use rebalance"
        )


def _sorted(specs: Mapping[str, VertexSpec]) -> list[str]:
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for vertex in specs.values():
        sorter.add(vertex.name, *(edge.source for edge in vertex.inputs))
    try:
        return list(sorter.static_order())
    except CycleError as error:
        raise InvalidJobGraph(f"the inputs make a cycle: {' <- '.join(error.args[1])}") from None
