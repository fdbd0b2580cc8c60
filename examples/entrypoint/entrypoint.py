"""Estimates pi by random points in many shards, and merges the shards two by two in a tree of vertices."""

import random

from flinkjob import JobGraphBuilder, TaskContext


def build(args: dict[str, int]) -> JobGraphBuilder:
    """A vertex of ``shards`` subtasks, then one of half the size, and so on until one subtask is left."""
    graph = JobGraphBuilder()
    width = args["shards"]
    level = graph.python("sample", "entrypoint:sample", args={"samples": args["samples"]}, parallelism=width)
    while width > 1:
        width = (width + 1) // 2
        level = graph.python(f"merge-{width}", "entrypoint:merge", parallelism=width, inputs=[level.by_hash()])
    graph.python("pi", "entrypoint:pi", inputs=[level.forward()])
    return graph


def sample(context: TaskContext) -> None:
    """How many of this shard's points lie in the circle. The seed makes each attempt throw the same points."""
    points = random.Random(context.subtask)
    samples = context.args["samples"]
    inside = sum(points.random() ** 2 + points.random() ** 2 < 1 for _ in range(samples))
    context.emit((inside, samples), key=context.subtask)


def merge(context: TaskContext) -> None:
    """Add up what was hashed to this subtask, which may be nothing."""
    counts = list(context.read())
    context.emit((sum(inside for inside, _ in counts), sum(samples for _, samples in counts)), key=context.subtask)


def pi(context: TaskContext) -> None:
    """The estimate."""
    ((inside, samples),) = context.read()
    context.emit({"pi": round(4 * inside / samples, 6), "points": samples})
