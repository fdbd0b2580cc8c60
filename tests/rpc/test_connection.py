"""A connection between two real ends on one machine."""

import asyncio
import socket as sockets
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from flinkjob.api.errors import ProtocolViolation
from flinkjob.rpc import connection as rpc
from flinkjob.rpc.codec import decode_from_jobmanager, decode_from_taskmanager
from flinkjob.rpc.connection import Connection, client_socket, server_socket
from flinkjob.worker import protocol as msg
from flinkjob.worker.protocol import FromJobManager, FromTaskManager


class Ends:
    """Both ends of one connection, and the bare WebSockets below them."""

    server: Connection[FromTaskManager]
    client: Connection[FromJobManager]
    server_socket: web.WebSocketResponse
    client_socket: aiohttp.ClientWebSocketResponse

    def __init__(self, max_queued: int = rpc.MAX_QUEUED_BYTES) -> None:
        self.max_queued = max_queued
        self.connected = asyncio.Event()
        self.done = asyncio.Event()

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        self.server_socket = server_socket()
        await self.server_socket.prepare(request)
        self.server = Connection(self.server_socket, decode_from_taskmanager, max_queued=self.max_queued)
        self.connected.set()
        await self.done.wait()
        await self.server.close()
        return self.server_socket


async def connect(ends: Ends) -> AsyncIterator[Ends]:
    app = web.Application()
    app.router.add_get("/", ends.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        ends.client_socket = await client_socket(session, f"http://127.0.0.1:{runner.addresses[0][1]}/")
        ends.client = Connection(ends.client_socket, decode_from_jobmanager)
        await ends.connected.wait()
        yield ends
        ends.done.set()
        ends.client.abort()
        await ends.client.close()
    await runner.cleanup()


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    async for made in connect(Ends()):
        yield made


@pytest.fixture
async def narrow() -> AsyncIterator[Ends]:
    """A server whose queue holds a megabyte."""
    async for made in connect(Ends(max_queued=1 << 20)):
        yield made


async def test_messages_arrive_in_order_in_both_directions(ends: Ends) -> None:
    for number in range(100):
        ends.client.send(msg.SplitRequest(msg.AttemptId(1, 0, 0, 0), number))
        ends.server.send(msg.Alive(number))
    there: list[FromTaskManager] = []
    while len(there) < 100:
        there += await ends.server.receive() or []
    back: list[FromJobManager] = []
    while len(back) < 100:
        back += await ends.client.receive() or []
    assert there == [msg.SplitRequest(msg.AttemptId(1, 0, 0, 0), number) for number in range(100)]
    assert back == [msg.Alive(number) for number in range(100)]


async def test_a_burst_becomes_one_frame(ends: Ends) -> None:
    for number in range(1000):
        ends.server.send(msg.Alive(number))
    assert await ends.client.receive() == [msg.Alive(number) for number in range(1000)]


async def test_large_bursts_are_cut_into_frames_of_bearable_size(ends: Ends) -> None:
    big = msg.JobOver(1, "x" * 400_000)
    for _ in range(5):
        ends.server.send(big)
    assert [len(batch) async for batch in taken(ends.client, 3)] == [2, 2, 1]


async def taken(connection: Connection[FromJobManager], count: int) -> AsyncIterator[list[FromJobManager]]:
    for _ in range(count):
        batch = await connection.receive()
        assert batch is not None
        yield batch


async def test_a_close_delivers_what_was_queued_and_says_why(ends: Ends) -> None:
    ends.client.send(msg.Heartbeat())

    async def read() -> list[FromTaskManager]:
        return [message async for batch in ends.server for message in batch]

    reading = asyncio.create_task(read())
    await ends.client.close(rpc.GOING_AWAY, "bye")
    assert await reading == [msg.Heartbeat()]
    assert ends.server.close_code == rpc.GOING_AWAY
    await ends.client.close()


async def test_sending_after_the_end_does_no_harm(ends: Ends) -> None:
    ends.server.abort()
    assert await ends.client.receive() is None
    ends.client.send(msg.Heartbeat())
    ends.server.send(msg.Alive(1))
    assert await ends.server.receive() is None
    assert ends.client.close_code == 1006


async def test_an_abort_wakes_whoever_reads(ends: Ends) -> None:
    reading = asyncio.create_task(ends.client.receive())
    await asyncio.sleep(0)
    ends.client.abort()
    assert await reading is None
    assert await ends.server.receive() is None


@pytest.mark.parametrize("data", [b"nonsense", b"\x93", b""])
async def test_a_frame_of_nonsense_is_a_violation(ends: Ends, data: bytes) -> None:
    await ends.client_socket.send_bytes(data)
    with pytest.raises(ProtocolViolation, match="no list of messages"):
        await ends.server.receive()


async def test_text_is_a_violation(ends: Ends) -> None:
    await ends.client_socket.send_str("hello")
    with pytest.raises(ProtocolViolation, match="text"):
        await ends.server.receive()


async def test_what_is_no_websocket_frame_is_a_violation(ends: Ends) -> None:
    transport_socket = ends.client_socket.get_extra_info("socket")
    raw = sockets.socket(fileno=sockets.dup(transport_socket.fileno()))
    with raw:
        raw.sendall(b"\xff" * 64)
    with pytest.raises(ProtocolViolation, match="broke the WebSocket protocol"):
        await ends.server.receive()


async def test_a_peer_that_does_not_read_loses_its_connection(narrow: Ends, caplog: pytest.LogCaptureFixture) -> None:
    reading = asyncio.create_task(narrow.server.receive())
    sent = 0
    while not reading.done():
        narrow.server.send(msg.JobOver(1, "x" * 10_000))
        sent += 1
        await asyncio.sleep(0)
        assert sent < 100_000, "the queue is not bounded"
    assert reading.result() is None
    assert "does not read" in caplog.text
