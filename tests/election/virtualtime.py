"""An event loop whose time only passes when everybody waits, and a lease store in memory that can fail on command."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec

from flinkjob.api.errors import LeaseError
from flinkjob.election.record import LeaseRecord

_T = TypeVar("_T")


class _Selector(selectors.SelectSelector):
    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everybody waits, and for nothing")
        self.now += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now

    def skip(self, seconds: float) -> None:
        """Let time pass while no task gets a turn, as for a process that is stopped."""
        self._virtual.now += seconds


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def now() -> float:
    return asyncio.get_running_loop().time()


class MemoryStore:
    """A LeaseStore. ``mode``: "ok", "fail", "hang" (not even to be cancelled), or "forget" (writes, and fails then)."""

    def __init__(self) -> None:
        self.record: LeaseRecord | None = None
        self.mode = "ok"
        self.writing_takes = 0.01
        self.calls: list[tuple[float, str]] = []
        self.touched = asyncio.Event()

    async def read(self) -> LeaseRecord | None:
        await self._behave("read")
        return self.record

    async def compare_and_swap(self, expected: str, new: LeaseRecord) -> LeaseRecord | None:
        await self._behave("write")
        if (self.record.version if self.record else "") != expected:
            return None
        self.put(new)
        if self.mode == "forget":
            raise LeaseError("the answer was lost")
        return self.record

    async def changed(self, after_version: str, timeout: float) -> bool:
        if self.mode == "fail":
            raise LeaseError("the store is out of order")
        deadline = now() + timeout
        while self.record is None or self.record.version == after_version:
            touched = self.touched
            try:
                async with asyncio.timeout_at(deadline):
                    await touched.wait()
            except TimeoutError:
                return False
        return True

    def put(self, record: LeaseRecord) -> None:
        version = int(self.record.version if self.record else "0") + 1
        self.record = msgspec.structs.replace(record, version=str(version))
        self.touched.set()
        self.touched = asyncio.Event()

    async def _behave(self, call: str) -> None:
        self.calls.append((now(), call))
        await asyncio.sleep(self.writing_takes if call == "write" else 0.01)
        if self.mode == "fail":
            raise LeaseError("the store is out of order")
        while self.mode == "hang":
            try:
                await asyncio.sleep(1.0)
            except asyncio.CancelledError:
                continue
