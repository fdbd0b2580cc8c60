"""The JobManager process: one HTTP server, one candidate in the election, and at most one term at a time.

A term that cannot go on (the log is out of reach, a newer epoch exists) gives the lease back and the process stands
again. Only a damaged log, or a store that cannot keep one, is different: another try would not mend it, so the leader
keeps the lease, leads nothing, and says so until a person comes.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from aiohttp import web

from flinkjob.api import options as opt
from flinkjob.api.errors import (
    CorruptedLog,
    FlinkJobError,
    IllegalOperation,
    InvalidInput,
    InvalidOption,
    LogUnavailable,
    UnsupportedStorage,
)
from flinkjob.api.options import Configuration
from flinkjob.election.filestore import FileLeaseStore
from flinkjob.election.runner import LeaderElection
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.jobmanager.clock import Clock
from flinkjob.jobmanager.connections import Connections
from flinkjob.jobmanager.job import Job
from flinkjob.jobmanager.liveness import ClusterFileWatch, NoWatch, TaskManagerWatch
from flinkjob.jobmanager.rest import add_rest_routes
from flinkjob.jobmanager.rest_values import ConnectedTaskManager
from flinkjob.jobmanager.term import Term, TermHooks
from flinkjob.jobmaster import events as ev
from flinkjob.oplog.storage import is_local, local_path
from flinkjob.rpc.connection import TASKMANAGER_PATH, server_socket
from flinkjob.worker.protocol import AttemptId, Progress

logger = logging.getLogger(__name__)

BACKLOG = 4096
"""Connections that may wait to be accepted: after a failover all TaskManagers come at once."""

TEND_INTERVAL = 0.05
"""Seconds between two looks at who leads."""

PAUSE_BETWEEN_TERMS = 1.0
"""Seconds before a JobManager whose term broke down stands again."""


@dataclass(frozen=True, slots=True)
class JobManagerOptions:
    """What a JobManager process is told.

    Attributes:
        id: its name, also in the lease.
        host, port: where it listens. address: where others reach it, ``host:port``.
        lease_file: the election's record; None: in the job's storage, which has to be a path then.
        cluster_file: where ended TaskManagers are listed; None: nobody lists them.
    """

    id: str
    host: str
    port: int
    address: str
    lease_file: Path | None = None
    cluster_file: Path | None = None


class JobManager:
    """See the module. The REST API's backend, too."""

    def __init__(self, job: Job, options: JobManagerOptions) -> None:
        self.id = options.id
        self.address = options.address
        self.version = version("flinkjob-operator")
        self.configuration: Configuration = job.configuration
        self._job = job
        self._options = options
        self._clock = Clock()
        self._connections = Connections(self._clock)
        self._watch: TaskManagerWatch = (
            ClusterFileWatch(options.cluster_file) if options.cluster_file is not None else NoWatch()
        )
        self._store = FileLeaseStore(options.lease_file or _lease_file_of(job))
        self._election: LeaderElection | None = None
        self._term: Term | None = None
        self._opening: asyncio.Task[None] | None = None
        self._over = asyncio.Event()
        self._problem = ""

    async def run(self, stop: asyncio.Event) -> None:
        """Serve and stand until ``stop``; then give the lease to whoever comes next.

        Raises:
            InvalidInput: the address cannot be listened on.
        """
        runner = web.AppRunner(self._app(), access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, self._options.host, self._options.port, backlog=BACKLOG)
        try:
            await site.start()
        except OSError as error:
            await runner.cleanup()
            raise InvalidInput(f"{self._options.host}:{self._options.port} cannot be listened on: {error}") from None
        logger.info("JobManager %s of job %s listens on %s", self.id, self._job.name, self.address)
        tending = asyncio.create_task(self._tend())
        try:
            while not stop.is_set():
                await self._stand(stop)
        finally:
            tending.cancel()
            await runner.cleanup()

    async def _stand(self, stop: asyncio.Event) -> None:
        """Stand in the election until told to stop, or until a term has broken down."""
        self._over.clear()
        election = LeaderElection(
            self.id,
            self._store,
            on_elected=self._elected,
            on_lost=lambda reason: self._end_term(),
            times=self._job.election_times,
            address=self.address,
        )
        self._election = election
        standing = asyncio.create_task(election.run())
        waits = [asyncio.create_task(stop.wait()), asyncio.create_task(self._over.wait()), standing]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        await self._close_term(flush=stop.is_set())
        await election.release()
        for wait in waits:
            wait.cancel()
        for ended in await asyncio.gather(*waits, return_exceptions=True):
            if isinstance(ended, Exception):
                logger.error("the election broke down and begins anew: %r", ended)
        if not stop.is_set():
            await asyncio.wait([stopping := asyncio.create_task(stop.wait())], timeout=PAUSE_BETWEEN_TERMS)
            stopping.cancel()

    # Terms

    def _elected(self) -> None:
        assert self._election is not None
        record = self._election.record
        term = Term(
            job=self._job,
            leader=self.id,
            lease_term=max(1, record.transitions) if record else 1,
            hooks=TermHooks(self._connections.send, self._election.is_leader, self._term_over),
            clock=self._clock,
            watch=self._watch,
        )
        self._term = term
        self._opening = asyncio.create_task(self._open(term))

    async def _open(self, term: Term) -> None:
        try:
            await term.open()
        except (CorruptedLog, IllegalOperation, InvalidInput, UnsupportedStorage) as error:
            self._problem = str(error)
            logger.error("the job waits for a person: %s", error)
        except FlinkJobError as error:
            self._term_over(error)
        except Exception as error:
            self._term_over(LogUnavailable(f"the term cannot begin: {error!r}"))
        else:
            if term is self._term:
                self._connections.lead(term)

    def _term_over(self, error: FlinkJobError) -> None:
        logger.error("the term is over: %s", error)
        self._end_term()
        self._over.set()

    def _end_term(self) -> None:
        """Stop acting as the leader, at once; the rest of the cleaning up can take its time."""
        self._connections.lead(None)
        if self._term is not None:
            self._opening = asyncio.create_task(self._abandon(self._term, self._opening))
            self._term = None

    async def _abandon(self, term: Term, opening: asyncio.Task[None] | None) -> None:
        await term.close(flush=False)
        if opening is not None:
            await asyncio.wait([opening])

    async def _close_term(self, *, flush: bool) -> None:
        term, self._term = self._term, None
        if term is not None:
            await term.close(flush=flush)
        self._connections.lead(None)
        if self._opening is not None:
            await asyncio.wait([self._opening])

    async def _tend(self) -> None:
        """See who leads, and who has been silent for too long."""
        timeout = self.configuration.get(opt.HEARTBEAT_TIMEOUT)
        leader, looked_at = "", 0
        while True:
            await asyncio.sleep(TEND_INTERVAL)
            if self.leader_address() != leader:
                leader = self.leader_address()
                self._connections.leader_changed()
            if self.now_ms() - looked_at > timeout // 4:
                looked_at = self.now_ms()
                self._connections.drop_silent(timeout)

    # The server

    def _app(self) -> web.Application:
        app = web.Application()
        add_rest_routes(app, self)
        app.router.add_get(TASKMANAGER_PATH, self._connect)
        return app

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        socket = server_socket()
        await socket.prepare(request)
        await self._connections.serve(socket, request.remote or "?", self.leader_address)
        return socket

    # What the REST API asks

    def graph(self) -> ExecutionGraph | None:
        """See RestBackend."""
        return self._term.graph if self._term is not None else None

    def leader_address(self) -> str:
        """See RestBackend."""
        record = self._election.record if self._election is not None else None
        return record.address if record is not None else ""

    def ready(self) -> bool:
        """See RestBackend."""
        if self._problem or self._election is None or self._election.record is None:
            return False
        return self.graph() is not None or not self._election.is_leader()

    def problem(self) -> str:
        """See RestBackend."""
        return self._problem

    def now_ms(self) -> int:
        """See RestBackend."""
        return self._clock.now_ms()

    def connected(self) -> Mapping[str, ConnectedTaskManager]:
        """See RestBackend."""
        master = self._term.master if self._term is not None else None
        found = {}
        for connected in self._connections:
            worker = master.workers.get(connected.id) if master is not None else None
            free = max(0, worker.slots - len(worker.tasks)) if worker is not None else 0
            found[connected.id] = ConnectedTaskManager(last_heartbeat=connected.last_heartbeat_ms, free_slots=free)
        return found

    def progress(self) -> Mapping[AttemptId, Progress]:
        """See RestBackend."""
        return {attempt: said for connected in self._connections for attempt, said in connected.progress.items()}

    async def cancel(self) -> None:
        """See RestBackend."""
        term = self._term
        if term is None or term.master is None:
            raise LogUnavailable("this JobManager does not lead any more")
        term.dispatch(ev.CancelRequested())
        if term.writer is not None:
            await term.writer.wait_durable(term.master.graph.lsn)


def _lease_file_of(job: Job) -> Path:
    """The election's record in the job's storage.

    Raises:
        InvalidOption: the storage is no place for it.
    """
    if not is_local(job.storage.url):
        raise InvalidOption(
            f"--lease-file is needed: {opt.STORAGE_DIR.key} is {job.storage.url!r}, and the leader is elected by a file; "
            "name one that all JobManagers of the job share"
        )
    return local_path(job.storage.url) / "lease.json"
