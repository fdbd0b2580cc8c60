"""The TaskManager at work: carries messages, signals and time to its pure core, and the core's effects out.

Everything happens in one event loop and in the order in which it was heard: an effect that causes an event (a process that
cannot be started, say) has it queued behind the effects that are still to be carried out.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import aiohttp

from flinkjob.api.errors import ProtocolViolation
from flinkjob.rpc.codec import decode_from_jobmanager
from flinkjob.rpc.connection import GOING_AWAY, PROTOCOL_ERROR, TASKMANAGER_PATH, Connection, client_socket
from flinkjob.rpc.tls import ClientTls
from flinkjob.taskmanager.calling import first_answer
from flinkjob.taskmanager.channel import Setup
from flinkjob.taskmanager.outbox import Outbox
from flinkjob.taskmanager.slots import Slots
from flinkjob.worker import events as ev
from flinkjob.worker.dialing import Dialer
from flinkjob.worker.protocol import FromJobManager, Refused
from flinkjob.worker.taskexecutor import TaskExecutor

logger = logging.getLogger(__name__)

CALL_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=3.0)
"""Of the session that JobManagers are called with: an address that swallows every packet is given up soon."""

HANDSHAKE_TIMEOUT = 30.0
"""Seconds until a JobManager that took the call and does not answer is given up: a stopped one still accepts connections.

The others are called meanwhile. One that has thousands to answer would be kept from it by those that come again and again.
"""


class Agent:
    """One TaskManager, from its start to its exit code.

    Args:
        executor: the core.
        slots: makes the slots, given where their events go.
        dialer: where the JobManagers are.
        tls: what the JobManagers are spoken to with; None: plainly.
    """

    def __init__(
        self,
        executor: TaskExecutor,
        slots: Callable[[Callable[[ev.Event], None]], Slots],
        dialer: Dialer,
        *,
        tls: ClientTls | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._executor = executor
        self._slots = slots(self.feed)
        self._dialer = dialer
        self._tls = tls
        self._events: deque[ev.Event] = deque()
        self._feeding = False
        self._setup = Setup(b"", "")
        self._connection: Connection[FromJobManager] | None = None
        self._outbox: Outbox | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0
        self._over: asyncio.Future[int] = self._loop.create_future()
        self._farewell = ""
        self._leader = ""

    async def run(self, session: aiohttp.ClientSession) -> int:
        """Serve until the core says that it is over; returns the exit code."""
        dialing = self._loop.create_task(self._dial(session))
        dialing.add_done_callback(self._raise_from)
        try:
            self._slots.warm_up()
            self._arm()
            return await self._over
        finally:
            dialing.cancel()
            await asyncio.wait((dialing,))
            if self._connection is not None:
                await self._connection.close(GOING_AWAY, self._farewell)
            if self._timer is not None:
                self._timer.cancel()
            self._slots.close()

    def stop(self, reason: str) -> None:
        """Hand the tasks back and go."""
        self.feed(ev.StopRequested(reason))

    def feed(self, event: ev.Event) -> None:
        """Tell the core, and do what it wants done."""
        self._events.append(event)
        if self._feeding:
            return
        self._feeding = True
        try:
            while self._events:
                event = self._events.popleft()
                for effect in self._executor.handle(event, now=self._now()):
                    _PERFORM[type(effect)](self, effect)
        except Exception as error:
            # A core that has lost its way must not go on as if nothing had been.
            self._fail(error)
        finally:
            self._feeding = False
        self._arm()

    def _now(self) -> int:
        return int(self._loop.time() * 1000)

    def _fail(self, error: BaseException) -> None:
        if not self._over.done():
            self._over.set_exception(error)

    def _raise_from(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    # Time

    def _arm(self) -> None:
        """See to a Tick at the next deadline. A deadline that has moved on costs one Tick too many, and nothing per event."""
        deadline = self._executor.next_deadline()
        if deadline is None or (self._timer is not None and self._timer_at <= deadline):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        # Not before the deadline, as the core sees it in whole milliseconds.
        self._timer = self._loop.call_at((deadline + 1) / 1000, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.feed(ev.Tick())

    # The JobManagers

    async def _dial(self, session: aiohttp.ClientSession) -> None:
        while not self._executor.stopping:
            address, socket = await first_answer(
                self._dialer, partial(self._call, session), lambda socket: socket.close()
            )
            await self._serve(Connection(socket, decode_from_jobmanager), address)

    async def _call(self, session: aiohttp.ClientSession, address: str) -> aiohttp.ClientWebSocketResponse | None:
        scheme, context = ("wss", self._tls.context()) if self._tls is not None else ("ws", None)
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                return await client_socket(session, f"{scheme}://{address}{TASKMANAGER_PATH}", tls=context)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            logger.debug("no JobManager at %s: %s", address, error)
            return None

    async def _serve(self, connection: "Connection[FromJobManager]", address: str) -> None:
        self._connection, self._outbox = connection, Outbox(connection.send)
        code, reason = PROTOCOL_ERROR, ""
        try:
            self.feed(ev.Connected(self._leader))
            async for batch in connection:
                for message in batch:
                    self._hear(message, address)
        except ProtocolViolation as error:
            logger.warning("JobManager %s is disconnected: %s", address, error)
            reason = str(error)
        finally:
            if not self._over.done():
                self._forget_connection()
                self.feed(ev.ConnectionLost())
                await connection.close(code, reason)

    def _hear(self, message: FromJobManager, address: str) -> None:
        if isinstance(message, Refused):
            self._dialer.refused(message.leader)
        known = self._executor.registered
        self.feed(message)
        registered = self._executor.registered
        if registered is not None and registered is not known:
            self._dialer.registered()
            self._leader = address
            logger.info("registered with %s, which leads epoch %d", address, registered.epoch)
            setup = Setup(registered.job_graph, registered.storage)
            # Processes are told of a job only when it is another one: the same object is not sent again.
            self._setup = self._setup if setup == self._setup else setup

    def _forget_connection(self) -> None:
        if self._outbox is not None:
            self._outbox.close()
        self._connection = self._outbox = None

    # Effects

    def _start(self, effect: ev.StartAttempt) -> None:
        self._slots.start(effect.slot, effect.deployment, self._setup)

    def _cancel(self, effect: ev.CancelAttempt) -> None:
        self._slots.cancel(effect.slot)

    def _kill(self, effect: ev.KillAttempt) -> None:
        self._slots.kill(effect.slot)

    def _give_split(self, effect: ev.GiveSplit) -> None:
        self._slots.give_split(effect.slot, effect.index, effect.split)

    def _send(self, effect: ev.Send) -> None:
        if self._outbox is not None:
            self._outbox.send(effect.message)

    def _disconnect(self, effect: ev.Disconnect) -> None:
        if self._connection is not None:
            logger.info("disconnected from the JobManager: %s", effect.reason)
            self._connection.abort()
            self._forget_connection()

    def _shut_down(self, effect: ev.ShutDown) -> None:
        logger.info("shutting down: %s", effect.reason)
        self._farewell = effect.reason
        if not self._over.done():
            self._over.set_result(effect.code)


_PERFORM: dict[type, Callable[[Agent, Any], None]] = {
    ev.StartAttempt: Agent._start,
    ev.CancelAttempt: Agent._cancel,
    ev.KillAttempt: Agent._kill,
    ev.GiveSplit: Agent._give_split,
    ev.Send: Agent._send,
    ev.Disconnect: Agent._disconnect,
    ev.ShutDown: Agent._shut_down,
}
