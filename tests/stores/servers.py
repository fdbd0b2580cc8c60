"""Processes that serve a store to tests: started on free loopback ports, waited for, ended by their ids."""

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

DEADLINE = 60.0
"""Seconds within which a server has to serve."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on; small enough that 10,000 more is a port too, as some servers want."""
    with contextlib.ExitStack() as open_sockets:
        ports: list[int] = []
        while len(ports) < count:
            held = open_sockets.enter_context(socket.socket())
            held.bind(("127.0.0.1", 0))
            ports.append(held.getsockname()[1])
        return ports


@contextlib.contextmanager
def server(
    command: Sequence[str], *, log: Path, serves: Callable[[], bool], environment: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that serves once ``serves`` says so, and until the block ends."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=log.parent,
            env=environment,
            start_new_session=True,
        )
    try:
        wait_until(serves, process, log)
        yield process
    finally:
        end(process)


def wait_until(serves: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until the server serves; a failure shows the end of its log."""
    deadline = time.monotonic() + DEADLINE
    while not serves():
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"{process.args!r} does not serve:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.1)


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a server, at once; what it holds is thrown away."""
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    process.wait()


def listens(port: int, address: str = "127.0.0.1") -> bool:
    """Whether somebody does on this port."""
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0
