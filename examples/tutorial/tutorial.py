"""The tasks of the README's job."""

from flinkjob import TaskContext


def tokenize(context: TaskContext) -> None:
    """Emit each word of the splits that this subtask is given."""
    for split in context.splits():
        for line in split.lines():
            for word in line.split():
                context.emit((word.lower() if context.args["lower"] else word, 1))


def count(context: TaskContext) -> None:
    """Add up the words that are hashed to this subtask."""
    totals: dict[str, int] = {}
    for word, number in context.read():
        totals[word] = totals.get(word, 0) + number
    for word, number in totals.items():
        context.emit((number, word))
    context.add("words", len(totals))
