"""The commands in the documentation, and what runs each of them.

A fenced block whose language is ``sh`` says behind that word who runs it: ``local`` (a test on this machine, all such blocks
of a file in their order, in one shell), ``cluster`` (the end-to-end suite, on a real cluster), ``job`` (the same, with JOB
being a job that runs), ``tutorial`` (its lines are those of docs/tutorial.md, which ``cluster`` runs), ``ci`` (.ci/run
itself), or the path of the test that does, as in ``tests/local/test_local_by_hand.py``. What needs something that no test
has, a registry to push to, is a ``placeholder``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUNNERS = ("local", "cluster", "job", "tutorial", "ci", "placeholder")

_FENCE = re.compile(r"^( *)```(?P<info>[^`\n]*)\n(?P<text>.*?)^\1```$", re.MULTILINE | re.DOTALL)


def documents() -> list[Path]:
    """All that a user reads."""
    charts = sorted((ROOT / "charts").glob("*/README.md"))
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "examples" / "README.md", *charts]


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Attributes:
        file: where it is, from the repository's root. line: of its first line of text.
        language: the first word behind the fence. runner: the second, or "".
        text: what is between the fences.
    """

    file: str
    line: int
    language: str
    runner: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def blocks(path: Path) -> Iterator[Block]:
    """All fenced blocks of a file."""
    text = path.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        language, _, runner = match["info"].strip().partition(" ")
        line = text.count("\n", 0, match.start()) + 2
        yield Block(str(path.relative_to(ROOT)), line, language, runner.strip(), match["text"])


def run_by(runner: str) -> list[Block]:
    """All blocks that are run by one runner."""
    return [block for path in documents() for block in blocks(path) if block.runner == runner]
