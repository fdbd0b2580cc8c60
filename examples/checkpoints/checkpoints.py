"""Counts primes in ranges that an enumerator cuts, and survives the sudden death of its process."""

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

from flinkjob import Split, TaskContext


def ranges(args: dict[str, int]) -> Iterator[Split]:
    """The splits: called once, in the JobManager; a split's payload is whatever the task needs to find its input."""
    for start in range(0, args["below"], args["size"]):
        yield Split(payload={"start": start, "end": min(start + args["size"], args["below"])})


def count_primes(context: TaskContext) -> None:
    """Count the primes of this subtask's splits, with a checkpoint after each of them."""
    state: dict[str, Any] = json.loads(context.restored) if context.restored else {"splits": 0, "primes": 0}
    resumed = state["splits"]
    for number, split in enumerate(context.splits()):
        if number < resumed:
            continue
        state["primes"] += sum(map(is_prime, range(split.payload["start"], split.payload["end"])))
        state["splits"] += 1
        context.checkpoint(json.dumps(state).encode())
        if context.attempt == 0 and state["splits"] == context.args["killAfter"]:
            os.kill(os.getpid(), signal.SIGKILL)
    # What an attempt emits and adds is its own, so all of it is said at the end, from the state.
    context.emit(state["primes"])
    context.add("splits", state["splits"])
    context.add("splits taken over from a checkpoint", resumed)


def total(context: TaskContext) -> None:
    """The primes of all subtasks."""
    context.emit(sum(context.read()))


def is_prime(number: int) -> bool:
    """Whether only 1 and itself divide it."""
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))
