"""The user's functions that a JobManager needs, each run once in a process of its own.

An entrypoint builds the JobGraph, an enumerator the input splits; tasks are only looked for. None of them may bring the
JobManager down, keep its loop from turning or leave modules behind, so a child process calls the function and hands back
plain values: the request comes as JSON on standard input, the answer goes as JSON to the file named in it, and what the
function prints goes to standard error.
"""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from flinkjob.api.errors import FlinkJobError, InvalidInput, InvalidJobGraph
from flinkjob.api.job import VertexSpec
from flinkjob.graph.jobgraph import JobGraphBuilder
from flinkjob.graph.operations import InputSplit
from flinkjob.taskmanager.context import Split
from flinkjob.taskmanager.failures import describe_failure
from flinkjob.taskmanager.loading import load_function


class UserCodeFailed(FlinkJobError):
    """The user's function could not be called, raised, or gave back something unusable."""


async def build_vertices(entrypoint: str, args: dict[str, Any], module_dir: Path) -> list[VertexSpec]:
    """Call ``spec.job.entrypoint``.

    Raises:
        InvalidJobGraph: the function failed or did not give a JobGraphBuilder.
    """
    try:
        answer = await _call("entrypoint", entrypoint, args, module_dir)
        return msgspec.convert(answer, list[VertexSpec])
    except (UserCodeFailed, msgspec.ValidationError) as error:
        raise InvalidJobGraph(f"spec.job.entrypoint: {error}") from None


async def check_functions(functions: Mapping[str, str], module_dir: Path) -> None:
    """Look for functions, and import their modules, without calling any.

    Args:
        functions: ``module:function``, by the place that names it.
        module_dir: where modules are.

    Raises:
        InvalidJobGraph: one is not there; the message names the place.
    """
    if functions:
        try:
            await _call("check", "the job's functions", dict(functions), module_dir)
        except UserCodeFailed as error:
            raise InvalidJobGraph(str(error)) from None


async def enumerate_splits(function: str, args: dict[str, Any], module_dir: Path) -> tuple[InputSplit, ...]:
    """Call a custom enumerator.

    Raises:
        UserCodeFailed: the function failed or gave something that is no split.
    """
    answer = await _call("enumerator", function, args, module_dir)
    try:
        return msgspec.convert(answer, tuple[InputSplit, ...])
    except msgspec.ValidationError as error:
        raise UserCodeFailed(f"{function} gave something that is no split: {error}") from None


async def _call(kind: str, function: str, args: dict[str, Any], module_dir: Path) -> Any:
    with tempfile.TemporaryDirectory(prefix="flinkjob-") as scratch:
        answer = Path(scratch) / "answer.json"
        request = {"kind": kind, "function": function, "args": args, "dir": str(module_dir), "answer": str(answer)}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "flinkjob.jobmanager.usercode", stdin=asyncio.subprocess.PIPE, stdout=2
        )
        try:
            await process.communicate(json.dumps(request).encode())
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        if not answer.exists():
            raise UserCodeFailed(f"the process that called {function} ended with code {process.returncode}")
        result = json.loads(answer.read_bytes())
    if "error" in result:
        raise UserCodeFailed(result["error"])
    return result["value"]


def _as_split(value: Any) -> InputSplit:
    if isinstance(value, Split):
        return InputSplit(value.path, value.start, value.length, value.payload)
    return InputSplit(payload=value)


def _check(functions: Mapping[str, str], module_dir: str) -> None:
    for place, function in functions.items():
        try:
            load_function(function, module_dir)
        except InvalidInput as error:
            raise InvalidInput(f"{place}: {error}") from error


def _answer(request: dict[str, Any]) -> Any:
    if request["kind"] == "check":
        return _check(request["args"], request["dir"])
    name = request["function"]
    value = load_function(name, request["dir"])(request["args"])
    if request["kind"] == "entrypoint":
        if not isinstance(value, JobGraphBuilder):
            raise UserCodeFailed(f"{name} must return a JobGraphBuilder; it returned {type(value).__name__}")
        return value.vertices
    if not isinstance(value, Iterable):
        raise UserCodeFailed(f"{name} must return the splits as an iterable; it returned {type(value).__name__}")
    return [_as_split(split) for split in value]


def main() -> None:
    """The child process."""
    request = json.load(sys.stdin)
    answer = Path(request["answer"])
    os.dup2(2, 1)
    try:
        result: dict[str, Any] = {"value": _answer(request)}
        data = msgspec.json.encode(result)
    except FlinkJobError as error:
        data = msgspec.json.encode({"error": str(error)})
    except Exception as error:
        data = msgspec.json.encode({"error": f"{request['function']}: {describe_failure(error)}"})
    answer.write_bytes(data)


if __name__ == "__main__":
    main()
