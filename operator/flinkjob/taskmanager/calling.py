"""Calling the JobManagers until one answers.

One that does not answer is not waited for alone: while its time runs, the next is called as well, and the first answer
counts. A name may still lead to where a replaced pod was, which swallows every packet; and a stopped process still accepts
connections. This is what RFC 8305 does for the addresses of one host.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from flinkjob.worker.dialing import Dialer

T = TypeVar("T")

PATIENCE = 0.2
"""Seconds until another JobManager is called as well; they double with each round, up to eight times, as time-outs do."""


async def first_answer(
    dialer: Dialer,
    call: Callable[[str], Awaitable[T | None]],
    hang_up: Callable[[T], Awaitable[object]],
    *,
    patience: float = PATIENCE,
) -> tuple[str, T]:
    """The address and the answer of the first JobManager that answers; nobody is called twice at a time.

    Args:
        call: gives the answer of an address; None if there is none, after a time of its own choice at the latest.
        hang_up: for an answer that came at the same moment as another.
        patience: see ``PATIENCE``.
    """
    calls: dict[str, asyncio.Future[T | None]] = {}
    try:
        while True:
            address, delay = dialer.next(random.random())
            await asyncio.sleep(delay / 1000)
            wait = 0.0
            if address not in calls:
                calls[address] = asyncio.ensure_future(call(address))
                wait = patience * 2 ** min(dialer.rounds, 3)
            await asyncio.wait(calls.values(), timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            for address in [address for address, made in calls.items() if made.done()]:
                answer = calls.pop(address).result()
                if answer is not None:
                    return address, answer
    finally:
        for made in calls.values():
            made.cancel()
        for left in await asyncio.gather(*calls.values(), return_exceptions=True):
            if left is not None and not isinstance(left, BaseException):
                await hang_up(left)
