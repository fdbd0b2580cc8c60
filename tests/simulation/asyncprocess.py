"""A process with an event loop of asyncio's, in the world's time: what the shipped shells are run on.

The loop has no time and no turns of its own. What is ready runs when the agenda comes to it, all at once, and a timer is an
entry in the agenda; so a process that is stopped goes on later, and one that is dead does not. A killed one does not get to
run its ``finally`` clauses for anybody to see: they run in a loop whose process is dead, and whoever calls from there is
answered with an error.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

from .scheduler import Process

MOST_FAREWELLS = 10_000
"""Turns in which all that a dead process was about has to come to its end."""


class WorldLoop(asyncio.BaseEventLoop):
    """See the module. ``closing``: nothing takes time any more."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self._process = process
        self._soon: deque[asyncio.Handle] = deque()
        self._awake = False
        self.closing = False
        self.failures: list[BaseException] = []

    def time(self) -> float:
        """Seconds of the process' own clock."""
        return self._process.clock() / 1000

    def call_soon(  # type: ignore[override]  # variadic generics would say no more
        self, callback: Callable[..., object], *arguments: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """See asyncio."""
        handle = asyncio.Handle(callback, arguments, self, context)
        self._soon.append(handle)
        if not self._awake:
            self._awake = True
            self._process.scheduler.at(self._process.scheduler.now, self._process, self.run_ready)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *arguments: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """See asyncio."""
        timer = asyncio.TimerHandle(when, callback, arguments, self, context)
        if self.closing:
            self._soon.append(timer)
        else:
            self._process.after(max(0.0, when - self.time()) * 1000, self._fire, timer)
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It stays in the agenda, and nothing comes of it."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what nobody else has caught."""
        if isinstance(error := context.get("exception"), BaseException) and not self.closing:
            self.failures.append(error)

    def _fire(self, timer: asyncio.TimerHandle) -> None:
        if not timer.cancelled():
            self._soon.append(timer)
            self.run_ready()

    def run_ready(self, most: int = 1_000_000) -> None:
        """Run what is ready, and what gets ready by that."""
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            while self._soon and most:
                most -= 1
                handle = self._soon.popleft()
                if not handle.cancelled():
                    handle._run()
        finally:
            asyncio._set_running_loop(before)
            self._awake = False

    def shut(self) -> None:
        """The process is dead: let everything come to its end, unseen."""
        self.closing = True
        for _ in range(20):
            tasks = [task for task in asyncio.all_tasks(self) if not task.done()]
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            self.run_ready(MOST_FAREWELLS)
        self.close()


class AsyncProcess(Process):
    """A process that has such a loop, and what its main task is."""

    loop: WorldLoop | None = None
    main: asyncio.Task[None] | None = None

    def run_async(self, main: Coroutine[Any, Any, None], ended: Callable[[asyncio.Task[None]], None]) -> None:
        """Begin a loop with a task; ``ended`` is told when that is over."""
        self.loop = WorldLoop(self)
        self.main = self.loop.create_task(main)
        self.main.add_done_callback(ended)

    def end_async(self) -> None:
        """The process is dead, and its loop with it."""
        loop, self.loop = self.loop, None
        if loop is not None:
            loop.shut()
