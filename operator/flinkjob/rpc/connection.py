"""A WebSocket between a JobManager and a TaskManager, as a pair of message streams; both sides use it alike.

``send`` never waits: it queues. A task of the connection sends whatever is queued as one frame, so that a burst becomes few
frames and a lone message leaves at once. The queue is bounded in bytes: a peer that does not read loses its connection, not
the sender its memory.
"""

import asyncio
import contextlib
import logging
import socket as sockets
from collections.abc import AsyncIterator, Callable
from ssl import SSLContext
from typing import Generic, TypeVar

import aiohttp
from aiohttp import WSMsgType, web

from flinkjob.api.errors import ProtocolViolation
from flinkjob.rpc.codec import MAX_FRAME_BYTES, Message, encode_message, frame

logger = logging.getLogger(__name__)

TASKMANAGER_PATH = "/taskmanagers/connect"
"""Where a JobManager's server takes TaskManagers."""

FRAME_BYTES = 1 << 20
"""Frames are filled to about this size: large enough to be cheap, small enough that a heartbeat gets in between."""

MAX_QUEUED_BYTES = 64 << 20
CLOSE_TIMEOUT = 2.0
"""Seconds that a clean close may take, for what is queued and for the peer's answer each."""

OK = 1000
GOING_AWAY = 1001
"""The close code of a TaskManager that leaves for good: there is no use in waiting for it to come back."""
PROTOCOL_ERROR = 1002

WebSocket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse
Incoming = TypeVar("Incoming")


def server_socket() -> web.WebSocketResponse:
    """A WebSocket for the server's side, to be prepared with its request."""
    return web.WebSocketResponse(max_msg_size=MAX_FRAME_BYTES + 1, compress=False, timeout=CLOSE_TIMEOUT)


async def client_socket(
    session: aiohttp.ClientSession, url: str, *, tls: SSLContext | None = None
) -> aiohttp.ClientWebSocketResponse:
    """A WebSocket to a server, with ``tls`` over TLS.

    Raises:
        aiohttp.ClientError, OSError: there is none to be had.
    """
    timeout = aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT)
    ssl = tls if tls is not None else True
    return await session.ws_connect(url, max_msg_size=MAX_FRAME_BYTES + 1, timeout=timeout, ssl=ssl)


class Connection(Generic[Incoming]):
    """Messages over an open WebSocket; to be made in a running event loop, and closed by whoever made it.

    Args:
        socket: the open WebSocket.
        decode: makes the messages of a frame (``decode_from_taskmanager`` or ``decode_from_jobmanager``).
        max_queued: bytes that may wait to be sent.
    """

    def __init__(
        self, socket: WebSocket, decode: Callable[[bytes], list[Incoming]], *, max_queued: int = MAX_QUEUED_BYTES
    ) -> None:
        self._socket = socket
        self._decode = decode
        self._max_queued = max_queued
        self._queue: list[bytes] = []
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._closing = False
        self._flusher = asyncio.create_task(self._flush())

    def send(self, message: Message) -> None:
        """Queue a message. One that cannot be delivered any more is dropped: the connection's end is told to its reader.

        Raises:
            ProtocolViolation: the message is too large for any frame.
        """
        if self._closing:
            return
        data = encode_message(message)
        self._queue.append(data)
        self._queued_bytes += len(data)
        if self._queued_bytes > self._max_queued:
            logger.warning("connection dropped: its peer does not read, and %d bytes wait for it", self._queued_bytes)
            self.abort()
        else:
            self._wake.set()

    async def receive(self) -> list[Incoming] | None:
        """The next batch; None when the connection has ended, however it did.

        Raises:
            ProtocolViolation: the peer sent something else than a batch; the caller closes the connection.
        """
        try:
            message = await self._socket.receive()
        except (OSError, RuntimeError):
            return None
        if message.type is WSMsgType.BINARY:
            return self._decode(message.data)
        if message.type is WSMsgType.TEXT:
            raise ProtocolViolation("the peer sent text where only binary frames are allowed")
        if isinstance(message.data, aiohttp.WebSocketError):
            raise ProtocolViolation(f"the peer broke the WebSocket protocol: {message.data}")
        return None

    async def __aiter__(self) -> AsyncIterator[list[Incoming]]:
        """All batches, until the connection ends. Raises as ``receive`` does."""
        while (batch := await self.receive()) is not None:
            yield batch

    @property
    def close_code(self) -> int | None:
        """The code with which the WebSocket was closed, once it is; 1006 where the peer just vanished."""
        return self._socket.close_code

    def abort(self) -> None:
        """End the connection at once and from anywhere, without a word to the peer; whoever reads it sees the end."""
        self._closing = True
        self._queue.clear()
        self._flusher.cancel()
        transport_socket = self._socket.get_extra_info("socket")
        if transport_socket is not None:
            with contextlib.suppress(OSError):
                transport_socket.shutdown(sockets.SHUT_RDWR)

    async def close(self, code: int = OK, reason: str = "") -> None:
        """Deliver what is queued, then say goodbye; both only as long as CLOSE_TIMEOUT. Closing twice does no harm."""
        self._closing = True
        self._wake.set()
        await asyncio.wait((self._flusher,), timeout=CLOSE_TIMEOUT)
        self._flusher.cancel()
        with contextlib.suppress(TimeoutError, OSError, RuntimeError):
            async with asyncio.timeout(2 * CLOSE_TIMEOUT):
                # The text of a close frame has room for 123 bytes.
                await self._socket.close(code=code, message=reason.encode()[:123])

    async def _flush(self) -> None:
        try:
            while True:
                await self._wake.wait()
                while self._queue:
                    await self._socket.send_bytes(self._next_frame())
                if self._closing:
                    return
                self._wake.clear()
        except (OSError, RuntimeError, aiohttp.ClientError):
            self._queue.clear()
            self._closing = True

    def _next_frame(self) -> bytes:
        size = count = 0
        for data in self._queue:
            if count and size + len(data) > FRAME_BYTES:
                break
            size += len(data)
            count += 1
        data = frame(self._queue[:count])
        del self._queue[:count]
        self._queued_bytes -= size
        return data
