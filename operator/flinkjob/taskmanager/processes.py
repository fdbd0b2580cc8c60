"""Processes as the kernel counts them: how one ended, and how to end all that a worker process has started.

A worker process leads a session of its own; whatever it or its tasks start belongs to that session, in whatever process
group. What makes itself a daemon (``setsid``) leaves the session, but not without the environment that it was given: in
that stands a mark of its worker process's own. Only who leaves the one and wipes out the other gets away.
"""

import contextlib
import os
import select
import signal

MARK = "_FLINKJOB_WORKER_PROCESS"
"""The environment variable that tells whose a process is."""

UNMARKED = "-" * 16
"""Its value in a process that others are to be forked from; every mark is as long."""

_ENV_START = 50 - 3
"""Where among the fields of ``stat`` it says where the environment begins; the next one says where it ends."""


def describe_exit(code: int) -> str:
    """How a process ended, in words; a negative code is the signal that killed it."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (perhaps it ran out of memory)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"


def take_mark(mark: str) -> None:
    """Mark this process, just forked from an unmarked one, and so all that it starts."""
    os.environ[MARK] = mark
    # /proc tells of the memory in which a program found its environment, whatever has changed since; a fork copies that.
    # Where it is not told or cannot be written, daemons that are forked and execute nothing could get away, and only they.
    with contextlib.suppress(OSError, ValueError):
        _rewrite_first_environment(f"{MARK}={UNMARKED}".encode(), f"{MARK}={mark}".encode())


def _rewrite_first_environment(entry: bytes, replacement: bytes) -> None:
    start, end = map(int, _stat("self")[_ENV_START : _ENV_START + 2])
    offset = (b"\0" + _proc("self", "environ")).find(b"\0" + entry)
    if offset >= 0 and len(entry) == len(replacement) <= end - start - offset:
        memory = os.open("/proc/self/mem", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(memory, replacement, start + offset)
        finally:
            os.close(memory)


def members_of(session: int, mark: str = "") -> list[int]:
    """The processes that still run of the session, or with the mark in their environment, by id; zombies do not count."""
    entry = f"{MARK}={mark}".encode()
    return [
        int(name)
        for name in os.listdir("/proc")
        if name.isdigit() and (_is_in_session(name, session) or (mark and _has_in_environment(name, entry)))
    ]


def _is_in_session(process: str, session: int) -> bool:
    fields = _stat(process)
    return len(fields) > 3 and int(fields[3]) == session and fields[0] not in (b"Z", b"X")


def _has_in_environment(process: str, entry: bytes) -> bool:
    # A zombie has none, and that of another user's processes is not to be read.
    return entry in _proc(process, "environ").split(b"\0")


def _stat(process: str) -> list[bytes]:
    """The fields of ``stat`` from the third on, the state: the manual counts them from 1, and this list from 3."""
    # The command's name stands in parentheses and may hold anything; what follows is plain.
    return _proc(process, "stat").rpartition(b")")[2].split()


def _proc(process: str, name: str) -> bytes:
    try:
        with open(f"/proc/{process}/{name}", "rb", buffering=0) as file:
            return file.read()
    except OSError:
        return b""


def kill_members(session: int, mark: str = "") -> None:
    """Kill all that ``members_of`` finds, and what they start meanwhile; the caller, if it is one of them, last."""
    own = os.getpid()
    killed = {own}
    while others := set(members_of(session, mark)) - killed:
        for pid in others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed |= others
    if os.getsid(0) == session:
        os.kill(own, signal.SIGKILL)


def await_end(process: int) -> int | None:
    """Wait for the end of a process, given by a descriptor of it (a pidfd).

    Its exit code is known only where it is the caller's own child, as orphans are of process 1; None otherwise.
    """
    end = select.poll()
    end.register(process, select.POLLIN)
    end.poll()
    try:
        told = os.waitid(os.P_PIDFD, process, os.WEXITED)
    except ChildProcessError:
        return None
    assert told is not None, "it is waited for"
    return told.si_status if told.si_code == os.CLD_EXITED else -told.si_status


def kill_group(group: int) -> None:
    """Kill every process of the group, if there is any."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
