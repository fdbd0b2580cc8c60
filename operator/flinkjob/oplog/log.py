"""The operation log as a leader uses it: claim an epoch, replay what the predecessors left, go on writing.

::

    log = OperationLog.open(storage, "jobmanager-1")
    replay = log.replay()
    graph = ExecutionGraph.restore(job_graph, replay.snapshot) if replay.snapshot else ExecutionGraph(job_graph)
    for operations in replay:
        graph.apply_all(operations)
    writer = log.writer(on_durable=…, on_failed=…)

A new leader acts on nothing, not on what it has replayed either, before its own first operation is durable: until then
another successor might continue the log from an earlier point.
"""

import time
from collections.abc import Callable
from threading import Event

from flinkjob.api.errors import Deposed, LogUnavailable, StorageError
from flinkjob.oplog.medium import Medium
from flinkjob.oplog.replay import Replay
from flinkjob.oplog.storage import JobStorage
from flinkjob.oplog.writer import LogWriter


class OperationLog:
    """One leader's hold on a job's log.

    Attributes:
        epoch: the leader's term; higher than any before.
    """

    def __init__(self, medium: Medium, epoch: int) -> None:
        self._medium = medium
        self._replay: Replay | None = None
        self.epoch = epoch

    @classmethod
    def open(cls, log: JobStorage | Medium, leader: str) -> "OperationLog":
        """Claim the next epoch and depose all earlier leaders.

        Args:
            leader: one's own name; a deposed leader is told of it.

        Raises:
            UnsupportedStorage: no log can be kept at that URL.
            LogUnavailable: the store fails.
            Deposed: yet another leader has claimed a newer epoch meanwhile.
        """
        medium = log.medium() if isinstance(log, JobStorage) else log
        try:
            epoch = medium.claim()
            medium.fence(epoch, leader)
            newest = max((segment.epoch for segment in medium.segments()), default=0)
        except OSError as error:
            raise LogUnavailable(f"the operation log at {medium.location} cannot be opened: {error}") from error
        if newest > epoch:
            raise Deposed(f"epoch {epoch} is over: a newer leader claimed epoch {newest} of {medium.location}")
        return cls(medium, epoch)

    def replay(self) -> Replay:
        """What the earlier epochs left. Iterate over it to its end before asking for the writer.

        Raises:
            LogUnavailable: the store cannot be read.
            Deposed: a newer leader has taken a snapshot meanwhile.
        """
        self._replay = Replay.newest(self._medium, below_epoch=self.epoch, check_fence=self._check_fence)
        return self._replay

    def writer(
        self,
        *,
        on_durable: Callable[[int], None],
        on_failed: Callable[[StorageError], None],
        flush_interval: float = 0.0,
        retry_deadline: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[Event, float], bool] = Event.wait,
    ) -> LogWriter:
        """Go on where the replay ended; the arguments are LogWriter's. To be called once, within a running loop.

        Raises:
            RuntimeError: the replay is not over.
            LogUnavailable: what was replayed cannot be made durable.
        """
        if self._replay is None or self._replay.end is None:
            raise RuntimeError("the log has not been replayed to its end")
        try:
            self._medium.settle(self.epoch)
        except OSError as error:
            raise LogUnavailable(f"the operation log at {self._medium.location} cannot be synced: {error}") from error
        return LogWriter(
            self._medium,
            self.epoch,
            self._replay.end,
            on_durable=on_durable,
            on_failed=on_failed,
            flush_interval=flush_interval,
            retry_deadline=retry_deadline,
            clock=clock,
            wait=wait,
        )

    def set_aside(self) -> str:
        """Put a damaged log out of the way, so that the job begins anew, and return where it is now. Nothing is deleted.

        The epoch stays one's own, and so do the fences: earlier leaders remain deposed. ``replay`` is empty afterwards.

        Raises:
            Deposed: a newer leader has the log now.
            LogUnavailable: the store fails.
        """
        self._check_fence()
        try:
            return self._medium.set_aside(self.epoch)
        except OSError as error:
            raise LogUnavailable(f"the log at {self._medium.location} cannot be set aside: {error}") from error

    def _check_fence(self) -> None:
        try:
            self._medium.check_fence(self.epoch)
        except OSError as error:
            raise LogUnavailable(f"the operation log at {self._medium.location} cannot be read: {error}") from error
