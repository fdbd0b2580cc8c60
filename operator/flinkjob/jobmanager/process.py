"""The JobManager process: its servers, one candidate in the election, and at most one term at a time.

A term that cannot go on (the log is out of reach, a newer epoch exists) gives the lease back and the process stands
again. Only a damaged log, a store that cannot keep one, or a job that cannot be built is different: another try would not
mend it, so the leader keeps the lease, leads nothing, and says so until a person comes.
"""

import asyncio
import contextlib
import logging
from collections import deque
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
    LogUnavailable,
    UnsupportedStorage,
)
from flinkjob.api.options import Configuration
from flinkjob.election.record import LeaseRecord
from flinkjob.election.runner import LeaderElection
from flinkjob.graph.executiongraph import ExecutionGraph
from flinkjob.jobmanager.clock import Clock
from flinkjob.jobmanager.connections import Connections
from flinkjob.jobmanager.doors import changes_need_token, serving
from flinkjob.jobmanager.job import Job
from flinkjob.jobmanager.metrics import add_metrics_route, jobmanager_registry
from flinkjob.jobmanager.predecessor import predecessor_of
from flinkjob.jobmanager.rest import add_rest_routes
from flinkjob.jobmanager.rest_values import ConnectedTaskManager
from flinkjob.jobmanager.surroundings import (
    JOB_INVALID,
    LOG_UNAVAILABLE,
    LOG_UNREADABLE,
    STORAGE_UNSUPPORTED,
    Leading,
    OneMachine,
    Surroundings,
    keep_doing,
)
from flinkjob.jobmanager.term import Term, TermHooks
from flinkjob.jobmaster import events as ev
from flinkjob.jobmaster.preview import FailoverPreview
from flinkjob.rpc.connection import TASKMANAGER_PATH, server_socket
from flinkjob.rpc.tls import ServerTls, TlsFiles
from flinkjob.worker.protocol import AttemptId, Progress

logger = logging.getLogger(__name__)

TEND_INTERVAL = 0.05
"""Seconds between two looks at who leads."""

PAUSE_BETWEEN_TERMS = 1.0
"""Seconds before a JobManager whose term broke down stands again."""

TIME_TO_TELL = 1.5
"""Seconds for which a leader that cannot open the log keeps the lease, so that the status says why nobody leads."""


@dataclass(frozen=True, slots=True)
class JobManagerOptions:
    """What a JobManager process is told.

    Attributes:
        id: its name, also in the lease.
        host, port: where it listens. address: where others reach it, ``host:port``.
        rest_port, rest_address: the same for REST, health and metrics; None: on the one port, with all else.
        tls: certificate, key and authority for mutual TLS with TaskManagers; None speaks plainly.
        rest_token_file: has the token that changes by REST need; None: they need none.
        lease_file: the election's record; None: in the job's storage, which has to be a path then.
        cluster_file: where ended TaskManagers are listed; None: nobody lists them.
    """

    id: str
    host: str
    port: int
    address: str
    rest_port: int | None = None
    rest_address: str = ""
    tls: TlsFiles | None = None
    rest_token_file: Path | None = None
    lease_file: Path | None = None
    cluster_file: Path | None = None


