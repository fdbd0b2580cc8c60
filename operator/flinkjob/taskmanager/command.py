"""A task that is a program.

It runs in a scratch directory of its own, which is empty but for its inputs:

- each input is a file of lines, named as the producing vertex. A record is a line: a str as it is, a tuple or list as its
  items with tabs between them, bytes as they are, anything else as JSON. When there is only one input, ``part`` is
  another name of it.
- the program of a source with splits is run once for each split, one after the other. The split's lines (those that start
  in its range) are in ``part``. ``FLINKJOB_SPLIT`` is the number of the split, counted from 0 in this subtask, and
  ``FLINKJOB_SPLIT_PATH``, ``FLINKJOB_SPLIT_START``, ``FLINKJOB_SPLIT_LENGTH`` and ``FLINKJOB_SPLIT_PAYLOAD`` (JSON) are the
  rest of it.

Each line that it prints is a record, a str, whose key is what stands before the first tab. What it writes to standard error
goes to the log of its slot. The environment names the task (``FLINKJOB_JOB``, ``FLINKJOB_VERTEX``, ``FLINKJOB_SUBTASK``,
``FLINKJOB_PARALLELISM``, ``FLINKJOB_ATTEMPT``) and the manifest's directory (``FLINKJOB_MODULE_DIR``, at the end of ``PATH``
too). ``FLINKJOB_MANIFEST`` is a JSON file with ``job``, ``vertex``, ``subtask``, ``parallelism``, ``attempt``, ``inputs``
(paths by name) and ``split`` (null, or ``number``, ``path``, ``start``, ``length``, ``payload``).

The program leads a process group; what is left of the group when the program has ended is killed.
"""

import os
import select
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from flinkjob.api.errors import TaskCancelled, TaskError
from flinkjob.api.job import TaskSpec
from flinkjob.taskmanager.context import Split, TaskContext
from flinkjob.taskmanager.failures import cut
from flinkjob.taskmanager.processes import describe_exit, kill_group

STDERR_BYTES = 2048
"""How much of the end of standard error becomes part of the cause of a failure."""

_READ_BYTES = 1 << 18


class CommandFailed(TaskError):
    """The program could not be started, or did not end with exit code 0."""


def run_command(context: TaskContext, task: TaskSpec, *, scratch: str, module_dir: str) -> None:
    """Run the task's program, once or once per split.

    Args:
        context: the attempt.
        task: the program and its environment.
        scratch: a directory that is this process's own; what it held is removed.
        module_dir: the manifest's directory.

    Raises:
        CommandFailed: how, and the last lines of its standard error.
        TaskCancelled: the task was told to stop; so was the program.
    """
    runs: Iterable[tuple[int, Split | None]] = enumerate(context.splits()) if context.has_splits else [(0, None)]
    for number, split in runs:
        shutil.rmtree(scratch, ignore_errors=True)
        directory = os.path.join(scratch, "task")
        os.makedirs(directory)
        inputs = _write_inputs(context, directory, split)
        manifest = os.path.join(scratch, "manifest.json")
        with open(manifest, "wb") as file:
            file.write(msgspec.json.encode(_manifest(context, inputs, number, split)))
        own = {"FLINKJOB_MANIFEST": manifest, "FLINKJOB_MODULE_DIR": module_dir}
        environment = os.environ | own | _identity(context, number, split) | task.env
        environment["PATH"] = os.pathsep.join(filter(None, (environment.get("PATH"), module_dir)))
        assert task.command is not None
        _run(context, task.command, directory, environment)
    shutil.rmtree(scratch, ignore_errors=True)


def line_of(record: Any) -> bytes:
    """A record as a line, without its end."""
    if isinstance(record, (tuple, list)):
        return b"\t".join(_text(item) for item in record)
    return _text(record)


