"""A source that is out of reach at first: one subtask fails until its third attempt."""

from flinkjob import TaskContext


def fetch(context: TaskContext) -> None:
    """Emit this subtask's share; the ``flaky`` subtask fails on its first attempts, in the middle of it."""
    for number in range(context.subtask, 100, context.parallelism):
        # What a failed attempt emitted is never seen by anybody.
        context.emit(number)
        if context.subtask == context.args["flaky"] and context.attempt < context.args["failures"] and number > 50:
            raise ConnectionError(f"the server went away in attempt {context.attempt}")
    # Accumulators count for finished attempts only, so this is how many it took in all.
    context.add("attempts", context.attempt + 1)


def total(context: TaskContext) -> None:
    """The sum of all shares, each of them once."""
    context.emit(sum(context.read()))
