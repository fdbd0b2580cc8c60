"""Processes as the kernel counts them: how one ended, and how to end all of a session.

A worker process leads a session of its own; whatever it or its tasks start belongs to that session, in whatever process
group, unless it makes itself a daemon (``setsid``).
"""

import contextlib
import os
import signal


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


def session_members(session: int) -> list[int]:
    """The processes of the session that still run, by id; zombies do not count."""
    members = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb", buffering=0) as file:
                    # The command's name stands in parentheses and may hold anything; what follows is plain.
                    state, _, _, own_session = file.read().rpartition(b")")[2].split()[:4]
            except OSError:
                continue
            if int(own_session) == session and state not in (b"Z", b"X"):
                members.append(int(name))
    return members


def kill_session(session: int) -> None:
    """Kill every process of the session, and those that they start meanwhile; the caller, if it is one of them, last."""
    own = os.getpid()
    killed = {own}
    while others := set(session_members(session)) - killed:
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
