"""A job, and one operation of each kind with the bytes that it has in the log."""

from flinkjob.api.job import InputSpec, Partitioner, SplitsSpec, TaskSpec, VertexSpec
from flinkjob.graph import operations as ops
from flinkjob.graph.jobgraph import JobGraph
from flinkjob.graph.states import ExecutionState, JobStatus

T = 1_764_000_000_000
JOB_ID = "0123456789abcdef0123456789abcdef"


def vertex(
    name: str, parallelism: int = 1, *edges: tuple[str, Partitioner], splits: SplitsSpec | None = None
) -> VertexSpec:
    """A vertex that reads the named ones."""
    inputs = tuple(InputSpec(source=source, partitioner=partitioner) for source, partitioner in edges)
    task = TaskSpec(python="tasks:run", args={"lower": True})
    return VertexSpec(name=name, parallelism=parallelism, task=task, inputs=inputs, splits=splits)


def word_count() -> JobGraph:
    """Three vertices, declared against the stream."""
    return JobGraph.build(
        job_id=JOB_ID,
        name="word-count",
        vertices=[
            vertex("report", 1, ("count", Partitioner.REBALANCE)),
            vertex("count", 3, ("tokenize", Partitioner.HASH)),
            vertex("tokenize", 4, splits=SplitsSpec(files=("/data/*.txt",), max_split_size=64 << 10)),
        ],
    )


GOLDEN: tuple[tuple[ops.Operation, str], ...] = (
    (ops.EpochStarted(3, "jm-0", T), "940103a46a6d2d30cf0000019ab697e800"),
    (ops.JobStatusChanged(JobStatus.FAILING, T, "why"), "940205cf0000019ab697e800a3776879"),
    (
        ops.TaskManagerRegistered("tm-0", "host:1", 4, T),
        "9503a4746d2d30a6686f73743a3104cf0000019ab697e800",
    ),
    (ops.TaskManagerRemoved(2, "gone", T), "940402a4676f6e65cf0000019ab697e800"),
    (
        ops.SplitsCreated(0, (ops.InputSplit("/a", 5, 7, {"k": [1, None]}),)),
        "9305009194a22f61050781a16b9201c0",
    ),
    (ops.SplitsAssigned(1, 2, 3, 4), "950601020304"),
    (ops.TaskDeploying(1, 2, 3, 4, T), "960701020304cf0000019ab697e800"),
    (ops.TaskStateChanged(1, 2, 3, ExecutionState.RUNNING, T), "960801020302cf0000019ab697e800"),
    (
        ops.TaskFinished(1, 2, 3, T, ops.ResultPartition(9, 8, 7), {"n": 1, "x": 0.5}),
        "9709010203cf0000019ab697e8009309080782a16e01a178cb3fe0000000000000",
    ),
    (ops.TaskFailed(1, 2, 3, T, "why"), "960a010203cf0000019ab697e800a3776879"),
    (
        ops.RestartScheduled(((1, 2), (3, 4)), T + 1000, "why", ops.RestartState(1, 2, 3, (4, 5), 6), T),
        "960b92920102920304cf0000019ab697ebe8a37768799501020392040506cf0000019ab697e800",
    ),
    (ops.TasksReset(1, (2, 3), T), "940c01920203cf0000019ab697e800"),
    (
        ops.FailoverCompleted(
            2, "jm-1", "killed", T, 17, 0.5, 1.5, T + 2, {"continued": 3}, (ops.RestartedTask(1, 2, "why"),)
        ),
        "9c0d02a46a6d2d31a66b696c6c6564cf0000019ab697e80011cb3fe0000000000000cb3ff8000000000000"
        "cf0000019ab697e80281a9636f6e74696e7565640391930102a377687900",
    ),
)
