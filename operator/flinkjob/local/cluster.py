"""A whole cluster as processes of one machine: what the operator does with pods, done with processes.

It keeps the wanted number of JobManagers and TaskManagers running. When one ends it says so where the others look: a dead
leader's lease is emptied, so that nobody waits for its expiry; a dead TaskManager is listed as ended, so that the
leader fails its tasks at once. A JobManager is replaced under its own name and address, a TaskManager under a new name.
"""

import asyncio
import contextlib
import logging
import random
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from flinkjob.api.errors import FlinkJobError
from flinkjob.election.filestore import empty_lease
from flinkjob.local.processes import Process, start
from flinkjob.local.statedir import ClusterRecord, JobManagerEntry, StateDir, TaskManagerEntry

logger = logging.getLogger(__name__)

STOP_GRACE = 10.0
"""Seconds that a process gets to stop by itself."""
QUICK_DEATH = 3.0
"""Seconds: a process that dies sooner is in trouble, and is started again only after a pause."""
MAX_QUICK_DEATHS = 5
"""How often in a row that is borne."""


PORTS = (10_000, 32_768)
"""The JobManagers' ports: below those of Linux's ``ip_local_port_range``."""


class ClusterFailed(FlinkJobError):
    """The processes of the cluster cannot be kept running."""


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """What the cluster is made of.

    Attributes:
        manifest: the job's file. module_dir: where its modules are.
        overrides: options that win over the manifest's.
        jobmanagers, taskmanagers, slots: how many; slots of each TaskManager.
    """

    manifest: Path
    module_dir: Path
    overrides: dict[str, str]
    jobmanagers: int
    taskmanagers: int
    slots: int


@dataclass(frozen=True, slots=True)
class Death:
    """A process ended that was to run."""

    id: str
    kind: str
    cause: str
    was_leader: bool
    at: int


@dataclass(slots=True)
class _Member:
    """A place in the cluster, and the process that fills it now."""

    kind: str
    id: str
    port: int = 0
    process: Process | None = None
    started: float = 0.0
    quick_deaths: int = 0


