"""One thread that does blocking calls in the order they were given, for an asyncio loop to wait for.

A call to a store may hang for minutes. The thread is a daemon, so that such a call never keeps a process from ending, and
it is the only one, so that the calls of one lane never overlap.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

_T = TypeVar("_T")


class Lane:
    """Make one within a running loop; ``close`` it in the end."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def submit(self, call: Callable[[], _T]) -> "asyncio.Future[_T]":
        """Have the call done after those submitted before; the future gets its result or its exception."""
        future: asyncio.Future[_T] = self._loop.create_future()
        self._calls.put((call, future))
        return future

    def close(self) -> None:
        """End the thread after the calls that have been submitted. Does not wait for it."""
        self._calls.put(None)

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            call, future = item
            result: Any = None
            error: Exception | None = None
            try:
                result = call()
            except Exception as raised:
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(_resolve, future, result, error)


def _resolve(future: "asyncio.Future[Any]", result: object, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
