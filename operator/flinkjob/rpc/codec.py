"""A WebSocket's binary frame is one msgpack array of messages: a batch.

Each message is encoded when it is sent, so that a queue of messages knows its size in bytes; the frame is then nothing but
an array header and the messages behind it. What arrives is checked against the types of ``worker.protocol`` as a whole,
before anyone sees a part of it.
"""

import struct
from collections.abc import Sequence
from typing import Annotated, TypeAlias, TypeVar

import msgspec

from flinkjob.api.errors import ProtocolViolation
from flinkjob.worker.protocol import FromJobManager, FromTaskManager

MAX_FRAME_BYTES = 64 << 20
"""The largest frame that is sent or taken."""

MAX_MESSAGES = 1 << 20
"""The most messages in one frame."""

T = TypeVar("T")

Message: TypeAlias = FromJobManager | FromTaskManager

_ENCODER = msgspec.msgpack.Encoder()
_BATCH = msgspec.Meta(max_length=MAX_MESSAGES)
_FROM_TASKMANAGER = msgspec.msgpack.Decoder(Annotated[list[FromTaskManager], _BATCH])
_FROM_JOBMANAGER = msgspec.msgpack.Decoder(Annotated[list[FromJobManager], _BATCH])
_ARRAY_32 = struct.Struct(">BI")


def encode_message(message: Message) -> bytes:
    """The message as one item of a frame.

    Raises:
        ProtocolViolation: it is larger than a frame may be.
    """
    data = _ENCODER.encode(message)
    if len(data) > MAX_FRAME_BYTES - _ARRAY_32.size:
        name = type(message).__name__
        raise ProtocolViolation(f"a {name} of {len(data)} bytes does not fit a frame of {MAX_FRAME_BYTES} bytes")
    return data


def frame(messages: Sequence[bytes]) -> bytes:
    """One frame of encoded messages."""
    return b"".join((_ARRAY_32.pack(0xDD, len(messages)), *messages))


def decode_from_taskmanager(data: bytes) -> list[FromTaskManager]:
    """The messages of a frame that a TaskManager sent.

    Raises:
        ProtocolViolation: the frame is too large, no msgpack, or holds something else than such messages.
    """
    return _decoded(_FROM_TASKMANAGER, data, "a TaskManager")


def decode_from_jobmanager(data: bytes) -> list[FromJobManager]:
    """The messages of a frame that a JobManager sent.

    Raises:
        ProtocolViolation: the frame is too large, no msgpack, or holds something else than such messages.
    """
    return _decoded(_FROM_JOBMANAGER, data, "a JobManager")


def _decoded(decoder: "msgspec.msgpack.Decoder[list[T]]", data: bytes, sender: str) -> list[T]:
    if len(data) > MAX_FRAME_BYTES:
        raise ProtocolViolation(
            f"a frame of {len(data)} bytes from {sender} is larger than the {MAX_FRAME_BYTES} allowed"
        )
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ProtocolViolation(f"a frame of {len(data)} bytes from {sender} is no list of messages: {error}") from None
