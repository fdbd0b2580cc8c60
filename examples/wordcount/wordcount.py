"""Counts the words of a Python standard library: the job of ``make demo``, and the same count in one process.

``python wordcount.py RESULT.json`` compares the ten most frequent words of a report of ``flinkjob run --output json`` with
a direct count.
"""

import glob
import json
import re
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterable

from flinkjob import JobGraphBuilder, TaskContext
from flinkjob.api.job import SplitsSpec

WORD = re.compile(r"[a-z]+")
SOURCES = f"{sysconfig.get_path('stdlib')}/**/*.py"
TOP = 10


def build(args: dict[str, int]) -> JobGraphBuilder:
    """The job: tokenize every source file in byte ranges, add up by word, keep the most frequent."""
    graph = JobGraphBuilder()
    sources = SplitsSpec(files=(SOURCES,), max_split_size=args.get("max_split_size", 64 << 10))
    tokens = graph.python("tokenize", "wordcount:tokenize", parallelism=args.get("tokenizers", 48), splits=sources)
    counts = graph.python("count", "wordcount:count", parallelism=args.get("counters", 16), inputs=[tokens.by_hash()])
    graph.python("report", "wordcount:report", inputs=[counts.rebalanced()])
    return graph


def words(lines: Iterable[str]) -> Counter[str]:
    """How often each word stands in the lines."""
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(WORD.findall(line.lower()))
    return counts


def tokenize(context: TaskContext) -> None:
    """Count the words of the splits that this subtask is given."""
    for split in context.splits():
        for word, count in words(split.lines()).items():
            context.emit((word, count), key=word)
            context.add("words", count)
        context.add("splits", 1)


def count(context: TaskContext) -> None:
    """Add up the counts of the words that are hashed to this subtask."""
    totals: Counter[str] = Counter()
    for word, count in context.read():
        totals[word] += count
    for word, count in totals.items():
        context.emit((word, count))
    context.add("distinct words", len(totals))


def report(context: TaskContext) -> None:
    """Keep the most frequent words."""
    for word, count in most_frequent(dict(tuple(record) for record in context.read())):
        context.emit((word, count))


def most_frequent(counts: dict[str, int]) -> list[tuple[str, int]]:
    """The TOP most frequent words, equal ones in alphabetical order."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:TOP]


def count_directly() -> dict[str, int]:
    """The same count, in this process."""
    totals: Counter[str] = Counter()
    for path in glob.glob(SOURCES, recursive=True, include_hidden=True):
        with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
            totals.update(words(file))
    return dict(totals)


def main() -> None:
    """Compare a report with the direct count; exit with 1 if they differ."""
    with open(sys.argv[1], encoding="utf-8") as file:
        found = [tuple(record) for record in json.load(file)["outputs"]["report"]]
    direct = count_directly()
    expected = most_frequent(direct)
    print(f"{'word':<12} {'flinkjob':>10} {'directly':>10}")
    for (word, count), (_, wanted) in zip(found, expected, strict=True):
        print(f"{word:<12} {count:>10,} {wanted:>10,}")
    if found != expected:
        sys.exit("The counts differ.")
    print("The counts are the same.")


if __name__ == "__main__":
    main()
