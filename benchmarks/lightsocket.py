"""The client's side of a WebSocket (RFC 6455), reduced to what ten thousand of them on one machine can afford.

A simulated TaskManager stands for a machine of its own; with a full HTTP client in each, the clients and not the JobManager
would be what is measured. Frames are masked with zeros, which leaves their payload as it is.
"""

import asyncio
import struct
from dataclasses import dataclass

from aiohttp import WSMsgType

_HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: c2ltdWxhdGVkdGFza21ncg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_BINARY, _CLOSE = 2, 8


@dataclass(frozen=True, slots=True)
class Message:
    """What `rpc.connection.Connection` looks at."""

    type: WSMsgType
    data: bytes = b""


class LightSocket(asyncio.Protocol):
    """What a Connection needs of aiohttp's ClientWebSocketResponse; made by `connect`."""

    def __init__(self) -> None:
        self.close_code: int | None = None
        self.opened: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._buffer = bytearray()
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def connect(cls, address: str, path: str) -> "LightSocket | None":
        """Open a connection; None where the server does not upgrade it.

        Raises:
            OSError: nobody listens there.
        """
        host, _, port = address.rpartition(":")
        transport, made = await asyncio.get_running_loop().create_connection(cls, host, int(port))
        made._transport = transport
        transport.write(_HANDSHAKE.format(path=path, host=address).encode())
        try:
            if await made.opened:
                return made
        except asyncio.CancelledError:
            transport.abort()
            raise
        transport.abort()
        return None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self.opened.done():
            head, separator, rest = self._buffer.partition(b"\r\n\r\n")
            if not separator:
                return
            self._buffer = rest
            self.opened.set_result(head.startswith(b"HTTP/1.1 101 "))
        while self._take_frame():
            pass

    def _take_frame(self) -> bool:
        buffer = self._buffer
        if len(buffer) < 2:
            return False
        length, start = buffer[1], 2
        if length >= 126:
            start = 4 if length == 126 else 10
            if len(buffer) < start:
                return False
            length = int.from_bytes(buffer[2:start], "big")
        if len(buffer) < start + length:
            return False
        opcode, payload = buffer[0] & 15, bytes(buffer[start : start + length])
        del buffer[: start + length]
        if opcode == _BINARY:
            self._messages.put_nowait(Message(WSMsgType.BINARY, payload))
        elif opcode == _CLOSE:
            self.close_code = int.from_bytes(payload[:2], "big")
            self._messages.put_nowait(Message(WSMsgType.CLOSED))
        return True

    def connection_lost(self, error: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_result(False)
        self.close_code = self.close_code or 1006
        self._messages.put_nowait(Message(WSMsgType.CLOSED))

    async def receive(self) -> Message:
        """The next message."""
        return await self._messages.get()

    async def send_bytes(self, data: bytes) -> None:
        """Send a binary frame."""
        self._send(_BINARY, data)

    async def close(self, *, code: int = 1000, message: bytes = b"") -> None:
        """Say goodbye, and end."""
        self._send(_CLOSE, struct.pack(">H", code) + message)
        if self._transport is not None:
            self._transport.close()

    def get_extra_info(self, name: str) -> object:
        """Of the transport."""
        return self._transport.get_extra_info(name) if self._transport is not None else None

    def _send(self, opcode: int, payload: bytes) -> None:
        size = len(payload)
        length = bytes([128 | size]) if size < 126 else b"\xfe" + struct.pack(">H", size)
        if size > 0xFFFF:
            length = b"\xff" + struct.pack(">Q", size)
        if self._transport is not None:
            self._transport.write(bytes([128 | opcode]) + length + bytes(4) + payload)
