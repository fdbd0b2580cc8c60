"""The processes of a local cluster: started, watched, replaced, ended.

Each process holds the reading end of a pipe whose writing end is here: when this process dies in any way, the pipe
closes and they end themselves, so that nothing is left behind.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(slots=True, eq=False)
class Process:
    """A child that runs ``flinkjob …``.

    Attributes:
        id: the name of the JobManager or TaskManager.
        died_at: when it was found to have ended, milliseconds of the Unix epoch.
    """

    id: str
    child: asyncio.subprocess.Process
    died_at: int = 0

    @property
    def pid(self) -> int:
        """The process id."""
        return self.child.pid

    @property
    def alive(self) -> bool:
        """Whether it has not been found to have ended."""
        return self.child.returncode is None

    async def ended(self) -> str:
        """Wait for the end, and say what it was."""
        code = await self.child.wait()
        self.died_at = int(time.time() * 1000)
        if code < 0:
            return f"its process was killed by {signal.Signals(-code).name}"
        return f"its process ended with exit code {code}"

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self.child.send_signal(number)

    async def stop(self, grace: float) -> None:
        """SIGTERM, then SIGKILL after ``grace`` seconds."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace):
                await self.child.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self.child.wait()


async def start(process_id: str, arguments: Sequence[str], *, log_file: Path) -> Process:
    """Start ``flinkjob ARGUMENTS`` with its output appended to the log file."""
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("ab") as log:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "flinkjob",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=log,
            stderr=log,
            # A Ctrl-C in the terminal is for the one who keeps the cluster, who then stops the others in order.
            start_new_session=True,
            env={**os.environ, "FLINKJOB_END_WITH_STDIN": "1"},
        )
    return Process(process_id, child)
