"""The TaskManagers' connections to this JobManager.

A connection opens with Register. A JobManager that leads takes it in and tells the term; any other refuses it and names
the leader, if it knows one. Nonsense closes the connection and nothing else.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

from aiohttp import web

from flinkjob.api import options as opt
from flinkjob.api.errors import ProtocolViolation
from flinkjob.jobmanager.clock import Clock
from flinkjob.jobmanager.term import Term
from flinkjob.jobmaster import events as ev
from flinkjob.rpc.codec import decode_from_taskmanager
from flinkjob.rpc.connection import GOING_AWAY, PROTOCOL_ERROR, Connection
from flinkjob.worker import protocol as msg

logger = logging.getLogger(__name__)

HOLD_TIMEOUT = 10.0
"""Seconds for which a TaskManager is kept waiting while nobody leads, rather than sent round in circles."""

REGISTRATION_TIMEOUT = 10.0
"""Seconds in which a new connection has to say who it is."""


@dataclass(slots=True, eq=False)
class Connected:
    """A registered TaskManager's connection."""

    id: str
    connection: Connection[msg.FromTaskManager]
    last_heartbeat_ms: int
    progress: dict[msg.AttemptId, msg.Progress] = field(default_factory=dict)


class Connections:
    """All TaskManagers that are connected."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_id: dict[str, Connected] = {}
        self._term: Term | None = None
        self._news = asyncio.Event()
        self._stopping = False
        self._deaf_until_ms = 0

    def __iter__(self) -> Iterator[Connected]:
        return iter(self._by_id.values())

    def lead(self, term: Term | None) -> None:
        """From now on connections belong to this term; None: to nobody, and those there are are closed."""
        self._term = term
        self.leader_changed()
        if term is None:
            for connected in list(self._by_id.values()):
                connected.connection.abort()
            self._by_id.clear()

    def stop(self) -> None:
        """From now on nobody is kept waiting for a leader here: this JobManager goes, and will not hear of one."""
        self._stopping = True
        self.leader_changed()

    def leader_changed(self) -> None:
        """Those that wait for a leader may be told."""
        self._news.set()
        self._news = asyncio.Event()

    def send(self, taskmanager: str, message: msg.FromJobManager) -> None:
        """Send a message to a TaskManager if it is connected; otherwise its next registration settles the matter."""
        connected = self._by_id.get(taskmanager)
        if connected is not None:
            connected.connection.send(message)

    async def serve(self, socket: web.WebSocketResponse, peer: str, leader: Callable[[], str]) -> None:
        """Serve one connection to its end.

        Args:
            socket: the open WebSocket.
            peer: the address that it comes from.
            leader: gives the leader's address, as far as is known.
        """
        connection = Connection(socket, decode_from_taskmanager)
        connected: Connected | None = None
        term: Term | None = None
        batches = aiter(connection)
        try:
            async with asyncio.timeout(REGISTRATION_TIMEOUT):
                first = await anext(batches, None)
            if first is not None:
                register = _registration(first)
                await self._hold(register, leader)
                term = self._term
                connected = self._register(connection, register, peer, leader())
            if connected is not None and term is not None:
                await self._listen(term, connected, batches)
        except ProtocolViolation as error:
            logger.warning("TaskManager %s at %s is disconnected: %s", connected.id if connected else "?", peer, error)
            await connection.close(PROTOCOL_ERROR, str(error))
        except TimeoutError:
            logger.warning("a connection from %s did not register and is closed", peer)
        finally:
            if connected is not None and term is not None:
                self._left(term, connected)
            await connection.close()

    async def _listen(
        self, term: Term, connected: Connected, batches: AsyncIterator[list[msg.FromTaskManager]]
    ) -> None:
        async for batch in batches:
            connected.last_heartbeat_ms = self._clock.now_ms()
            for message in _joined(batch):
                self._handle(term, connected, message)

    def _left(self, term: Term, connected: Connected) -> None:
        """The connection is over; one that was replaced by a newer one of the same TaskManager is of no interest."""
        if self._by_id.get(connected.id) is not connected:
            return
        del self._by_id[connected.id]
        term.dispatch(ev.TaskManagerDisconnected(connected.id))
        if connected.connection.close_code == GOING_AWAY:
            term.dispatch(ev.TaskManagerGone(connected.id, "it was stopped"))

    async def _hold(self, register: msg.Register, leader: Callable[[], str]) -> None:
        """Wait for the next leader where none is known, or only the one that was lost: it may well be this JobManager."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HOLD_TIMEOUT):
                while not self._stopping and self._term is None and leader() in ("", register.lost):
                    await self._news.wait()

    def _register(
        self, connection: Connection[msg.FromTaskManager], register: msg.Register, peer: str, leader: str
    ) -> Connected | None:
        term = self._term
        refusal = ""
        if term is None or term.master is None:
            refusal = "this JobManager does not lead" if term is None else "the leader is still replaying"
        elif register.version != msg.PROTOCOL_VERSION:
            refusal = f"protocol version {register.version} is not {msg.PROTOCOL_VERSION}"
        elif register.job not in ("", term.job.id):
            refusal = f"this is job {term.job.id}, not {register.job}"
        if refusal or term is None or term.master is None:
            connection.send(msg.Refused(leader, refusal))
            return None
        before = self._by_id.pop(register.id, None)
        if before is not None:
            before.connection.abort()
        connected = Connected(register.id, connection, self._clock.now_ms())
        self._by_id[register.id] = connected
        connection.send(_registered(term))
        address = register.address or peer
        term.dispatch(ev.TaskManagerConnected(register.id, address, register.slots, register.reports))
        return connected

    def _handle(self, term: Term, connected: Connected, message: msg.FromTaskManager) -> None:
        if isinstance(message, msg.Reports):
            for report in message.reports:
                if report.state.terminal:
                    connected.progress.pop(report.attempt, None)
            term.dispatch(ev.TasksReported(connected.id, message.reports))
        elif isinstance(message, msg.SplitRequest):
            term.dispatch(ev.SplitRequested(connected.id, message.attempt, message.index))
        elif isinstance(message, msg.Heartbeat):
            connected.progress = {progress.attempt: progress for progress in message.progress}
            connected.connection.send(msg.Alive(term.master.graph.epoch if term.master else 0))
        else:
            raise ProtocolViolation("Register is said once")

    def drop_silent(self, timeout_ms: int, *, deaf: bool) -> None:
        """Take those for lost that have given no sign of life for ``heartbeat.timeout``.

        Args:
            deaf: it may be this JobManager that is cut off. Then nobody's silence counts up to now: a successor who does
                hear the TaskManagers shall not find their tasks failed.
        """
        now = self._clock.now_ms()
        if deaf:
            self._deaf_until_ms = now
        oldest = now - timeout_ms
        for connected in [c for c in self._by_id.values() if max(c.last_heartbeat_ms, self._deaf_until_ms) < oldest]:
            del self._by_id[connected.id]
            connected.connection.abort()
            if self._term is not None:
                self._term.dispatch(ev.TaskManagerGone(connected.id, f"no heartbeat for {timeout_ms / 1000:g} s"))


