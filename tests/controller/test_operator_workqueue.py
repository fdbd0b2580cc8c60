"""The work queue, in virtual time: coalescing, one look at a time, backoff, bounds, spacing."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from election.virtualtime import now, run
from flinkjob.api.errors import ApiUnavailable
from flinkjob.controller.workqueue import FIRST_RETRY, LAST_RETRY, Look, WorkQueue

SPACING = 0.2


class Looks:
    """A worker function that keeps a record."""

    def __init__(self, takes: float = 0.01) -> None:
        self.takes = takes
        self.at: list[tuple[str, float]] = []
        self.under_way: Counter[str] = Counter()
        self.most_at_once = 0
        self.then: Callable[[str], Awaitable[Look]] | None = None

    async def __call__(self, key: str) -> Look:
        self.at.append((key, round(now(), 3)))
        self.under_way[key] += 1
        assert self.under_way[key] == 1, "two looks at one key at once"
        self.most_at_once = max(self.most_at_once, self.under_way.total())
        try:
            await asyncio.sleep(self.takes)
            return await self.then(key) if self.then else Look()
        finally:
            self.under_way[key] -= 1

    def times(self, key: str = "a") -> list[float]:
        return [moment for looked_at, moment in self.at if looked_at == key]


def in_queue(
    looks: Looks, scenario: Callable[[WorkQueue[str]], Coroutine[Any, Any, None]], **options: Any
) -> WorkQueue[str]:
    """Run a scenario beside a queue."""

    async def main() -> WorkQueue[str]:
        queue: WorkQueue[str] = WorkQueue(looks, spacing=SPACING, jitter=lambda: 0.0, **options)
        running = asyncio.create_task(queue.run())
        await scenario(queue)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return queue

    return run(main())


def test_the_first_look_comes_at_once() -> None:
    looks = Looks()

    async def scenario(queue: WorkQueue[str]) -> None:
        await asyncio.sleep(1)
        queue.add("a")
        await asyncio.sleep(1)

    in_queue(looks, scenario)
    assert looks.times() == [1.0]


def test_a_burst_of_requests_costs_two_looks() -> None:
    looks = Looks()

    async def scenario(queue: WorkQueue[str]) -> None:
        for _ in range(15):
            queue.add("a")
            await asyncio.sleep(0.01)
        await asyncio.sleep(5)

    in_queue(looks, scenario)
    assert looks.times() == [0.0, SPACING]


def test_what_is_asked_during_a_look_is_looked_at_afterwards() -> None:
    looks = Looks(takes=3.0)

    async def scenario(queue: WorkQueue[str]) -> None:
        queue.add("a")
        await asyncio.sleep(1)
        queue.add("a")
        await asyncio.sleep(10)

    in_queue(looks, scenario)
    assert looks.times() == [0.0, 3.0]


def test_a_failing_look_is_repeated_later_each_time_and_forgiven_in_the_end() -> None:
    looks = Looks(takes=0.0)

    async def fails_five_times(key: str) -> Look:
        if len(looks.at) <= 5:
            raise ApiUnavailable("down")
        return Look()

    async def scenario(queue: WorkQueue[str]) -> None:
        looks.then = fails_five_times
        queue.add("a")
        await asyncio.sleep(10)
        assert queue.failing == 1
        await asyncio.sleep(90)
        assert queue.failing == 0

    queue = in_queue(looks, scenario)
    pauses = [later - earlier for earlier, later in zip(looks.times(), looks.times()[1:], strict=False)]
    assert pauses == pytest.approx([FIRST_RETRY * 2**n for n in range(5)])
    assert (queue.succeeded, queue.failed) == (1, 5)


def test_the_pause_after_failures_has_a_limit() -> None:
    looks = Looks(takes=0.0)

    async def fails(key: str) -> Look:
        raise ApiUnavailable("down")

    async def scenario(queue: WorkQueue[str]) -> None:
        looks.then = fails
        queue.add("a")
        await asyncio.sleep(20 * LAST_RETRY)

    in_queue(looks, scenario)
    assert max(b - a for a, b in zip(looks.times(), looks.times()[1:], strict=False)) == pytest.approx(LAST_RETRY)


def test_an_unexpected_error_spoils_nothing_but_its_own_key(caplog: pytest.LogCaptureFixture) -> None:
    looks = Looks(takes=0.0)

    async def breaks(key: str) -> Look:
        if key == "bad":
            raise KeyError("spec")
        return Look()

    async def scenario(queue: WorkQueue[str]) -> None:
        looks.then = breaks
        for key in ("bad", "a", "b"):
            queue.add(key)
        await asyncio.sleep(5)

    in_queue(looks, scenario)
    assert looks.times("a") == looks.times("b") == [0.0]
    assert len(looks.times("bad")) > 2
    assert "Traceback" in caplog.text


def test_a_look_can_ask_for_the_next_one() -> None:
    looks = Looks(takes=0.0)

    async def again(key: str) -> Look:
        return Look(again_in=7.0)

    async def scenario(queue: WorkQueue[str]) -> None:
        looks.then = again
        queue.add("a")
        await asyncio.sleep(15)

    in_queue(looks, scenario)
    assert looks.times() == [0.0, 7.0, 14.0]


def test_an_event_brings_a_later_look_forward() -> None:
    looks = Looks(takes=0.0)

    async def scenario(queue: WorkQueue[str]) -> None:
        queue.add("a", delay=100)
        await asyncio.sleep(1)
        queue.add("a")
        queue.add("a", delay=50)
        await asyncio.sleep(200)

    in_queue(looks, scenario)
    assert looks.times() == [1.0]


def test_no_more_looks_at_once_than_there_are_workers_and_none_is_lost() -> None:
    looks = Looks(takes=1.0)

    async def scenario(queue: WorkQueue[str]) -> None:
        for n in range(20):
            queue.add(f"job{n}")
        await asyncio.sleep(0.5)
        assert (queue.busy, queue.depth) == (3, 17)
        await asyncio.sleep(20)
        assert (queue.busy, queue.depth) == (0, 0)

    in_queue(looks, scenario, workers=3)
    assert looks.most_at_once == 3
    assert len(looks.at) == 20


def test_a_busy_key_does_not_hold_up_the_others() -> None:
    looks = Looks(takes=0.0)

    async def slow(key: str) -> Look:
        await asyncio.sleep(50 if key == "slow" else 0)
        return Look()

    async def scenario(queue: WorkQueue[str]) -> None:
        looks.then = slow
        queue.add("slow")
        await asyncio.sleep(1)
        queue.add("slow")
        queue.add("a")
        await asyncio.sleep(100)

    in_queue(looks, scenario)
    assert looks.times("a") == [1.0]
    assert looks.times("slow") == [0.0, 50.0]


def test_what_is_forgotten_is_not_looked_at() -> None:
    looks = Looks()

    async def scenario(queue: WorkQueue[str]) -> None:
        queue.add("a", delay=5)
        queue.add("b", delay=5)
        queue.forget("a")
        await asyncio.sleep(10)

    in_queue(looks, scenario)
    assert [key for key, _ in looks.at] == ["b"]


def test_looks_end_with_the_queue() -> None:
    looks = Looks(takes=1000)

    async def scenario(queue: WorkQueue[str]) -> None:
        queue.add("a")
        await asyncio.sleep(1)

    queue = in_queue(looks, scenario)
    assert looks.under_way.total() == 0
    assert queue.busy == 0
