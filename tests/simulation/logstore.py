"""The store of the log: a Medium in memory that can fail, tear and forget; and the truth about what was acknowledged.

The blocks in it are real ones, and what reads them is the real replay. The store knows which bytes were synced, so that the
death of a machine can take the others away.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from io import BytesIO
from typing import BinaryIO, cast

from flinkjob.api.errors import Deposed
from flinkjob.graph import operations as ops
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.graph.jobgraph import JobGraph
from flinkjob.graph.states import ExecutionState
from flinkjob.oplog.medium import Appender, Segment
from flinkjob.worker.protocol import AttemptId


@dataclass(slots=True)
class Trouble:
    """What is wrong with the store at the moment, for all who use it.

    Attributes:
        failing: every call raises OSError. hiccup: the call after so many others does, once (0: none).
        slowness: the longest that a call takes beside what a step takes anyway, milliseconds.
        hangs_until: calls made before that moment are answered then (0: none hangs). swallows: appends are not even then.
        lagging: a machine that has listed a directory before, and has not changed it since, sees the old listing.
    """

    failing: bool = False
    hiccup: int = 0
    slowness: int = 0
    hangs_until: int = 0
    swallows: bool = False
    lagging: bool = False

    def end(self) -> None:
        """All is well again."""
        self.failing = self.swallows = self.lagging = False
        self.hiccup = self.slowness = self.hangs_until = 0


class LogStore:
    """See Medium: the store, as it is seen from one machine.

    Attributes:
        trouble: what is wrong with it. fenced_at: when each epoch was first deposed, by ``clock``.
    """

    location = "memory"

    def __init__(self, clock: Callable[[], int]) -> None:
        self.trouble = Trouble()
        self.fenced_at: dict[int, int] = {}
        self._clock = clock
        self._files: dict[Segment, bytearray] = {}
        self._synced: dict[Segment, int] = {}
        self._fences: dict[int, bytes] = {}
        self._snapshots: dict[int, bytes] = {}
        self._listed: dict[str, list[Segment] | list[int]] = {}

    def seen_elsewhere(self) -> "LogStore":
        """The same store from another machine, which keeps listings of its own, as NFS clients do; the first are empty."""
        other = copy(self)
        other._listed = {"oplog": [], "snapshots": []}
        return other

    def _works(self) -> None:
        trouble = self.trouble
        if trouble.hiccup:
            trouble.hiccup -= 1
        if trouble.failing or trouble.hiccup == 1:
            raise OSError("the store is out of order")

    # Claiming

    def claim(self) -> int:
        """See Medium."""
        self._works()
        epoch = max([segment.epoch for segment in self.segments()], default=0) + 1
        while True:
            try:
                self.create(Segment(epoch, 0))
            except FileExistsError:
                epoch += 1
                continue
            return epoch

    def fence(self, epoch: int, leader: str) -> None:
        """See Medium."""
        self._works()
        for other in range(1, epoch):
            self._fences[other] = self._fences.get(other, b"") + f"{epoch} {leader}\n".encode()
            self.fenced_at.setdefault(other, self._clock())
        self._fences.setdefault(epoch, b"")
        # Both directories are changed here, so that they are listed anew before they are read.
        self._listed.clear()

    def check_fence(self, epoch: int) -> None:
        """See Medium."""
        self._works()
        if self._fences.get(epoch) != b"":
            raise Deposed(f"epoch {epoch} is over")

    # Segments

    def create(self, segment: Segment) -> None:
        """Make a segment that is not there yet."""
        self._works()
        if segment in self._files or (not segment.number and segment.epoch in self._fences):
            raise FileExistsError(self.describe(segment))
        self._files[segment], self._synced[segment] = bytearray(), 0
        self._listed.pop("oplog", None)

    def write(self, segment: Segment, data: bytes) -> None:
        """Append bytes, which everybody can read from now on, but a machine's death may take away."""
        # A file that was removed takes what is written by one who has it open.
        if segment in self._files:
            self._files[segment] += data

    def sync(self, segment: Segment) -> None:
        """Make the segment's bytes durable."""
        self._works()
        self._synced[segment] = len(self._files.get(segment, b""))

    def tamper(self, pick: int, change: Callable[[bytes], bytes]) -> None:
        """Change the bytes of one of the files."""
        segments, lsns = list(self._files), list(self._snapshots)
        pick %= len(segments) + len(lsns)
        if pick < len(segments):
            self._files[segments[pick]] = bytearray(change(bytes(self._files[segments[pick]])))
        else:
            lsn = lsns[pick - len(segments)]
            self._snapshots[lsn] = change(self._snapshots[lsn])

    def forget(self, epoch: int, keep: float) -> None:
        """A machine dies: of what its leader wrote and did not sync only a part is left, where nobody has come after it."""
        if max((segment.epoch for segment in self._files), default=0) == epoch:
            for segment, data in self._files.items():
                if segment.epoch == epoch:
                    synced = self._synced.get(segment, 0)
                    del data[synced + int(keep * (len(data) - synced)) :]

    def segments(self) -> list[Segment]:
        """See Medium."""
        self._works()
        if not self.trouble.lagging or "oplog" not in self._listed:
            self._listed["oplog"] = sorted(self._files)
        return list(cast(list[Segment], self._listed["oplog"]))

    def describe(self, segment: Segment) -> str:
        """See Medium."""
        return f"{segment.epoch}.{segment.number}"

    def open_segment(self, segment: Segment) -> BinaryIO:
        """See Medium."""
        self._works()
        if segment not in self._files:
            raise FileNotFoundError(self.describe(segment))
        return BytesIO(self._files[segment])

    def settle(self, epoch: int) -> None:
        """See Medium."""
        self._works()
        for segment in self._files:
            if segment.epoch < epoch:
                self.sync(segment)

    def remove_segment(self, segment: Segment) -> None:
        """See Medium."""
        self._works()
        self._files.pop(segment, None)
        self._listed.pop("oplog", None)

    def appender(self, epoch: int) -> Appender:
        """Steps that can be told apart are what this store is for."""
        raise NotImplementedError

    # Snapshots

    def snapshots(self) -> list[int]:
        """See Medium."""
        self._works()
        if not self.trouble.lagging or "snapshots" not in self._listed:
            self._listed["snapshots"] = sorted(self._snapshots)
        return list(cast(list[int], self._listed["snapshots"]))

    def describe_snapshot(self, lsn: int) -> str:
        """See Medium."""
        return f"snapshot {lsn}"

    def read_snapshot(self, lsn: int) -> bytes:
        """See Medium."""
        self._works()
        if lsn not in self._snapshots:
            raise FileNotFoundError(lsn)
        return self._snapshots[lsn]

    def put_snapshot(self, lsn: int, file: bytes) -> None:
        """See Medium."""
        self._works()
        self._snapshots[lsn] = file
        self._listed.pop("snapshots", None)

    def remove_snapshot(self, lsn: int) -> None:
        """See Medium."""
        self._works()
        self._snapshots.pop(lsn, None)
        self._listed.pop("snapshots", None)

    def set_aside(self, epoch: int) -> str:
        """Damage does not happen here."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A block that somebody has written: it continues another one."""

    parent: "Node | None"
    epoch: int
    lsn: int
    operations: tuple[ops.Operation, ...] = ()


