"""How JobManagers are called that answer late, never, or at the same time."""

import asyncio

import pytest

from flinkjob.taskmanager.calling import first_answer
from flinkjob.worker.dialing import Dialer


class Line:
    """JobManagers by their addresses: one answers with its address, at once or when it is told to; one says no."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.hung_up: list[str] = []
        self.picked_up = asyncio.Event()

    async def call(self, address: str) -> str | None:
        self.calls.append(address)
        if address == "silent":
            await asyncio.Event().wait()
        if address.startswith("late"):
            await self.picked_up.wait()
        return None if address == "refuses" else address

    async def hang_up(self, answer: str) -> None:
        self.hung_up.append(answer)

    async def dial(self, *addresses: str) -> str:
        """The first that answers; no other call is left behind."""
        before = asyncio.all_tasks()
        try:
            async with asyncio.timeout(20):
                address, answer = await first_answer(Dialer(addresses), self.call, self.hang_up, patience=0.001)
        finally:
            assert asyncio.all_tasks() <= before
        assert address == answer
        return answer


@pytest.fixture
def line() -> Line:
    return Line()


async def test_one_that_refuses_is_followed_by_the_next(line: Line) -> None:
    assert await line.dial("refuses", "here", "elsewhere") == "here"
    assert line.calls == ["refuses", "here"]


async def test_one_that_does_not_answer_keeps_nobody_from_the_others(line: Line) -> None:
    assert await line.dial("silent", "here") == "here"


async def test_nobody_is_called_twice_at_a_time(line: Line) -> None:
    dialing = asyncio.create_task(line.dial("late", "refuses"))
    while line.calls.count("refuses") < 5:
        await asyncio.sleep(0)
    line.picked_up.set()
    assert await dialing == "late"
    assert line.calls.count("late") == 1


async def test_of_two_that_answer_at_once_one_is_left(line: Line) -> None:
    dialing = asyncio.create_task(line.dial("late-1", "late-2"))
    while len(line.calls) < 2:
        await asyncio.sleep(0)
    line.picked_up.set()
    answered = await dialing
    assert {answered, *line.hung_up} == {"late-1", "late-2"}


async def test_a_dialing_that_is_given_up_leaves_no_call(line: Line) -> None:
    dialing = asyncio.create_task(line.dial("silent"))
    while not line.calls:
        await asyncio.sleep(0)
    dialing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dialing