def _text(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    return value if isinstance(value, bytes) else msgspec.json.encode(value)


def _write_inputs(context: TaskContext, directory: str, split: Split | None) -> dict[str, str]:
    """Write all input files; returns their paths by the names of the producing vertices."""
    part = os.path.join(directory, "part")
    if split is not None and split.path:
        with open(part, "wb") as file:
            file.writelines(line.encode() + b"\n" for line in split.lines())
    inputs = {name: os.path.join(directory, name) for name in context.input_names}
    for name, path in inputs.items():
        with open(path, "wb") as file:
            file.writelines(line_of(record) + b"\n" for record in context.read(name))
    if len(inputs) == 1 and "part" not in inputs:
        os.symlink(next(iter(inputs)), part)
    return inputs


def _identity(context: TaskContext, number: int, split: Split | None) -> dict[str, str]:
    environment = {
        "FLINKJOB_JOB": context.job,
        "FLINKJOB_VERTEX": context.vertex,
        "FLINKJOB_SUBTASK": str(context.subtask),
        "FLINKJOB_PARALLELISM": str(context.parallelism),
        "FLINKJOB_ATTEMPT": str(context.attempt),
    }
    if split is not None:
        environment |= {
            "FLINKJOB_SPLIT": str(number),
            "FLINKJOB_SPLIT_PATH": split.path,
            "FLINKJOB_SPLIT_START": str(split.start),
            "FLINKJOB_SPLIT_LENGTH": str(split.length),
            "FLINKJOB_SPLIT_PAYLOAD": msgspec.json.encode(split.payload).decode(),
        }
    return environment


def _manifest(context: TaskContext, inputs: Mapping[str, str], number: int, split: Split | None) -> dict[str, Any]:
    return {
        "job": context.job,
        "vertex": context.vertex,
        "subtask": context.subtask,
        "parallelism": context.parallelism,
        "attempt": context.attempt,
        "inputs": inputs,
        "split": None if split is None else {"number": number, **msgspec.to_builtins(split)},
    }


def _run(context: TaskContext, command: tuple[str, ...], directory: str, environment: Mapping[str, str]) -> None:
    log_position = _stderr_position()
    try:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            process_group=0,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise CommandFailed(f"the program {command[0]!r} cannot be run: {reason}") from None
    assert process.stdout is not None
    with process:
        try:
            for line in _lines(process.stdout.fileno(), process.pid):
                context.emit(line, line.partition("\t")[0])
            _await_end(process.pid)
        except TaskCancelled:
            # It has the same grace to end as a Python task has; the TaskManager kills this process when that is over.
            os.killpg(process.pid, signal.SIGTERM)
            process.stdout.close()
            _await_end(process.pid)
            raise
        finally:
            # Its id is still its own: nobody has waited for it yet.
            kill_group(process.pid)
    if process.returncode:
        tail = _stderr_since(log_position)
        raise CommandFailed(f"the program {command[0]!r} {describe_exit(process.returncode)}" + (tail and f"\n{tail}"))


def _lines(output: int, pid: int) -> Iterator[str]:
    """The lines that a program prints until it ends, and what is in the pipe then.

    Its end is that of the program itself: one that it has left in the background may hold the pipe open for ever.
    """
    os.set_blocking(output, False)
    end = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(output, select.POLLIN)
        poll.register(end, select.POLLIN)
        rest = bytearray()
        ended = False
        while not ended:
            ended = any(descriptor == end for descriptor, _ in poll.poll())
            while data := _read(output):
                rest += data
                if b"\n" in data:
                    *lines, rest = rest.split(b"\n")
                    for line in lines:
                        yield line.decode(errors="replace")
            ended = ended or data is not None
        if rest:
            yield rest.decode(errors="replace")
    finally:
        os.close(end)


def _await_end(pid: int) -> None:
    """Wait until the process has ended, and leave it to its parent object to collect it."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def _read(descriptor: int) -> bytes | None:
    """What there is to read, empty at the end; None when there is nothing now."""
    try:
        return os.read(descriptor, _READ_BYTES)
    except BlockingIOError:
        return None


def _stderr_position() -> int:
    return os.fstat(2).st_size


def _stderr_since(position: int) -> str:
    """The last lines that were written to standard error since it was at this position, if that can be read."""
    end = _stderr_position()
    start = max(position, end - STDERR_BYTES)
    try:
        data = os.pread(2, end - start, start)
    except OSError:
        return ""
    return cut(data.decode(errors="replace").strip(), STDERR_BYTES)
