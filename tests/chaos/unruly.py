"""The gated job with tasks in its second vertex that misbehave in their first attempt."""

import json
from pathlib import Path
from typing import Any

from local.clusters import GatedJob

TASKS = '''

import signal
import subprocess
import sys


def unruly(context):
    """Tells of itself, misbehaves in its first attempt as ``deed`` says, and is a gated task then."""
    tell(context)
    if context.attempt == 0:
        globals()[context.args["deed"]](context)
    go_on(context)


def fails(context):
    if context.subtask == 0:
        wait(context, "deed")
        raise RuntimeError("the disk is purple")


def hangs_on_cancel(context):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if context.subtask == 0:
        wait(context, "deed")
        context.read().__next__()


def takes_all_memory(context):
    if context.subtask == 0:
        wait(context, "deed")
        Path(context.args["cgroup"]).write_text(str(os.getpid()))
        taken = b"*" * context.args["bytes"]
        raise AssertionError(f"the kernel gave {len(taken)} bytes")


def is_killed(context):
    if context.subtask == 0:
        wait(context, "deed")
        os.kill(os.getpid(), signal.SIGKILL)


def leaves_grandchildren(context):
    program = """
import os, time
for leave in (None, os.setpgrp, os.setsid):
    if not os.fork():
        if leave:
            leave()
        if not os.fork():
            with open(os.environ["PIDS"], "a") as file:
                file.write(f"{os.getpid()}\\\\n")
            time.sleep(1000)
        os._exit(0)
"""
    pids = Path(context.args["dir"]) / "grandchildren"
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "PIDS": str(pids)}, check=True)


def counts_much(context):
    # Names that do not fit into what is left of a page.
    context.add(f"{context.subtask}{'*' * 4096}", 1)
'''


def unruly(job: GatedJob, deed: str, **args: Any) -> GatedJob:
    """Have the second vertex's tasks do the deed; ``args`` are theirs."""
    module = job.path / "gated.py"
    module.write_text(module.read_text() + TASKS)
    before, gated, after = job.manifest.read_text().rpartition('python: "gated:gated", args: {')
    told = "".join(f"{name}: {json.dumps(value)}, " for name, value in {"deed": deed, **args}.items())
    job.manifest.write_text(before + gated.replace("gated:gated", "gated:unruly") + told + after)
    return job


def pids_in(file: Path, count: int) -> set[int]:
    """The process ids in a file, once so many lines are there; empty before."""
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    pids = {int(line) for line in lines if line.endswith("\n")}
    return pids if len(pids) == count else set()
