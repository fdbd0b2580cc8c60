"""A worker process, as its TaskManager holds it: started, talked to, killed, collected.

The end of the process is learnt from the kernel (a pidfd), not from the channel: a child that the task forked could hold the
channel open. It is collected only after everything that it has started has been killed, so that its id is nobody else's
meanwhile.
"""

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import BinaryIO

from flinkjob.api.errors import ProtocolViolation
from flinkjob.taskmanager.channel import FrameSplitter, Ready, ToRunner, encode
from flinkjob.taskmanager.processes import MARK, describe_exit, kill_members
from flinkjob.worker.events import FromRunner

_READ_BYTES = 1 << 18


class RunnerProcess:
    """One worker process; to be made in a running event loop.

    Args:
        module_dir: where the tasks' modules are.
        scratch: a directory of its own, for command tasks.
        log: where its standard output and standard error go.
        on_message: called with each of its messages.
        on_end: called once, with words for how it ended, whether by itself or killed; not after ``collect``.

    Raises:
        OSError: it could not be started.
    """

    def __init__(
        self,
        *,
        module_dir: str,
        scratch: str,
        log: BinaryIO,
        on_message: Callable[["RunnerProcess", FromRunner | Ready], None],
        on_end: Callable[["RunnerProcess", str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_message = on_message
        self._on_end = on_end
        self._splitter = FrameSplitter()
        self._unsent = bytearray()
        self._nonsense = ""
        self._mark = secrets.token_hex(8)
        self._socket, theirs = socket.socketpair()
        descriptor = str(theirs.fileno())
        # -P keeps the current directory out of the modules' search path.
        command = [sys.executable, "-P", "-m", "flinkjob.taskmanager.runner", descriptor, module_dir, scratch]
        with theirs:
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, MARK: self._mark},
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            except OSError:
                self._socket.close()
                raise
        self._socket.setblocking(False)
        self._end = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._socket, self._on_readable)
        self._loop.add_reader(self._end, self._on_exit)

    @property
    def pid(self) -> int:
        """The process's id, which is its session's too."""
        return self._process.pid

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
        os.killpg(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill it with everything that it has started; ``on_end`` follows."""
        kill_members(self.pid, self._mark)

    def collect(self) -> None:
        """Kill it and wait for its end, without another word to anybody."""
        self.kill()
        self._close()

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
        code = self._close()
        self._on_end(self, self._nonsense or f"its worker process {describe_exit(code)}")

    def _has_data(self) -> bool:
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def _close(self) -> int:
        kill_members(self.pid, self._mark)
        self._loop.remove_reader(self._end)
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        os.close(self._end)
        self._socket.close()
        return self._process.wait()
