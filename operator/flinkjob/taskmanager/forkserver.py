"""The fork server: the process that a TaskManager's worker processes are forked from.

It has loaded what a worker process needs, so that one more costs a fork and shares its memory. It has a single thread and
never loads a task's module, which could start others: a fork would copy the locks that they hold, and not them.

A worker process that has ended stays a zombie until the TaskManager asks for its exit code, so that its id is nobody else's
while the TaskManager ends all that it has started. When the TaskManager is gone, the worker processes end by themselves
(``runner.die_with_taskmanager``); the fork server waits for that, and ends.
"""

import contextlib
import errno
import gc
import os
import socket
import sys
from typing import NoReturn

from flinkjob.taskmanager import runner
from flinkjob.taskmanager.forkchannel import Answer, Collected, Fork, Forked, NotForked, receive_request, send
from flinkjob.taskmanager.processes import take_mark


def serve(channel: socket.socket) -> None:
    """Fork and collect until the TaskManager is gone and all worker processes have ended."""
    while received := receive_request(channel):
        request, descriptors = received
        if isinstance(request, Fork):
            _fork(channel, request, descriptors)
        else:
            _, status = os.waitpid(request.pid, 0)
            _answer(channel, Collected(os.waitstatus_to_exitcode(status)))
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def _fork(channel: socket.socket, request: Fork, descriptors: list[int]) -> None:
    try:
        if len(descriptors) < 2:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        pid, process = _fork_worker(channel, request, *descriptors)
    except OSError as error:
        _answer(channel, NotForked(error.strerror or str(error)))
    else:
        _answer(channel, Forked(pid), process)
        os.close(process)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _fork_worker(channel: socket.socket, request: Fork, control: int, log: int) -> tuple[int, int]:
    """The id of a new worker process that leads its session, and a descriptor of it."""
    begun, begins = os.pipe()
    try:
        pid = os.fork()
        if not pid:
            _be_worker(request, control, log, begins, others=(channel.detach(), begun))
    finally:
        os.close(begins)
        # Whoever knows the process may kill its session: that must exist. The pipe's end is closed when it does.
        os.read(begun, 1)
        os.close(begun)
    return pid, os.pidfd_open(pid)


def _be_worker(request: Fork, control: int, log: int, begins: int, *, others: tuple[int, ...]) -> NoReturn:
    try:
        os.dup2(log, sys.stdout.fileno())
        os.dup2(log, sys.stderr.fileno())
        for descriptor in (log, *others):
            os.close(descriptor)
        os.setsid()
        take_mark(request.mark)
        os.close(begins)
        runner.main(socket.socket(fileno=control), request.module_dir, request.scratch)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        # Nothing that is the fork server's is to be done here, whatever has happened.
        os._exit(1)


def _answer(channel: socket.socket, answer: Answer, *descriptors: int) -> None:
    with contextlib.suppress(ConnectionError):  # that the TaskManager is gone shows in what it asks next
        send(channel, answer, descriptors)


def main() -> None:
    """The process; its argument is the channel's descriptor."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)
    gc.collect()
    # What is there now is there for ever; to look through it again would make copies of the pages it is in.
    gc.freeze()
    serve(channel)


if __name__ == "__main__":
    main()
