"""A refusal knows its field: it is raised where the problem is seen and gains the path on its way up.

A value deep inside a manifest does not know where it stands. So it raises `FieldError` with what it knows, and each
level above adds its own step with `under`, until the text reads ``spec.job.vertices[1].parallelism: …``.
"""

import difflib
from collections.abc import Iterable
from typing import Self

from flinkjob.api.errors import InvalidManifest

Step = str | int


class FieldError(InvalidManifest):
    """A field of a manifest, or of a typed value made in Python, is refused.

    Attributes:
        problem: what is wrong and what is allowed, without the place.
        path: the steps to the field, outermost first: field names and list positions.
    """

    def __init__(self, problem: str, *path: Step) -> None:
        super().__init__(f"{render_path(path)}: {problem}" if path else problem)
        self.problem = problem
        self.path = path

    def under(self, *outer: Step) -> Self:
        """The same refusal, seen from further out."""
        return type(self)(self.problem, *outer, *self.path)


def render_path(path: Iterable[Step]) -> str:
    """``("vertices", 1, "name")`` as ``vertices[1].name``; a step that is no plain name is quoted in brackets."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif not step.replace("-", "_").isidentifier():
            text += f"[{step!r}]"
        else:
            text += f".{step}" if text else step
    return text


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` for the known word nearest to `word`, or nothing when none is near."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def shown(value: object) -> str:
    """The value as a message quotes it: on one line, and cut when it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"
