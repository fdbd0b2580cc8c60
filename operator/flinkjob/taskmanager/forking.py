"""A fork server, as its TaskManager holds it: started, asked for worker processes and for their exit codes, closed.

It is asked one thing at a time, so that nothing ever waits for room in the channel. Should it die, the worker processes
that it has forked live on: their TaskManager talks to them and learns of their ends without it.
"""

import asyncio
import errno
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from flinkjob.taskmanager.forkchannel import (
    Answer,
    Collect,
    Collected,
    Fork,
    Forked,
    NotForked,
    Request,
    receive_answer,
    send,
    socket_pair,
)
from flinkjob.taskmanager.processes import MARK, UNMARKED, await_end, describe_exit


@dataclass(frozen=True, slots=True)
class _Errand:
    """A request, and who is told the answer: None when there will be none."""

    request: Request
    descriptors: tuple[int, ...]
    done: Callable[[Answer | None, list[int]], None]

    def drop_descriptors(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)


class ForkServer:
    """One process; to be made in a running event loop.

    Nobody is called back before ``fork`` has returned, and nobody after ``close``.

    Raises:
        OSError: it could not be started.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._sent: _Errand | None = None
        self._errands: deque[_Errand] = deque()
        self._how_ended = ""
        self._channel, theirs = socket_pair()
        # -P keeps the current directory out of the modules' search path.
        command = [sys.executable, "-P", "-m", "flinkjob.taskmanager.forkserver", str(theirs.fileno())]
        with theirs:
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env={**os.environ, MARK: UNMARKED},
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            except OSError:
                self._channel.close()
                raise
        self._channel.setblocking(False)
        self._end = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._channel, self._on_answer)
        self._loop.add_reader(self._end, self._on_exit)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the process has ended: it is to be asked for no more worker processes."""
        return bool(self._how_ended)

    def fork(
        self,
        request: Fork,
        descriptors: tuple[int, int],
        *,
        forked: Callable[[int, int], None],
        failed: Callable[[str], None],
    ) -> None:
        """Fork a worker process.

        Args:
            request: what it needs to know.
            descriptors: its end of the control channel, its log. They are closed here.
            forked: called with its id and a descriptor of it (a pidfd), the receiver's to close.
            failed: called with words for why there is none.
        """

        def done(answer: Answer | None, received: list[int]) -> None:
            match answer:
                case Forked(pid) if received:
                    forked(pid, received[0])
                case Forked(pid):
                    # It ends by itself when the other end of its control channel is closed.
                    failed(os.strerror(errno.EMFILE))
                    self._ask(_Errand(Collect(pid), (), lambda answer, received: None))
                case NotForked(reason):
                    failed(reason)
                case _:
                    failed(f"the fork server {self._how_ended}")

        self._ask(_Errand(request, descriptors, done))

    def collect(self, pid: int, process: int, collected: Callable[[int | None], None]) -> None:
        """Ask for the exit code of a worker process that it has forked and that has ended.

        Args:
            pid: its id, which may be another's when this has been answered.
            process: its descriptor.
            collected: called with the code, or the signal as a negative number; None when nobody knows any more.
        """

        def done(answer: Answer | None, received: list[int]) -> None:
            collected(answer.code if isinstance(answer, Collected) else await_end(process))

        if self.ended:
            done(None, [])
        else:
            self._ask(_Errand(Collect(pid), (), done))

    def close(self) -> None:
        """Part with it, and wait for its end, which comes after those of the worker processes: they have been told to go."""
        if not self.ended:
            self._close()

    def _ask(self, errand: _Errand) -> None:
        self._errands.append(errand)
        self._ask_next()

    def _ask_next(self) -> None:
        if self._sent is not None or not self._errands:
            return
        self._sent = errand = self._errands.popleft()
        try:
            send(self._channel, errand.request, errand.descriptors)
        except ConnectionError:
            pass  # it is dead, and everybody is told as soon as that has been heard from the kernel
        except OSError as error:
            self._loop.call_soon(self._hear, NotForked(error.strerror or str(error)), [])
        finally:
            errand.drop_descriptors()

    def _hear(self, answer: Answer, received: list[int]) -> None:
        errand, self._sent = self._sent, None
        if errand is not None:
            errand.done(answer, received)
            self._ask_next()

    def _on_answer(self) -> bool:
        """Hear an answer, and say whether there was one."""
        try:
            received = receive_answer(self._channel)
        except BlockingIOError:
            return False
        if received is None:
            self._loop.remove_reader(self._channel)
            return False
        self._hear(*received)
        return True

    def _on_exit(self) -> None:
        # Its last answers may still be in the channel.
        while self._on_answer():
            pass
        for errand in self._close():
            errand.done(None, [])

    def _close(self) -> list[_Errand]:
        """Wait for its end; returns the errands that will have no answer."""
        self._loop.remove_reader(self._end)
        self._loop.remove_reader(self._channel)
        os.close(self._end)
        self._channel.close()
        self._how_ended = describe_exit(self._process.wait())
        for errand in self._errands:
            errand.drop_descriptors()
        left = [errand for errand in (self._sent, *self._errands) if errand is not None]
        self._sent = None
        self._errands.clear()
        return left