def _joined(batch: list[msg.FromTaskManager]) -> Iterator[msg.FromTaskManager]:
    """The messages, with reports that follow each other in one: a decision on many tasks costs far less than many."""
    reports: list[msg.Report] = []
    for message in batch:
        if isinstance(message, msg.Reports):
            reports += message.reports
            continue
        if reports:
            yield msg.Reports(tuple(reports))
            reports = []
        yield message
    if reports:
        yield msg.Reports(tuple(reports))


def _registration(batch: list[msg.FromTaskManager]) -> msg.Register:
    register = batch[0] if batch else None
    if not isinstance(register, msg.Register) or len(batch) > 1:
        raise ProtocolViolation("a connection begins with one Register")
    return register


def _registered(term: Term) -> msg.Registered:
    assert term.master is not None
    get = term.job.configuration.get
    return msg.Registered(
        epoch=term.master.graph.epoch,
        job_graph=term.master.graph.job_graph.encode(),
        storage=term.job.storage.url,
        heartbeat_interval_ms=get(opt.HEARTBEAT_INTERVAL),
        heartbeat_timeout_ms=get(opt.HEARTBEAT_TIMEOUT),
        reconnection_timeout_ms=get(opt.RECONNECTION_TIMEOUT),
        cancellation_timeout_ms=get(opt.TASK_CANCELLATION_TIMEOUT),
    )
