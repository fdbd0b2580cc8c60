"""Real logs, frames and manifests, changed in any way: what cannot be read is refused, and what can be read does no harm.

The logs and the conversations are those of a simulated cluster that has been through several leaders.
"""

import contextlib
from collections.abc import Iterable
from copy import deepcopy
from functools import cache
from pathlib import Path

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given, settings

from flinkjob.api.errors import FlinkJobError, InvalidInput, ProtocolViolation
from flinkjob.api.flinkjob import parse_manifest
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.operations import decode_operations, encode_operations
from flinkjob.jobmaster import events as ev
from flinkjob.jobmaster.master import JobMaster
from flinkjob.oplog.replay import Replay
from flinkjob.rpc import codec
from flinkjob.worker import events as wev
from flinkjob.worker import protocol as msg
from flinkjob.worker.taskexecutor import TaskExecutor

from .cluster import Cluster
from .faults import plan
from .logstore import fold, history
from .network import End, Network

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
MANIFESTS = sorted(path.read_bytes() for path in EXAMPLES.glob("*/*.yaml") if path.stem == path.parent.name)

Edit = tuple[float, float, bytes]
"""From where to where (parts of the whole) the bytes are replaced by these."""

EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from([0.0, 1e-9, 0.01, 0.1, 0.5]), st.binary(max_size=4)),
    min_size=1,
    max_size=3,
)


def edited(data: bytes, edits: Iterable[Edit]) -> bytes:
    """Something is cut out, put in, replaced; an edit that puts in nothing repeats what is there before."""
    for place, length, new in edits:
        start = int(place * len(data))
        end = start + -int(-length * len(data) // 1)
        data = data[:start] + (new or data[max(0, start - 8) : start]) + data[end:]
    return data


@cache
def stormy() -> Cluster:
    """A run of which the log has several epochs, and snapshots."""
    for seed in range(1000):
        cluster = Cluster(seed, plan(seed))
        cluster.run()
        if cluster.graph.epoch > 3 and len(cluster.store.snapshots()) > 1 and len(cluster.store.segments()) > 3:
            return cluster
    raise AssertionError("no such seed")


@cache
def conversation() -> tuple[list[msg.FromTaskManager], list[msg.FromJobManager]]:
    """All that TaskManagers and JobManagers say to each other in a run."""
    ups: list[msg.FromTaskManager] = []
    downs: list[msg.FromJobManager] = []
    transmit = Network.transmit

    def listen(network: Network, end: End, message: object) -> None:
        if isinstance(message, msg.FromTaskManager):
            ups.append(message)
        elif isinstance(message, msg.FromJobManager):
            downs.append(message)
        transmit(network, end, message)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Network, "transmit", listen)
        Cluster(stormy().seed, plan(stormy().seed)).run()
    return ups, downs


# Logs


@settings(max_examples=400)
@given(pick=st.integers(0, 99), edits=EDITS)
def test_a_changed_log_is_refused_or_gives_a_graph_that_once_was(pick: int, edits: list[Edit]) -> None:
    cluster = stormy()
    store = deepcopy(cluster.store)
    store.tamper(pick, lambda data: edited(data, edits))
    replay = Replay.newest(store)
    graph = ExecutionGraph(cluster.job_graph)
    try:
        if replay.snapshot:
            graph = ExecutionGraph.restore(cluster.job_graph, replay.snapshot)
        for operations in replay:
            graph.apply_all(operations)
    except FlinkJobError:
        return
    assert replay.end is not None
    node = cluster.truth.blocks.get((replay.end.epoch, replay.end.lsn))
    assert node is not None or not replay.end.lsn, "the log ends where it never ended"
    assert graph.snapshot() == fold(cluster.job_graph, node or cluster.beginning).snapshot()


def test_the_unchanged_log_gives_the_whole_graph() -> None:
    cluster = stormy()
    replay = Replay.newest(cluster.store)
    assert replay.snapshot is not None
    graph = ExecutionGraph.restore(cluster.job_graph, replay.snapshot)
    for operations in replay:
        graph.apply_all(operations)
    assert graph.lsn >= cluster.graph.lsn > 30


