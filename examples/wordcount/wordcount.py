"""Counts the words and phrases of a Python standard library: the job of ``make demo``, and the same count in one process.

``python wordcount.py REPORT.json ...`` compares what reports of ``flinkjob run --output json`` found with a direct count.
"""

import glob
import heapq
import json
import re
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from flinkjob import JobGraphBuilder, TaskContext
from flinkjob.api.job import SplitsSpec

WORD = re.compile(r"[a-z]+")
STDLIB = Path(sysconfig.get_path("stdlib"))
TOP = 10
LONGEST = 7
TEXT = 48 << 20
"""Bytes up to which a small library is read again, to be counted once: so there is time to watch."""


def sources() -> tuple[str, ...]:
    """Patterns for the standard library's files; what was installed into its directory is not a part of it."""
    installed = {"site-packages", "dist-packages"}
    packages = sorted(path.name for path in STDLIB.iterdir() if path.is_dir() and path.name not in installed)
    return (f"{STDLIB}/*.py", *(f"{STDLIB}/{package}/**/*.py" for package in packages))


def files() -> set[str]:
    """The standard library's files."""
    return {path for pattern in sources() for path in glob.glob(pattern, recursive=True, include_hidden=True)}


def build(args: dict[str, int]) -> JobGraphBuilder:
    """The job: tokenize every source file in byte ranges, add up by word, keep the most frequent."""
    graph = JobGraphBuilder()
    splits = SplitsSpec(files=sources(), max_split_size=args.get("max_split_size", 64 << 10))
    rounds = max(1, TEXT // sum(Path(file).stat().st_size for file in files()))
    tokens = graph.python(
        "tokenize",
        "wordcount:tokenize",
        args={"rounds": rounds},
        parallelism=args.get("tokenizers", 8),
        splits=splits,
    )
    counts = graph.python("count", "wordcount:count", parallelism=args.get("counters", 8), inputs=[tokens.by_hash()])
    graph.python("report", "wordcount:report", inputs=[counts.rebalanced()])
    return graph


def phrases(lines: Iterable[str]) -> Counter[str]:
    """How often each word, and each phrase of up to LONGEST words within a line, stands in the lines."""
    counts: Counter[str] = Counter()
    for line in lines:
        words = WORD.findall(line.lower())
        counts.update(words)
        for length in range(2, LONGEST + 1):
            counts.update(map(" ".join, zip(*(words[start:] for start in range(length)), strict=False)))
    return counts


def tokenize(context: TaskContext) -> None:
    """Count the phrases of the splits that this subtask is given."""
    for split in context.splits():
        for _ in range(context.args["rounds"]):
            counts = phrases(split.lines())
        for phrase, count in counts.items():
            context.emit((phrase, count))
            if " " not in phrase:
                context.add("words", count)
        context.add("splits", 1)


def count(context: TaskContext) -> None:
    """Add up the counts of the phrases that are hashed to this subtask; pass on what can be among the most frequent."""
    totals: Counter[str] = Counter()
    for phrase, count in context.read():
        totals[phrase] += count
    for found in most_frequent(totals):
        context.emit(found)
    context.add("distinct phrases", len(totals))


def report(context: TaskContext) -> None:
    """Keep the most frequent phrases of each length."""
    for found in most_frequent(dict(context.read())):
        context.emit(found)


def most_frequent(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """The TOP most frequent phrases of each length, single words first, equal ones in alphabetical order."""
    best: list[tuple[str, int]] = []
    for length in range(1, LONGEST + 1):
        of_length = ((phrase, count) for phrase, count in counts.items() if phrase.count(" ") == length - 1)
        best += heapq.nsmallest(TOP, of_length, key=lambda found: (-found[1], found[0]))
    return best


def count_directly() -> dict[str, int]:
    """The same count, in this process."""
    totals: Counter[str] = Counter()
    for path in files():
        with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
            totals.update(phrases(file))
    return totals


def main() -> None:
    """Compare reports with the direct count; exit with 1 if one differs."""
    expected = most_frequent(count_directly())
    for name in sys.argv[1:]:
        with open(name, encoding="utf-8") as file:
            found = [tuple(record) for record in json.load(file)["outputs"]["report"]]
        print(f"{'the most frequent words':<24} {'flinkjob':>10} {'directly':>10}   ({name})")
        for (phrase, count), (_, wanted) in zip(found[:TOP], expected[:TOP], strict=True):
            print(f"{phrase:<24} {count:>10,} {wanted:>10,}")
        if found != expected:
            sys.exit(f"{name}: the counts differ.")
    print(f"These and the most frequent phrases of 2 to {LONGEST} words are the same.")


if __name__ == "__main__":
    main()
