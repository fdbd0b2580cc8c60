"""Small jobs for the tests: a few words make a JobGraph."""

from collections.abc import Mapping

from flinkjob.api.job import InputSpec, Partitioner, SplitsSpec, TaskSpec, VertexSpec
from flinkjob.graph.jobgraph import JobGraph

FORWARD, HASH, REBALANCE, BROADCAST = Partitioner

_TASK = TaskSpec(python="tasks:run")
_SPLITS = SplitsSpec(python="tasks:enumerate_splits")


def vertex(
    name: str, parallelism: int = 1, *, reads: Mapping[str, Partitioner] | None = None, splits: bool = False
) -> VertexSpec:
    """A vertex that reads the named ones."""
    inputs = tuple(InputSpec(source=source, partitioner=partitioner) for source, partitioner in (reads or {}).items())
    return VertexSpec(name=name, parallelism=parallelism, task=_TASK, inputs=inputs, splits=_SPLITS if splits else None)


def job(*vertices: VertexSpec) -> JobGraph:
    """The JobGraph of these vertices."""
    return JobGraph.build(job_id="0123456789abcdef0123456789abcdef", name="job", vertices=vertices)


def word_count(sources: int = 2, counters: int = 2) -> JobGraph:
    """Three vertices: a source with splits, a hash exchange, one that gathers."""
    return job(
        vertex("tokenize", sources, splits=True),
        vertex("count", counters, reads={"tokenize": HASH}),
        vertex("report", reads={"count": REBALANCE}),
    )


def diamond(parallelism: int = 2) -> JobGraph:
    """One source, read by two vertices in two ways, and one that joins those."""
    return job(
        vertex("source", parallelism, splits=True),
        vertex("left", parallelism, reads={"source": FORWARD}),
        vertex("right", 2, reads={"source": BROADCAST}),
        vertex("join", parallelism, reads={"left": FORWARD, "right": HASH}),
    )


def chain(parallelism: int = 2) -> JobGraph:
    """Forward edges only: each subtask has a line of its own."""
    return job(
        vertex("a", parallelism),
        vertex("b", parallelism, reads={"a": FORWARD}),
        vertex("c", parallelism, reads={"b": FORWARD}),
    )


def pair(producers: int = 1, consumers: int = 1) -> JobGraph:
    """A producer and a consumer that reads all of it."""
    return job(vertex("producer", producers), vertex("consumer", consumers, reads={"producer": REBALANCE}))


SHAPES = (word_count, diamond, chain, pair)