@dataclass(slots=True)
class Truth:
    """What has been acknowledged to anybody, in the one history that there may be.

    Attributes:
        node: the last block that was acknowledged.
        graph: the fold of all that was.
        blocks: all that were ever written, by (epoch, last LSN).
        deployed: which TaskManager each attempt was given to.
        running: the attempts that run.
    """

    graph: ExecutionGraph
    node: Node = field(default_factory=lambda: Node(None, 0, 0))
    blocks: dict[tuple[int, int], Node] = field(default_factory=dict)
    deployed: dict[AttemptId, str] = field(default_factory=dict)
    running: set[AttemptId] = field(default_factory=set)

    def descends(self, node: Node, ancestor: Node) -> bool:
        """Whether a block belongs to the history that ends with ``node``."""
        walk: Node | None = node
        while walk is not None and walk.lsn >= ancestor.lsn:
            if walk is ancestor:
                return True
            walk = walk.parent
        return False

    def acknowledge(self, node: Node) -> None:
        """Somebody has been told that the block is durable."""
        path: list[Node] = []
        walk: Node | None = node
        while walk is not None and walk is not self.node:
            path.append(walk)
            walk = walk.parent
        for block in reversed(path):
            for operation in block.operations:
                self.graph.apply(operation)
                self._index(operation)
        self.node = node

    def _index(self, op: ops.Operation) -> None:
        if isinstance(op, ops.TaskStateChanged) and op.state is ExecutionState.RUNNING:
            self.running.add(AttemptId(self.graph.run, op.vertex, op.subtask, op.attempt))
        elif isinstance(op, ops.TaskStateChanged | ops.TaskFinished | ops.TaskFailed):
            self.running.discard(AttemptId(self.graph.run, op.vertex, op.subtask, op.attempt))
        elif isinstance(op, ops.TaskDeploying):
            taskmanager = self.graph.taskmanagers[op.taskmanager].id
            self.deployed[AttemptId(self.graph.run, op.vertex, op.subtask, op.attempt)] = taskmanager

    def active(self, attempt: AttemptId, *states: ExecutionState) -> bool:
        """Whether the attempt is its subtask's present one and in one of the states."""
        if attempt.run != self.graph.run or attempt.vertex >= len(self.graph.vertices):
            return False
        vertex = self.graph.vertices[attempt.vertex]
        return vertex.attempt[attempt.subtask] == attempt.attempt and vertex.state[attempt.subtask] in states


def history(node: Node) -> list[ops.Operation]:
    """All operations from the first one to the end of the block."""
    blocks: list[Node] = []
    walk: Node | None = node
    while walk is not None:
        blocks.append(walk)
        walk = walk.parent
    return [operation for block in reversed(blocks) for operation in block.operations]


def fold(job_graph: JobGraph, node: Node) -> ExecutionGraph:
    """The graph that a history leads to."""
    graph = ExecutionGraph(job_graph)
    graph.apply_all(history(node))
    return graph