@settings(max_examples=300)
@given(cut=st.floats(0, 1), edits=EDITS)
def test_changed_operations_apply_or_are_refused_and_leave_the_graph_as_it_was(cut: float, edits: list[Edit]) -> None:
    cluster = stormy()
    operations = history(cluster.truth.node)
    position = int(cut * (len(operations) - 5))
    graph = ExecutionGraph(cluster.job_graph)
    graph.apply_all(operations[:position])
    try:
        changed = decode_operations(edited(encode_operations(operations[position : position + 5]), edits))
    except msgspec.DecodeError:
        return
    for operation in changed:
        before = graph.snapshot()
        try:
            graph.apply(operation)
        except FlinkJobError:
            assert graph.snapshot() == before
        ExecutionGraph.restore(cluster.job_graph, graph.snapshot())


@settings(max_examples=300)
@given(edits=EDITS)
def test_a_changed_snapshot_of_the_graph_is_refused_or_a_graph(edits: list[Edit]) -> None:
    cluster = stormy()
    with contextlib.suppress(FlinkJobError):
        graph = ExecutionGraph.restore(cluster.job_graph, edited(cluster.graph.snapshot(), edits))
        assert sum(sum(vertex.counts) for vertex in graph.vertices) == graph.total_tasks


# Conversations


def _events(id: str, message: msg.FromTaskManager) -> ev.Event | None:
    if isinstance(message, msg.Register):
        return ev.TaskManagerConnected(id, message.address, message.slots, message.reports)
    if isinstance(message, msg.Reports):
        return ev.TasksReported(id, message.reports)
    if isinstance(message, msg.SplitRequest):
        return ev.SplitRequested(id, message.attempt, message.index)
    return None


@settings(max_examples=400)
@given(cut=st.floats(0, 1), pick=st.integers(0, 10_000), edits=EDITS)
def test_whatever_a_taskmanager_says_the_leader_goes_on(cut: float, pick: int, edits: list[Edit]) -> None:
    cluster = stormy()
    operations = history(cluster.truth.node)
    graph = ExecutionGraph(cluster.job_graph)
    shadow = ExecutionGraph(cluster.job_graph)
    for each in (graph, shadow):
        each.apply_all(operations[: int(cut * len(operations))])
    master = JobMaster(graph, cluster.options)
    now = cluster.epoch_of_time + 100_000
    decided = master.start(epoch=graph.epoch + 1, leader="jm", now=now).operations
    ups, _ = conversation()
    start = pick % len(ups)
    frame = codec.frame([codec.encode_message(message) for message in ups[start : start + 3]])
    taskmanagers = [info.id for info in graph.taskmanagers if not info.removed] or ["tm-1"]
    id = taskmanagers[pick % len(taskmanagers)]
    with contextlib.suppress(ProtocolViolation):
        for message in codec.decode_from_taskmanager(edited(frame, edits)):
            if (event := _events(id, message)) is not None:
                decided += master.handle(event, now).operations
    shadow.apply_all(decode_operations(encode_operations(decided)))
    assert graph.snapshot() == shadow.snapshot(), "what was decided is not what became of the graph"
    joined = master.handle(ev.TaskManagerConnected("tm-new", "", 2, ()), now)
    assert "tm-new" in graph.taskmanager_index or isinstance(joined.effects[-1], ev.Send), "nobody can join any more"


@settings(max_examples=400)
@given(pick=st.integers(0, 10_000), edits=EDITS)
def test_whatever_a_leader_says_a_taskmanager_goes_on(pick: int, edits: list[Edit]) -> None:
    executor = TaskExecutor(id="tm-1", job="", address="", slots=2, now=0)
    _, downs = conversation()
    begin = next(index for index, message in enumerate(downs) if isinstance(message, msg.Registered))
    start = pick % len(downs)
    frame = codec.frame([codec.encode_message(message) for message in downs[start : start + 6]])
    try:
        changed = codec.decode_from_jobmanager(edited(frame, edits))
    except ProtocolViolation:
        return
    executor.handle(wev.Connected(), now=1)
    executor.handle(downs[begin], now=2)
    for message in changed:
        executor.handle(message, now=3)
    busy = [attempt for attempt in executor.slots if attempt is not None]
    assert len(busy) == len(set(busy)) <= 2


# Manifests


@settings(max_examples=400)
@given(manifest=st.sampled_from(MANIFESTS), edits=EDITS)
def test_a_changed_manifest_is_a_job_or_is_refused(manifest: bytes, edits: list[Edit]) -> None:
    text = edited(manifest, edits).decode(errors="replace")
    with contextlib.suppress(InvalidInput):
        parse_manifest(text, source="job.yaml")


def test_there_are_manifests_to_be_changed() -> None:
    assert len(MANIFESTS) >= 6
    for manifest in MANIFESTS:
        parse_manifest(manifest.decode(), source="job.yaml")