@dataclass(slots=True)
class LocalCluster:
    """Start it, look at it, stop it.

    Attributes:
        on_death: called for each process that ended without being told to.
        job_ended: whether there is nothing left to run; TaskManagers end by themselves then.
        failure: set when the cluster had to give up.
    """

    options: ClusterOptions
    state: StateDir
    on_death: Callable[[Death], None] = lambda death: None
    job_ended: Callable[[], bool] = lambda: False
    failure: ClusterFailed | None = None
    _members: list[_Member] = field(default_factory=list)
    _keepers: list[asyncio.Task[None]] = field(default_factory=list)
    _ended: dict[str, str] = field(default_factory=dict)
    _stopping: bool = False
    _taskmanager_number: int = 0
    _leader: str = ""

    async def start(self) -> None:
        """Start all processes; TaskManagers of an earlier cluster in this state directory are listed as ended."""
        before = self.state.read_cluster()
        self._ended = dict(before.ended)
        for entry in before.taskmanagers:
            self._ended.setdefault(entry.id, "the cluster was stopped")
        for jobmanager in before.jobmanagers:
            empty_lease(self.state.lease_file, jobmanager.id)
        self._taskmanager_number = len(self._ended)
        for number in range(self.options.jobmanagers):
            self._members.append(_Member("jobmanager", f"jobmanager-{number}", port=_free_port()))
        for _ in range(self.options.taskmanagers):
            self._members.append(_Member("taskmanager", self._next_taskmanager()))
        for member in self._members:
            await self._start(member)
        self._keepers = [asyncio.create_task(self._keep(member)) for member in self._members]

    async def stop(self) -> None:
        """Stop all processes: TaskManagers, then standbys, then whoever leads."""
        self._stopping = True
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        leader = self._leader
        for chosen in (
            lambda member: member.kind == "taskmanager",
            lambda member: member.id != leader,
            lambda member: True,
        ):
            processes = [m.process for m in self._members if chosen(m) and m.process and m.process.alive]
            await asyncio.gather(*(process.stop(STOP_GRACE) for process in processes))
        for member in self._members:
            if member.kind == "taskmanager":
                self._ended.setdefault(member.id, "the cluster was stopped")
        self._record()

    def kill(self, process_id: str, number: signal.Signals = signal.SIGKILL) -> bool:
        """Send a signal to a member; False if there is none of this name."""
        for member in self._members:
            if member.id == process_id and member.process is not None:
                member.process.send(number)
                return True
        return False

    def set_leader(self, leader: str) -> None:
        """Record who leads."""
        if leader != self._leader:
            self._leader = leader
            self._record()

    @property
    def job_manager_addresses(self) -> list[str]:
        """The JobManagers' addresses."""
        return [f"127.0.0.1:{member.port}" for member in self._members if member.kind == "jobmanager"]

    async def _keep(self, member: _Member) -> None:
        """Replace the member's process whenever it ends."""
        try:
            while member.process is not None:
                cause = await member.process.ended()
                if self.job_ended():
                    return
                was_leader = member.kind == "jobmanager" and empty_lease(self.state.lease_file, member.id)
                death = Death(member.id, member.kind, cause, was_leader, member.process.died_at)
                self._replace_name(member, cause)
                self.on_death(death)
                await self._pause(member, cause)
                await self._start(member)
        except ClusterFailed as error:
            self.failure = self.failure or error
        except (FlinkJobError, OSError) as error:
            self.failure = self.failure or ClusterFailed(f"{member.id} cannot be kept running: {error}")

    def _replace_name(self, member: _Member, cause: str) -> None:
        if member.kind == "taskmanager":
            self._ended[member.id] = cause
            member.id = self._next_taskmanager()
        self._record()

    async def _pause(self, member: _Member, cause: str) -> None:
        quick = time.monotonic() - member.started < QUICK_DEATH
        member.quick_deaths = member.quick_deaths + 1 if quick else 0
        if member.quick_deaths > MAX_QUICK_DEATHS:
            raise ClusterFailed(
                f"{member.id} ended {member.quick_deaths} times right after its start ({cause}); "
                f"see {self.state.log_file(member.id)}"
            )
        if member.quick_deaths > 1:
            await asyncio.sleep(0.25 * 2 ** (member.quick_deaths - 2))

    async def _start(self, member: _Member) -> None:
        arguments = self._jobmanager(member) if member.kind == "jobmanager" else self._taskmanager(member)
        member.started = time.monotonic()
        member.process = await start(member.id, arguments, log_file=self.state.log_file(member.id))
        self._record()

    def _jobmanager(self, member: _Member) -> list[str]:
        options = [
            *("--id", member.id),
            *("--host", "127.0.0.1"),
            *("--port", str(member.port)),
            *("--uid", self.state.uid),
            *("--lease-file", str(self.state.lease_file)),
            *("--cluster-file", str(self.state.cluster_file)),
            *("--module-dir", str(self.options.module_dir)),
        ]
        for key, value in self.options.overrides.items():
            options += ["--set", f"{key}={value}"]
        return ["jobmanager", *options, str(self.options.manifest)]

    def _taskmanager(self, member: _Member) -> list[str]:
        return [
            "taskmanager",
            *("--id", member.id),
            *("--jobmanagers", ",".join(self.job_manager_addresses)),
            *("--slots", str(self.options.slots)),
            *("--module-dir", str(self.options.module_dir)),
            *("--work-dir", str(self.state.work_dir(member.id))),
        ]

    def _next_taskmanager(self) -> str:
        self._taskmanager_number += 1
        return f"taskmanager-{self._taskmanager_number}"

    def _record(self) -> None:
        living = [member for member in self._members if member.process is not None and member.process.alive]
        self.state.write_cluster(
            ClusterRecord(
                pid=0 if self._stopping else self.state.owner,
                job_id=self.state.job_id,
                jobmanagers=[
                    JobManagerEntry(m.id, m.process.pid, f"http://127.0.0.1:{m.port}", m.id == self._leader)
                    for m in living
                    if m.kind == "jobmanager" and m.process
                ],
                taskmanagers=[
                    TaskManagerEntry(m.id, m.process.pid) for m in living if m.kind == "taskmanager" and m.process
                ],
                ended=self._ended,
            )
        )


def _free_port() -> int:
    """A port that nobody listens on now. It is a JobManager's address for the life of the cluster.

    Not one that the kernel gives to outgoing connections: a JobManager must get it back after its death.
    """
    while True:
        port = random.randrange(*PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
