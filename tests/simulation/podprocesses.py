"""The simulator's JobManagers and TaskManagers as processes of containers: their lease, their status, their end by SIGTERM.

What a JobManager has to do with the API server is done by the shipped code: the Lease's objects by `leasestore`, the leader's
part of the status by `StatusWriter`, the watch of TaskManagers' pods by `PodWatch`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from controller.world import NAMESPACE
from flinkjob.controller import names
from flinkjob.election.elector import Elector
from flinkjob.election.leasestore import API_VERSION, _changed, _record
from flinkjob.election.record import LeaseRecord
from flinkjob.jobmanager.podwatch import PodWatch
from flinkjob.jobmanager.statuswriter import StatusWriter
from flinkjob.jobmanager.surroundings import Leading
from flinkjob.oplog.writer import LogWriter
from flinkjob.worker import events as wev

from .apiclient import ClientApi
from .asyncprocess import AsyncProcess
from .candidate import TIMES, Candidate, LeaseStore
from .jobmanager import JobManager
from .kubelets import Container
from .kubernetes import ApiServer, Call, Happened, Refusal
from .network import Network
from .scheduler import Process
from .taskmanager import TaskManager

if TYPE_CHECKING:
    from .operatedcluster import OperatedCluster

TELL_INTERVAL = 1.0


class LeaseOfApi(LeaseStore):
    """The lease of the election as a Lease in the API server; without one it is made, as the shipped store does."""

    def __init__(self, server: ApiServer, name: str) -> None:
        self._broken = False
        super().__init__()
        self._server = server
        self._lease = name
        self._path = f"/apis/{API_VERSION}/namespaces/{NAMESPACE}/leases"
        server.listeners.append(self._heard)

    @property
    def failing(self) -> bool:
        """Whether it answers with an error."""
        return self._broken or self._server.down

    @failing.setter
    def failing(self, failing: bool) -> None:
        self._broken = failing

    @property
    def record(self) -> LeaseRecord | None:
        """What is in the Lease."""
        lease = self._server.get("leases", self._lease)
        return _record(lease) if lease is not None else None

    @record.setter
    def record(self, record: LeaseRecord | None) -> None:
        assert record is None, "it is written by swap"

    def swap(self, expected: str, new: LeaseRecord) -> LeaseRecord | None:
        """See LeaseStore."""
        known = self._server.get("leases", self._lease)
        if (known["metadata"]["resourceVersion"] if known is not None else "") != expected:
            return None
        metadata = {"name": self._lease, "namespace": NAMESPACE, "labels": {}}
        body = _changed(known or {"apiVersion": API_VERSION, "kind": "Lease", "metadata": metadata}, new)
        method, path = ("PUT", f"{self._path}/{self._lease}") if expected else ("POST", self._path)
        try:
            return _record(self._server.serve(Call("candidate", method, path, {}, body, "application/json", 0)))
        except Refusal:
            return None

    def empty(self, holder: str) -> None:
        """Nobody but the operator does."""

    def _heard(self, plural: str, happened: Happened) -> None:
        if plural == "leases" and happened.object["metadata"]["name"] == self._lease:
            for watcher in list(self.watchers.values()):
                watcher()


class CandidateInPod(Candidate):
    """A candidate who calls himself as one in a pod does."""

    def _new_elector(self) -> Elector:
        process = cast("JobManagerInPod", self._process)
        return Elector(process.identity, TIMES, address=self._address, predecessors=process.predecessors)

    def _timestamp(self) -> str:
        world = cast("JobManagerInPod", self._process).operated
        moment = world.wall(cast("JobManagerInPod", self._process).container.node)
        return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")


class JobManagerInPod(JobManager, AsyncProcess):
    """A JobManager's process in a container.

    Attributes:
        identity: its name in the Lease.
    """

    def __init__(
        self, world: "OperatedCluster", container: Container, *, rate: float, offset: int, number: int
    ) -> None:
        self.operated = world
        self.container = container
        self.predecessors = f"{container.pod}_{container.uid}_"
        self.identity = f"{self.predecessors}{number:08x}"
        self._since = 0
        super().__init__(world, container.pod, rate=rate, offset=offset)
        api = ClientApi(world.api, self, "jobmanager")
        self._status = StatusWriter(
            api, namespace=NAMESPACE, name=world.job, uid=world.uid, job_id=world.job_graph.id, pod=container.pod
        )
        selector = f"{names.JOB_LABEL}={world.job},{names.COMPONENT_LABEL}={names.TASKMANAGER}"
        self._pods = PodWatch(api, namespace=NAMESPACE, selector=selector, container=names.TASKMANAGER)
        self.run_async(self._attend(), world.must_not_end)

    def signature(self, epoch: int) -> str:
        """See Process."""
        return self.container.pod

    def _stand(self, candidate: type[Candidate]) -> Candidate:
        return super()._stand(CandidateInPod)

    def _ended(self, taskmanagers: list[str]) -> dict[str, str]:
        return self._pods.ended(taskmanagers)

    def _elected(self) -> None:
        self._since = int(self.operated.wall(self.container.node) * 1000)
        super()._elected()

    async def _attend(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pods.run())
            tasks.create_task(self._tell())

    async def _tell(self) -> None:
        while True:
            await self._status.tell(self._leading())
            await asyncio.sleep(TELL_INTERVAL)

    def _leading(self) -> Leading | None:
        term = self.term
        if term is None:
            return None
        graph = term.master.graph if term.master is not None else None
        writer = cast(LogWriter, _Log(graph.lsn - term.durable_lsn if graph is not None else 0))
        return Leading(self.candidate.is_leader, self._since, graph, writer, "")

    def terminate(self) -> None:
        """SIGTERM."""
        self.stop()


class TaskManagerInPod(TaskManager):
    """A TaskManager's process in a container; its name is the pod's."""

    def __init__(self, world: "OperatedCluster", container: Container, slots: int, *, rate: float) -> None:
        self.container = container
        super().__init__(world, container.pod, slots, rate=rate)

    def terminate(self) -> None:
        """SIGTERM."""
        self.feed(wev.StopRequested("SIGTERM"))


@dataclass(frozen=True, slots=True)
class _Log:
    """What the status asks of the log's writer."""

    lag: int
    failure: None = None
    degraded: None = None
    lag_seconds: float = 0.0


class NetworkOfNodes(Network):
    """Who is on a node that is cut off reaches only who else is on it.

    Args:
        node_of: on which node a process is, by its name.
    """

    def __init__(self, scheduler: Any, node_of: Callable[[str], str]) -> None:
        super().__init__(scheduler)
        self._node_of = node_of
        self.cut: set[str] = set()

    def reaches(self, one: str, other: str) -> bool:
        """See Network."""
        if self.cut:
            here, there = self._node_of(one), self._node_of(other)
            if here != there and (here in self.cut or there in self.cut):
                return False
        return super().reaches(one, other)

    def mend(self, node: str) -> None:
        """The node is reached again; what was sent meanwhile arrives."""
        self.cut.discard(node)
        for end in self._ends:
            if end.stalled and self.reaches(end.process.name, end.other.process.name):
                waiting, end.stalled = end.stalled, []
                for message in waiting:
                    self.transmit(end, message)


def die(process: Process) -> None:
    """SIGKILL."""
    process.alive = False
    if isinstance(process, AsyncProcess):
        process.end_async()
