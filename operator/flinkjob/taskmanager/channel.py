"""The words between a TaskManager and its worker processes, over a socket pair.

A frame is a u32 little-endian length and one msgpack message. What the process says is what the TaskManager's core is told
(``worker.events``), with one word more: Ready, said once when the process can take its first task.
"""

import socket
import struct
from typing import TypeAlias

import msgspec

from flinkjob.api.errors import ProtocolViolation
from flinkjob.graph.operations import InputSplit
from flinkjob.worker.events import FromRunner
from flinkjob.worker.protocol import Deployment

MAX_FRAME_BYTES = 64 << 20
_LENGTH = struct.Struct("<I")


class Setup(msgspec.Struct, array_like=True, frozen=True, tag="setup"):
    """The job that the tasks to come belong to: the graph as ``JobGraph.encode`` made it, the URL of its storage."""

    job_graph: bytes
    storage: str


class Run(msgspec.Struct, array_like=True, frozen=True, tag="run"):
    """The next task; its predecessor has ended."""

    deployment: Deployment


class SplitGiven(msgspec.Struct, array_like=True, frozen=True, tag="split!"):
    """The answer to SplitWanted: None when there are no more."""

    index: int
    split: InputSplit | None


class Ready(msgspec.Struct, array_like=True, frozen=True, tag="ready"):
    """The process has started up."""


ToRunner: TypeAlias = Setup | Run | SplitGiven

_ENCODER = msgspec.msgpack.Encoder()
_TO_RUNNER: "msgspec.msgpack.Decoder[ToRunner]" = msgspec.msgpack.Decoder(ToRunner)
_FROM_RUNNER: "msgspec.msgpack.Decoder[FromRunner | Ready]" = msgspec.msgpack.Decoder(FromRunner | Ready)


def encode(message: ToRunner | FromRunner | Ready) -> bytes:
    """The message as a frame."""
    data = _ENCODER.encode(message)
    return _LENGTH.pack(len(data)) + data


class FrameSplitter:
    """Cuts what a process has said, as it arrives, into messages."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[FromRunner | Ready]:
        """The messages that are complete with these bytes.

        Raises:
            ProtocolViolation: a frame is too large or no message.
        """
        self._rest += data
        messages: list[FromRunner | Ready] = []
        start = 0
        while len(self._rest) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._rest, start)
            if length > MAX_FRAME_BYTES:
                raise ProtocolViolation(f"a frame of {length} bytes is larger than the {MAX_FRAME_BYTES} allowed")
            end = start + _LENGTH.size + length
            if len(self._rest) < end:
                break
            messages.append(_decode(bytes(self._rest[start + _LENGTH.size : end])))
            start = end
        del self._rest[:start]
        return messages


def _decode(data: bytes) -> FromRunner | Ready:
    try:
        return _FROM_RUNNER.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtocolViolation(f"a worker process sent nonsense: {error}") from None


class TaskManagerGone(Exception):
    """The other end of the channel is closed."""


class RunnerChannel:
    """The worker process's end: blocking, one message at a time."""

    def __init__(self, control: socket.socket) -> None:
        self._socket = control
        self._reader = control.makefile("rb", buffering=1 << 16)

    def send(self, message: FromRunner | Ready) -> None:
        """Send a message; raises as ``send_frame`` does."""
        self.send_frame(encode(message))

    def send_frame(self, data: bytes) -> None:
        """Send an encoded message, whole.

        Raises:
            TaskManagerGone: nobody reads it any more.
        """
        try:
            self._socket.sendall(data)
        except OSError:
            raise TaskManagerGone from None

    def receive(self) -> ToRunner:
        """The next message; waits for it.

        Raises:
            TaskManagerGone: there will be none.
        """
        try:
            head = self._reader.read(_LENGTH.size)
            data = self._reader.read(_LENGTH.unpack(head)[0]) if len(head) == _LENGTH.size else b""
        except OSError:
            raise TaskManagerGone from None
        if not data:
            raise TaskManagerGone
        return _TO_RUNNER.decode(data)
