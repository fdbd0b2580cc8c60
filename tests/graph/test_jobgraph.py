"""Building a JobGraph: order, edges, and what is refused with which words."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flinkjob.api.errors import InvalidJobGraph
from flinkjob.api.job import InputSpec, Partitioner, SplitsSpec, VertexSpec
from flinkjob.graph.jobgraph import JobGraph, JobGraphBuilder, OutputEdge

from .samples import JOB_ID, vertex, word_count

FORWARD, HASH, REBALANCE, BROADCAST = Partitioner


def build(*vertices: VertexSpec) -> JobGraph:
    """A job of these vertices."""
    return JobGraph.build(job_id=JOB_ID, name="job", vertices=vertices)


@pytest.mark.parametrize(
    ("vertices", "message"),
    [
        ([], "a job has one vertex at least"),
        ([vertex("a"), vertex("b"), vertex("a")], "vertex 'a' is declared twice; names are unique in a job"),
        (
            [vertex("a"), vertex("b", 1, ("a", HASH), ("x", HASH))],
            "vertex 'b', inputs[1]: there is no vertex 'x'; there are a, b",
        ),
        (
            [vertex("a"), vertex("b", 1, ("a", HASH), ("a", BROADCAST))],
            "vertex 'b', inputs[1]: 'a' is an input already; a vertex reads another one once",
        ),
        (
            [vertex("a", 2), vertex("b", 3, ("a", FORWARD))],
            "vertex 'b', inputs[0]: forward needs equal parallelism, and 'a' has 2 where 'b' has 3; use rebalance",
        ),
        ([vertex("a", 1, ("a", HASH))], "the inputs make a cycle: a <- a"),
    ],
    ids=["empty", "twice", "unknown", "read-twice", "forward", "self"],
)
def test_a_graph_that_cannot_run_is_refused_with_vertex_and_input(vertices: list[VertexSpec], message: str) -> None:
    with pytest.raises(InvalidJobGraph, match=re.escape(message)):
        build(*vertices)


def test_a_cycle_is_named_with_its_vertices() -> None:
    ring = [vertex("a", 1, ("c", HASH)), vertex("b", 1, ("a", HASH)), vertex("c", 1, ("b", HASH)), vertex("d")]
    with pytest.raises(InvalidJobGraph, match="cycle") as refused:
        build(*ring)
    around = str(refused.value).removeprefix("the inputs make a cycle: ").split(" <- ")
    assert around[0] == around[-1]
    assert set(around) == {"a", "b", "c"}


def test_vertices_stand_behind_all_that_they_read() -> None:
    graph = word_count()
    assert [vertex.name for vertex in graph.vertices] == ["tokenize", "count", "report"]
    assert [vertex.index for vertex in graph.vertices] == [0, 1, 2]
    assert [vertex.outputs for vertex in graph.vertices] == [((1, 0),), ((2, 0),), ()]
    assert [edge.source for vertex in graph.vertices for edge in vertex.inputs] == [0, 1]
    assert graph.total_tasks == 8


@st.composite
def acyclic(draw: st.DrawFn) -> list[VertexSpec]:
    """Vertices that read only earlier ones, declared in any order."""
    names = [f"v{number}" for number in range(draw(st.integers(1, 8)))]
    vertices = []
    for number, name in enumerate(names):
        sources = draw(st.lists(st.sampled_from(names[:number]), unique=True)) if number else []
        edges = [(source, draw(st.sampled_from([HASH, REBALANCE, BROADCAST]))) for source in sources]
        vertices.append(vertex(name, draw(st.integers(1, 5)), *edges))
    return draw(st.permutations(vertices))


@given(acyclic())
def test_every_acyclic_graph_is_put_in_order_with_its_edges_on_both_ends(vertices: list[VertexSpec]) -> None:
    graph = build(*vertices)
    specs = {spec.name: spec for spec in vertices}
    assert {v.name for v in graph.vertices} == set(specs)
    for v in graph.vertices:
        assert all(edge.source < v.index for edge in v.inputs)
        assert [graph.vertices[edge.source].name for edge in v.inputs] == [e.source for e in specs[v.name].inputs]
        for number, edge in enumerate(v.inputs):
            assert (v.index, number) in graph.vertices[edge.source].outputs
    assert sum(len(v.inputs) for v in graph.vertices) == sum(len(v.outputs) for v in graph.vertices)


@given(acyclic())
def test_a_graph_survives_its_bytes(vertices: list[VertexSpec]) -> None:
    graph = build(*vertices)
    assert JobGraph.decode(graph.encode()) == graph


def test_identifiers_are_made_of_names_so_they_are_the_same_in_every_build() -> None:
    ids = [vertex.id for vertex in word_count().vertices]
    assert ids == [
        "77e9ef3680c5518785ef0121d3884c3d",
        "e2942a04780e223b215eb8b663cf5353",
        "e98d2f001da5678b39482efbdf5770dc",
    ]
    assert build(vertex("count")).vertices[0].id == ids[1]


def test_output_edges_lie_one_behind_the_other() -> None:
    graph = build(
        vertex("p", 2),
        vertex("f", 2, ("p", FORWARD)),
        vertex("h", 3, ("p", HASH)),
        vertex("b", 4, ("p", BROADCAST)),
        vertex("r", 5, ("p", REBALANCE)),
    )
    place = {v.name: v.index for v in graph.vertices}
    edges = graph.output_edges(place["p"])
    expected = {"f": (FORWARD, 1), "h": (HASH, 3), "b": (BROADCAST, 1), "r": (REBALANCE, 5)}
    assert {edge.consumer: (edge.partitioner, edge.count) for edge in edges} == {
        place[name]: kind for name, kind in expected.items()
    }
    assert [edge.first for edge in edges] == [sum(e.count for e in edges[:number]) for number in range(4)]


def test_a_vertex_that_nobody_reads_has_one_edge_to_the_result() -> None:
    assert build(vertex("a", 3)).output_edges(0) == (OutputEdge(-1, REBALANCE, 0, 1),)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x90", b"\xa2\xff\xff", msgspec.msgpack.encode([1, 2]), b"\x92\x01"])
def test_bytes_that_are_no_graph_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidJobGraph, match="the stored JobGraph cannot be read"):
        JobGraph.decode(data)


def test_a_stored_graph_whose_text_is_damaged_is_refused() -> None:
    data = word_count().encode().replace(b"tasks:run", b"tasks run")
    with pytest.raises(InvalidJobGraph, match=r"the stored JobGraph cannot be read: .*module:function"):
        JobGraph.decode(data)


def test_another_format_version_is_refused_and_named() -> None:
    data = msgspec.msgpack.encode((2, word_count()))
    with pytest.raises(InvalidJobGraph, match="has format version 2; this program reads 1"):
        JobGraph.decode(data)


@given(st.data())
def test_damaged_bytes_are_refused_or_a_graph(data: st.DataObject) -> None:
    stored = bytearray(word_count().encode())
    for _ in range(data.draw(st.integers(1, 3))):
        stored[data.draw(st.integers(0, len(stored) - 1))] = data.draw(st.integers(0, 255))
    try:
        graph = JobGraph.decode(bytes(stored))
    except InvalidJobGraph:
        return
    for index, job_vertex in enumerate(graph.vertices):
        assert all(graph.vertices[edge.source].index < index for edge in job_vertex.inputs)
        assert all(edge.count > 0 for edge in graph.output_edges(index))


@pytest.mark.parametrize(
    ("number", "changes", "message"),
    [
        (1, {"index": 2}, r"damaged at vertices\[1\], 'count'"),
        (1, {"parallelism": 0}, r"damaged at vertices\[1\], 'count'"),
        (1, {"inputs": ()}, "do not fit together"),
        (1, {"outputs": ((2, 1),)}, "do not fit together"),
        (1, {"outputs": ((7, 0),)}, "do not fit together"),
    ],
)
def test_a_stored_graph_whose_indexes_lead_nowhere_is_refused(
    number: int, changes: dict[str, object], message: str
) -> None:
    graph = word_count()
    vertices = list(graph.vertices)
    vertices[number] = msgspec.structs.replace(vertices[number], **changes)
    with pytest.raises(InvalidJobGraph, match=message):
        JobGraph.decode(msgspec.structs.replace(graph, vertices=tuple(vertices)).encode())


@pytest.mark.parametrize("source", [1, 2, -1, 99])
def test_a_stored_edge_that_does_not_lead_upwards_is_refused(source: int) -> None:
    graph = word_count()
    vertices = list(graph.vertices)
    edge = msgspec.structs.replace(vertices[1].inputs[0], source=source)
    vertices[1] = msgspec.structs.replace(vertices[1], inputs=(edge,))
    with pytest.raises(InvalidJobGraph, match=r"damaged at vertices\[1\], 'count'"):
        JobGraph.decode(msgspec.structs.replace(graph, vertices=tuple(vertices)).encode())


def test_a_stored_graph_without_vertices_is_refused() -> None:
    with pytest.raises(InvalidJobGraph, match="do not fit together"):
        JobGraph.decode(JobGraph(JOB_ID, "job", ()).encode())


def test_the_builder_makes_the_same_graph_as_a_declaration() -> None:
    builder = JobGraphBuilder()
    splits = SplitsSpec(files=("/data/*.txt",), max_split_size=64 << 10)
    args = {"lower": True}
    words = builder.python("tokenize", "tasks:run", args=args, parallelism=4, splits=splits)
    counts = builder.python("count", "tasks:run", args=args, parallelism=3, inputs=[words.by_hash()])
    builder.python("report", "tasks:run", args=args, inputs=[counts.rebalanced()])
    assert JobGraph.build(job_id=JOB_ID, name="word-count", vertices=builder.vertices) == word_count()


def test_the_builders_handles_make_each_kind_of_input() -> None:
    builder = JobGraphBuilder()
    handle = builder.command("sort", ["sort", "-r"], env={"LC_ALL": "C"})
    (spec,) = builder.vertices
    assert (spec.task.command, spec.task.env) == (("sort", "-r"), {"LC_ALL": "C"})
    made = [handle.forward(), handle.by_hash(), handle.rebalanced(), handle.broadcast()]
    assert made == [InputSpec(source="sort", partitioner=partitioner) for partitioner in Partitioner]
