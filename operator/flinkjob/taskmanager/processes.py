"""Processes as the kernel counts them: how one ended, and how to end all that a worker process has started.

A worker process leads a session of its own; whatever it or its tasks start belongs to that session, in whatever process
group. What makes itself a daemon (``setsid``) leaves the session, but not without the environment that it was given: in
that stands a mark of its worker process's own. Only who leaves the one and wipes out the other gets away.
"""

import contextlib
import os
import signal

MARK = "_FLINKJOB_WORKER_PROCESS"
"""The environment variable that tells whose a process is."""


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


def members_of(session: int, mark: str = "") -> list[int]:
    """The processes that still run of the session, or with the mark in their environment, by id; zombies do not count."""
    entry = f"{MARK}={mark}".encode()
    return [
        int(name)
        for name in os.listdir("/proc")
        if name.isdigit() and (_is_in_session(name, session) or (mark and _has_in_environment(name, entry)))
    ]


def _is_in_session(process: str, session: int) -> bool:
    # The command's name stands in parentheses and may hold anything; what follows is plain.
    fields = _proc(process, "stat").rpartition(b")")[2].split()[:4]
    return len(fields) == 4 and int(fields[3]) == session and fields[0] not in (b"Z", b"X")


def _has_in_environment(process: str, entry: bytes) -> bool:
    # A zombie has none, and that of another user's processes is not to be read.
    return entry in _proc(process, "environ").split(b"\0")


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


def kill_group(group: int) -> None:
    """Kill every process of the group, if there is any."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
