"""A worker process, as its TaskManager holds it: forked, talked to, killed, collected.

It can be talked to before it exists; signals to it are kept until it does. Its end is learnt from the kernel (a pidfd), not
from the channel: a child that the task forked could hold the channel open. It is collected only after everything that it
has started has been killed, so that its id is nobody else's meanwhile.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
from collections.abc import Callable

from flinkjob.api.errors import ProtocolViolation
from flinkjob.taskmanager.channel import FrameSplitter, Ready, ToRunner, encode
from flinkjob.taskmanager.forkchannel import Fork
from flinkjob.taskmanager.forking import ForkServer
from flinkjob.taskmanager.processes import await_end, describe_exit, kill_members
from flinkjob.worker.events import FromRunner

_READ_BYTES = 1 << 18


class RunnerProcess:
    """One worker process; to be made in a running event loop.

    Args:
        server: forks and collects it.
        module_dir: where the tasks' modules are.
        scratch: a directory of its own, for command tasks.
        log: the file to which its standard output and standard error are appended.
        on_message: called with each of its messages.
        on_end: called once, with words for how it ended, whether by itself or killed, or why it could not be started; not
            after ``collect``, and not before the constructor has returned.

    Raises:
        OSError: it could not be started.
    """

    def __init__(
        self,
        server: ForkServer,
        *,
        module_dir: str,
        scratch: str,
        log: str,
        on_message: Callable[["RunnerProcess", FromRunner | Ready], None],
        on_end: Callable[["RunnerProcess", str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = server
        self._on_message = on_message
        self._on_end = on_end
        self._splitter = FrameSplitter()
        self._unsent = bytearray()
        self._nonsense = ""
        self._mark = secrets.token_hex(8)
        self._pid: int | None = None
        self._process = -1
        self._signalled: signal.Signals | None = None
        self._socket, theirs = socket.socketpair()
        try:
            # Commands read there again what they have written.
            output = os.open(log, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError:
            self._socket.close()
            theirs.close()
            raise
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._on_readable)
        server.fork(
            Fork(module_dir, scratch, self._mark),
            (theirs.detach(), output),
            forked=self._on_forked,
            failed=self._on_failed,
        )

    @property
    def pid(self) -> int | None:
        """The process's id, which is its session's too; None before it is forked and after its end."""
        return self._pid

    @property
    def ended(self) -> bool:
        """Whether it has ended: what is sent to it is lost, and ``on_end`` has told it or is about to."""
        return self._pid is None and self._socket.fileno() < 0

    def send(self, message: ToRunner) -> None:
        """Send a message; whether the process still reads it shows in its end."""
        data = encode(message)
        if not self._unsent:
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return
            if sent == len(data):
                return
            data = data[sent:]
            self._loop.add_writer(self._socket, self._on_writable)
        self._unsent += data

    def terminate(self) -> None:
        """Tell the process and its group to stop (SIGTERM)."""
        if self._pid is None:
            self._signalled = self._signalled or signal.SIGTERM
            return
        with contextlib.suppress(ProcessLookupError):  # it has ended, and is not the fork server's any more
            os.killpg(self._pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill it with everything that it has started; ``on_end`` follows."""
        if self._pid is None:
            self._signalled = signal.SIGKILL
        else:
            kill_members(self._pid, self._mark)

    def collect(self) -> None:
        """Kill it and wait for its end, without another word to anybody. Its fork server is to be closed then."""
        self.kill()
        self._hang_up()
        if self._process >= 0:
            self._loop.remove_reader(self._process)
            await_end(self._process)
            os.close(self._process)

    def _on_forked(self, pid: int, process: int) -> None:
        self._pid, self._process = pid, process
        self._loop.add_reader(process, self._on_exit)
        if self._signalled is signal.SIGTERM:
            self.terminate()
        elif self._signalled is not None:
            self.kill()

    def _on_failed(self, reason: str) -> None:
        self._hang_up()
        self._on_end(self, f"its worker process cannot be started: {reason}")

    def _on_readable(self) -> None:
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._socket)
            return
        try:
            messages = self._splitter.feed(data)
        except ProtocolViolation as error:
            self._nonsense = str(error)
            self._loop.remove_reader(self._socket)
            self.kill()
            return
        for message in messages:
            self._on_message(self, message)

    def _on_writable(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._unsent)
        del self._unsent[:sent]
        if not self._unsent:
            self._loop.remove_writer(self._socket)

    def _on_exit(self) -> None:
        # Its last words may still be in the channel.
        while not self._nonsense and self._has_data():
            self._on_readable()
        self.kill()
        self._hang_up()
        self._loop.remove_reader(self._process)
        assert self._pid is not None
        pid, self._pid = self._pid, None
        self._server.collect(pid, self._process, self._on_collected)

    def _on_collected(self, code: int | None) -> None:
        os.close(self._process)
        how = describe_exit(code) if code is not None else "ended, and nobody knows how: its fork server is dead, too"
        self._on_end(self, self._nonsense or f"its worker process {how}")

    def _has_data(self) -> bool:
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def _hang_up(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
