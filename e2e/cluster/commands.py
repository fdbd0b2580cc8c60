"""Commands that the cluster is made with: run, told when they fail, and looked up before they are needed."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.tools import ClusterError

_SYSTEM = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where a user's PATH may not lead, and what is needed here lies."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's, with the directories of the system's programs on PATH."""
    return {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{_SYSTEM}", **(extra or {})}


def run(
    *command: str | Path,
    given: str | bytes | None = None,
    extra: Mapping[str, str] | None = None,
    timeout: float = 600,
    directory: Path | None = None,
) -> str:
    """Run a command to its end.

    Returns:
        What it printed.

    Raises:
        ClusterError: it is not there, it failed, or took longer than ``timeout`` seconds.
    """
    words = [str(word) for word in command]
    told = " ".join(words[:6])
    try:
        done = subprocess.run(
            words,
            input=given.encode() if isinstance(given, str) else given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            env=environment(extra),
            timeout=timeout,
            cwd=directory,
            check=False,
        )
    except FileNotFoundError as error:
        raise ClusterError(f"{words[0]} is not there") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{told}: not done after {timeout:.0f} s") from error
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise ClusterError(f"{told}: exit status {done.returncode}: {said[-3000:]}")
    return done.stdout.decode(errors="replace")


def succeeds(*command: str | Path, extra: Mapping[str, str] | None = None, timeout: float = 60) -> bool:
    """Whether a command does."""
    try:
        run(*command, extra=extra, timeout=timeout)
    except ClusterError:
        return False
    return True


def missing(programs: Sequence[str]) -> list[str]:
    """Those that are not on PATH."""
    return [program for program in programs if shutil.which(program, path=environment()["PATH"]) is None]
