"""The job of a FlinkJob: parallel vertices and how their data flows, as a person declares them.

These are the values of ``spec.job``. Each of them checks what it can see of itself when it is made, from a manifest or
in Python; what needs the whole graph (unknown inputs, cycles, the parallelism of forward edges) is the JobGraph's to
check.
"""

import enum
import re
from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta, Struct, field

from flinkjob.api.fields import FieldError

MAX_PARALLELISM = 32768
"""The largest parallelism of a vertex: Flink's upper bound (``KeyGroupRangeAssignment``)."""

MAX_NAME_LENGTH = 63
"""The longest name of a vertex: what still fits a Kubernetes label."""

MAX_VERTICES = 1000
"""The most vertices that a manifest may declare. An entrypoint may build more."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9_.]*[a-z0-9])?")

ByteSize = Annotated[int, Meta(extra={"format": "memory"})]
"""Bytes; a manifest may write them as a Flink memory size such as ``64 kb``."""

OneOrMore = Annotated[tuple[str, ...], Meta(extra={"format": "one-or-more"})]
"""A list of strings; a manifest may write a list of one as the bare string."""


class Partitioner(enum.StrEnum):
    """Which consuming subtask gets a record.

    Attributes:
        FORWARD: subtask *i* feeds subtask *i*; both vertices have the same parallelism.
        HASH: the hash of the record's key decides, so that equal keys meet.
        REBALANCE: the subtasks in turn.
        BROADCAST: every subtask gets every record.
    """

    FORWARD = "forward"
    HASH = "hash"
    REBALANCE = "rebalance"
    BROADCAST = "broadcast"


class Exchange(enum.StrEnum):
    """When the consumer of an edge may read what its producer writes.

    Attributes:
        BLOCKING: when the producing subtask has finished.
    """

    BLOCKING = "blocking"

    @classmethod
    def _missing_(cls, value: object) -> "Exchange | None":
        if value == "pipelined":
            raise FieldError(
                "'pipelined' is not supported: every exchange of a batch job is blocking here, so that a finished "
                "subtask never has to run again because its consumer failed; write blocking, or leave the field out"
            )
        return None


class TaskSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """What each subtask of a vertex runs: a Python function or any program, exactly one of them.

    Attributes:
        python: ``module:function``, called in a worker process with the task's context.
        command: program and arguments, run without a shell.
        args: what the Python function gets as its arguments; only with `python`.
        env: environment variables for the program; only with `command`.

    Raises:
        FieldError: not exactly one of `python` and `command`, or a malformed one.
    """

    python: str | None = None
    command: tuple[str, ...] | None = None
    args: dict[str, Any] = {}
    env: dict[str, str] = {}

    def __post_init__(self) -> None:
        if (self.python is None) == (self.command is None):
            raise FieldError("needs exactly one of python, command")
        if self.python is not None:
            _check_function(self.python, "python")
            if self.env:
                raise FieldError("is only for a command; a python task is told by args", "env")
        if self.command is not None:
            _check_command(self.command)
            if self.args:
                raise FieldError("is only for a python task; a command has its arguments in the list itself", "args")
        _check_env(self.env)


class InputSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """An edge, seen from its consumer.

    Attributes:
        source: name of the producing vertex (``from`` in a manifest).
        partitioner: which consuming subtask gets a record.
        exchange: when the consumer may read.
    """

    source: str = field(name="from")
    partitioner: Partitioner = Partitioner.REBALANCE
    exchange: Exchange = Exchange.BLOCKING


class SplitsSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """Where the input splits of a source vertex come from: files or an enumerator, exactly one of them.

    Attributes:
        files: glob patterns of the files to read.
        max_split_size: bytes in one split at most, at least 1; None makes each file one split. Only with `files`.
        python: ``module:function`` that enumerates the splits.
        args: what the enumerator gets as its arguments; only with `python`.

    Raises:
        FieldError: not exactly one of `files` and `python`, or a malformed one.
    """

    files: OneOrMore | None = None
    max_split_size: ByteSize | None = None
    python: str | None = None
    args: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if (self.files is None) == (self.python is None):
            raise FieldError("needs exactly one of files, python")
        if self.files is not None:
            _check_patterns(self.files)
            if self.args:
                raise FieldError("is only for a python enumerator, not for files", "args")
        if self.python is not None:
            _check_function(self.python, "python")
            if self.max_split_size is not None:
                raise FieldError("is only for files; a python enumerator cuts its own splits", "maxSplitSize")
        if self.max_split_size is not None and self.max_split_size < 1:
            raise FieldError(f"{self.max_split_size} bytes is less than 1 byte", "maxSplitSize")


class VertexSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """A vertex of the job: one task, run by as many subtasks as its parallelism says.

    Attributes:
        name: lower-case letters, digits, ``-``, ``_``, ``.``, at most `MAX_NAME_LENGTH` of them.
        parallelism: number of subtasks, 1 to `MAX_PARALLELISM`.
        task: what each subtask runs.
        inputs: the edges that feed this vertex; a vertex without any is a source.
        splits: input splits, handed to subtasks as they ask for them; only for a source.

    Raises:
        FieldError: a malformed name, a parallelism out of range, splits beside inputs.
    """

    name: str
    parallelism: int = 1
    task: TaskSpec
    inputs: tuple[InputSpec, ...] = ()
    splits: SplitsSpec | None = None

    def __post_init__(self) -> None:
        if len(self.name) > MAX_NAME_LENGTH or not _NAME.fullmatch(self.name):
            raise FieldError(
                f"{self.name!r} is not a vertex name: at most {MAX_NAME_LENGTH} lower-case letters, digits, "
                "'-', '_' and '.', the first and the last a letter or a digit",
                "name",
            )
        if not 1 <= self.parallelism <= MAX_PARALLELISM:
            raise FieldError(f"{self.parallelism} is not between 1 and {MAX_PARALLELISM}", "parallelism")
        if self.splits is not None and self.inputs:
            raise FieldError("is only for a vertex without inputs", "splits")


class JobState(enum.StrEnum):
    """Whether the job is to run (Flink's operator: ``spec.job.state``).

    Attributes:
        RUNNING: it runs to its end.
        SUSPENDED: nothing runs; what has finished is kept in the storage, and the rest goes on once it runs again.
    """

    RUNNING = "running"
    SUSPENDED = "suspended"


class JobSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """The job: its vertices, or the function that builds them, exactly one of them.

    Attributes:
        vertices: the declared vertices, with names of their own.
        entrypoint: ``module:function`` that builds the JobGraph; it runs once, and what it built is kept.
        args: what the entrypoint gets as its arguments; only with `entrypoint`.
        state: whether the job is to run; only for a job on Kubernetes.

    Raises:
        FieldError: not exactly one of `vertices` and `entrypoint`, too many vertices, or two vertices of one name.
    """

    vertices: tuple[VertexSpec, ...] | None = None
    entrypoint: str | None = None
    args: dict[str, Any] = {}
    state: JobState = JobState.RUNNING

    def __post_init__(self) -> None:
        if (self.vertices is None) == (self.entrypoint is None):
            raise FieldError("needs exactly one of vertices, entrypoint")
        if self.vertices is not None:
            _check_vertices(self.vertices)
            if self.args:
                raise FieldError("is only for an entrypoint; a vertex has its arguments at task.args", "args")
        if self.entrypoint is not None:
            _check_function(self.entrypoint, "entrypoint")


def _check_vertices(vertices: tuple[VertexSpec, ...]) -> None:
    if not vertices:
        raise FieldError("needs at least one vertex", "vertices")
    if len(vertices) > MAX_VERTICES:
        raise FieldError(f"{len(vertices)} vertices are more than {MAX_VERTICES}", "vertices")
    first: dict[str, int] = {}
    for index, vertex in enumerate(vertices):
        earlier = first.setdefault(vertex.name, index)
        if earlier != index:
            raise FieldError(f"{vertex.name!r} is already the name of vertices[{earlier}]", "vertices", index, "name")


def _check_function(reference: str, name: str) -> None:
    module, colon, function = reference.partition(":")
    parts = [*module.split("."), *function.split(".")]
    if not colon or not all(part.isidentifier() for part in parts):
        raise FieldError(f"{reference!r} is not of the form module:function", name)


def _check_command(command: tuple[str, ...]) -> None:
    if not command or not command[0]:
        raise FieldError("needs the program to run as its first item", "command")
    for index, argument in enumerate(command):
        if "\0" in argument:
            raise FieldError("a program's argument cannot hold a NUL character", "command", index)


def _check_env(env: Mapping[str, str]) -> None:
    for name, value in env.items():
        if not name or "=" in name or "\0" in name:
            raise FieldError(f"{name!r} is not the name of an environment variable", "env")
        if "\0" in value:
            raise FieldError("an environment variable cannot hold a NUL character", "env", name)


def _check_patterns(patterns: tuple[str, ...]) -> None:
    if not patterns:
        raise FieldError("needs at least one pattern", "files")
    for index, pattern in enumerate(patterns):
        if not pattern or "\0" in pattern:
            raise FieldError(f"{pattern!r} is not a file pattern", "files", index)
