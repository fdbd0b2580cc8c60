"""From an exception to words: what reaches the log, the REST API and people as the cause of a failure."""

from itertools import dropwhile
from types import FrameType

from flinkjob.api.errors import FlinkJobError, TaskError

MAX_CAUSE_BYTES = 4096
"""The longest description of a failure; it is logged, so it must not be a whole program's output."""


def describe_failure(error: BaseException) -> str:
    """What went wrong on one line, then the calls in the task's code that led there, in at most MAX_CAUSE_BYTES.

    Where not all fits, the outer calls are left out. A TaskError says all by itself, on as many lines as it needs.
    """
    if isinstance(error, TaskError):
        return cut(str(error), MAX_CAUSE_BYTES)
    text = cut(one_line(error), MAX_CAUSE_BYTES // 2)
    # An InvalidInput about a module that fails to load has that module's exception as its cause.
    known = isinstance(error, FlinkJobError)
    source = error.__cause__ if known and error.__cause__ is not None else error
    kept: list[str] = []
    room = MAX_CAUSE_BYTES - len(text.encode())
    for line in reversed(_calls(source, known=known)):
        room -= len(line.encode()) + 1
        if room < 0:
            break
        kept.append(line)
    return "\n".join((text, *reversed(kept)))


def one_line(error: BaseException) -> str:
    """The exception's type and the first line of its text; one of the project's own needs no type."""
    if isinstance(error, SystemExit):
        return f"the task called sys.exit({error.code!r})"
    lines = _printable(str(error)).splitlines()
    if isinstance(error, FlinkJobError) and lines:
        return lines[0]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def cut(text: str, size: int) -> str:
    """The text in at most ``size`` bytes, with a sign where it was cut."""
    text = _printable(text)
    data = text.encode()
    return text if len(data) <= size else data[: size - len("…".encode())].decode(errors="ignore") + "…"


def _printable(text: str) -> str:
    """The text without lone surrogates, which no encoding can carry."""
    return text.encode(errors="replace").decode()


def _calls(error: BaseException, *, known: bool) -> list[str]:
    """The calls from the task's own code on, the outermost first."""
    import traceback  # only failures need it, and the fork server is to start fast

    calls = list(traceback.walk_tb(error.__traceback__))
    theirs = list(dropwhile(_is_ours, calls))
    if not theirs and not known:
        theirs = calls  # a fault of this program: there is nothing else to show
    summary = traceback.StackSummary.extract(iter(theirs))
    return [_printable(f"  {call.filename}:{call.lineno} in {call.name}: {call.line}") for call in summary]


def _is_ours(call: tuple[FrameType, int]) -> bool:
    module = str(call[0].f_globals.get("__name__", ""))
    return module == "__main__" or module.startswith(("flinkjob.", "importlib"))