class JobManager:
    """See the module. The REST API's backend, too.

    Args:
        surroundings: None: those of one machine, by the files that the options name.

    Raises:
        InvalidInput: the TLS files cannot be used.
        InvalidOption: there is no place for a lease file.
    """

    def __init__(self, job: Job, options: JobManagerOptions, surroundings: Surroundings | None = None) -> None:
        self.id = options.id
        self.address = options.rest_address or options.address
        self.version = version("flinkjob-operator")
        self.configuration: Configuration = job.configuration
        self._job = job
        self._options = options
        self._clock = Clock()
        self._began_at = self._clock.now_ms()
        self._connections = Connections(self._clock)
        self._tls = ServerTls(options.tls) if options.tls is not None else None
        self._surroundings = surroundings or OneMachine(
            job, options.id, lease_file=options.lease_file, cluster_file=options.cluster_file
        )
        self._election: LeaderElection | None = None
        self._term: Term | None = None
        self._opening: asyncio.Task[None] | None = None
        self._over = asyncio.Event()
        self._problem = ""
        self._reason = ""
        self._outage = ""
        self._losses: deque[str] = deque(maxlen=10)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve and stand until ``stop``; then give the lease to whoever comes next.

        Raises:
            InvalidInput: the address cannot be listened on.
        """
        options = self._options
        async with contextlib.AsyncExitStack() as doors:
            rpc, rest = self._rpc_app(), self._rest_app()
            context = self._tls.context if self._tls is not None else None
            if options.rest_port is None:
                rest.add_routes([web.get(TASKMANAGER_PATH, self._connect)])
                await doors.enter_async_context(serving(rest, host=options.host, port=options.port, tls=context))
            else:
                await doors.enter_async_context(serving(rest, host=options.host, port=options.rest_port))
                await doors.enter_async_context(serving(rpc, host=options.host, port=options.port, tls=context))
            logger.info("JobManager %s of job %s listens on %s", self.id, self._job.name, options.address)
            beside = [
                asyncio.create_task(self._tend()),
                asyncio.create_task(keep_doing("what surrounds the terms", self._attend)),
                asyncio.create_task(asyncio.to_thread(self._job.storage.warm_up)),
            ]
            try:
                while not stop.is_set():
                    await self._stand(stop)
            finally:
                for task in beside:
                    task.cancel()
                await asyncio.wait(beside)

    async def _stand(self, stop: asyncio.Event) -> None:
        """Stand in the election until told to stop, or until a term has broken down."""
        self._over.clear()
        election = LeaderElection(
            self._surroundings.identity,
            self._surroundings.store,
            on_elected=self._elected,
            on_lost=self._lost,
            times=self._job.election_times,
            address=self._options.address,
            rest=self.address,
            predecessors=self._surroundings.predecessors,
            fence=self._is_newest,
        )
        self._election = election
        standing = asyncio.create_task(election.run())
        waits = [asyncio.create_task(stop.wait()), asyncio.create_task(self._over.wait()), standing]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            self._connections.stop()
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
            watch=self._surroundings.watch,
            predecessor=predecessor_of(
                self._election.predecessor, own=self._surroundings.predecessors, since=self._began_at
            ),
        )
        self._term = term
        self._problem = self._outage = ""  # of an earlier term
        self._opening = asyncio.create_task(self._open(term))

    async def _open(self, term: Term) -> None:
        try:
            await term.open()
        except Exception as error:
            if term is self._term:
                await self._cannot_lead(term, error)
        else:
            if term is self._term:
                self._connections.lead(term)

    async def _cannot_lead(self, term: Term, error: Exception) -> None:
        """Wait for a person where another try would not mend it; else let another one try."""
        if isinstance(error, CorruptedLog | IllegalOperation | InvalidInput | UnsupportedStorage):
            self._problem, self._reason = str(error), _kind_of(error)
            logger.error("the job waits for a person: %s", error)
            return
        if not isinstance(error, FlinkJobError):
            error = LogUnavailable(f"the term cannot begin: {error!r}")
        if isinstance(error, LogUnavailable):
            self._outage = str(error)
            await asyncio.sleep(TIME_TO_TELL)
            self._outage = ""
        if term is self._term:
            self._term_over(error)

    def _lost(self, reason: str) -> None:
        self._losses.append(reason)
        self._end_term()

    def _term_over(self, error: FlinkJobError) -> None:
        logger.error("the term is over: %s", error)
        self._lost(str(error))
        self._over.set()

    def _end_term(self) -> None:
        """Stop acting as the leader, at once; the rest of the cleaning up can take its time."""
        self._connections.lead(None)
        if self._term is not None:
            self._opening = asyncio.create_task(self._abandon(self._term, self._opening))
            self._term = None

    async def _is_newest(self) -> bool:
        """Whether the log says that nobody newer leads. It is asked while the lease cannot be renewed.

        The log fences all that a term does: effects wait until their operations are durable, which those of a leader with a
        newer one beside it never become, and TaskManagers refuse the commands of an older epoch. Without a log only the
        lease keeps two from leading.
        """
        writer = self._term.writer if self._term is not None else None
        if writer is None:
            return False
        await writer.check_fence()
        return True

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
                deaf = self._election is not None and self._election.in_doubt()
                self._connections.drop_silent(timeout, deaf=deaf)

    # The server

    def _rest_app(self) -> web.Application:
        app = web.Application()
        add_rest_routes(app, self)
        add_metrics_route(app, jobmanager_registry(self))
        if self._options.rest_token_file is not None:
            app.middlewares.append(changes_need_token(self._options.rest_token_file))
        return app

    def _rpc_app(self) -> web.Application:
        app = web.Application()
        app.add_routes([web.get(TASKMANAGER_PATH, self._connect)])
        return app

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        socket = server_socket()
        try:
            await socket.prepare(request)
        except ConnectionError:
            return web.Response()  # it has hung up, and this goes nowhere
        await self._connections.serve(socket, request.remote or "?", self._leader_rpc)
        return socket

    def _leader_rpc(self) -> str:
        record = self._lease()
        return record.address if record is not None else ""

    def _lease(self) -> LeaseRecord | None:
        return self._election.record if self._election is not None else None

    async def _attend(self) -> None:
        await self._surroundings.attend(self.leading, self._losses)

    # What the REST API asks

    def graph(self) -> ExecutionGraph | None:
        """See RestBackend."""
        return self._term.graph if self._term is not None else None

    def leading(self) -> Leading | None:
        """The term of the moment; None while this JobManager does not lead."""
        term, election = self._term, self._election
        if term is None or election is None:
            return None
        running = {worker.id: len(worker.tasks) for worker in term.master.workers} if term.master is not None else {}
        problem, reason = (self._outage, LOG_UNAVAILABLE) if self._outage else (self._problem, self._reason)
        told = (election.is_leader, term.since, term.graph, term.writer, problem, reason)
        return Leading(*told, running, term.predecessor)

    def leader_address(self) -> str:
        """See RestBackend. Of JobManagers that do not tell a REST address, the one address there is."""
        record = self._lease()
        return (record.rest or record.address) if record is not None else ""

    def ready(self) -> bool:
        """See RestBackend."""
        if self._problem or self._election is None:
            return False
        return self.graph() is not None or (not self._election.is_leader() and bool(self.leader_address()))

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

    async def preview(self) -> FailoverPreview:
        """See RestBackend."""
        term = self._term
        if term is None:
            raise LogUnavailable("this JobManager does not lead any more")
        return await term.preview()

    async def cancel(self) -> None:
        """See RestBackend."""
        term = self._term
        if term is None or term.master is None:
            raise LogUnavailable("this JobManager does not lead any more")
        term.dispatch(ev.CancelRequested())
        if term.writer is not None:
            await term.writer.wait_durable(term.master.graph.lsn)


def _kind_of(error: FlinkJobError) -> str:
    """What kind of problem it is that a person has to mend."""
    if isinstance(error, InvalidInput):
        return JOB_INVALID
    return STORAGE_UNSUPPORTED if isinstance(error, UnsupportedStorage) else LOG_UNREADABLE
