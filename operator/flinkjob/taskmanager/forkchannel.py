"""The words between a TaskManager and its fork server, over a socket pair that keeps messages apart and carries descriptors.

The TaskManager asks, one thing at a time, and the fork server answers.
"""

import socket
from collections.abc import Sequence
from typing import TypeAlias

import msgspec

_MESSAGE_BYTES = 1 << 16
_DESCRIPTORS = 2


class Fork(msgspec.Struct, array_like=True, frozen=True, tag="fork"):
    """Fork a worker process. With it go two descriptors: its end of the control channel, and its log.

    Attributes:
        module_dir: where the tasks' modules are.
        scratch: a directory of its own, for command tasks.
        mark: what its environment and that of all it starts is marked with (``processes.MARK``).
    """

    module_dir: str
    scratch: str
    mark: str


class Collect(msgspec.Struct, array_like=True, frozen=True, tag="collect"):
    """Collect a worker process that has ended: its id may be another's from then on."""

    pid: int


class Forked(msgspec.Struct, array_like=True, frozen=True, tag="forked"):
    """The answer to Fork: it runs, and leads its session. With it goes a descriptor of the process (a pidfd)."""

    pid: int


class NotForked(msgspec.Struct, array_like=True, frozen=True, tag="unforked"):
    """The other answer to Fork: why there is no process."""

    reason: str


class Collected(msgspec.Struct, array_like=True, frozen=True, tag="collected"):
    """The answer to Collect: the exit code, or the signal as a negative number."""

    code: int


Request: TypeAlias = Fork | Collect
Answer: TypeAlias = Forked | NotForked | Collected

_ENCODER = msgspec.msgpack.Encoder()
_REQUEST: "msgspec.msgpack.Decoder[Request]" = msgspec.msgpack.Decoder(Request)
_ANSWER: "msgspec.msgpack.Decoder[Answer]" = msgspec.msgpack.Decoder(Answer)


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a channel: the TaskManager's, the fork server's.

    Raises:
        OSError: there are too many open files.
    """
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(channel: socket.socket, message: Request | Answer, descriptors: Sequence[int] = ()) -> None:
    """Send a message with descriptors, which remain the caller's to close.

    Raises:
        OSError: nobody reads it any more.
    """
    socket.send_fds(channel, [_ENCODER.encode(message)], descriptors)


def receive_request(channel: socket.socket) -> tuple[Request, list[int]] | None:
    """The next request, and what came with it: fewer descriptors than were sent where not so many can be open.

    Waits for it; None when the TaskManager is gone.
    """
    data, descriptors = _receive(channel)
    return (_REQUEST.decode(data), descriptors) if data else None


def receive_answer(channel: socket.socket) -> tuple[Answer, list[int]] | None:
    """The next answer, as ``receive_request`` has the next request; None when the fork server is gone.

    Raises:
        BlockingIOError: the socket does not block, and there is none yet.
    """
    data, descriptors = _receive(channel)
    return (_ANSWER.decode(data), descriptors) if data else None


def _receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    try:
        # No program that is executed meanwhile inherits what comes.
        data, descriptors, _, _ = socket.recv_fds(channel, _MESSAGE_BYTES, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return b"", []
    return data, descriptors
