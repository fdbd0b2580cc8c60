"""Simulated TaskManagers: the real protocol, core and connections, with slots that run nothing.

Many of them live in one process, so that one machine can show what a JobManager does with thousands. A task of a vertex
named ``hold…`` runs until it is cancelled; every other task finishes at once.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable

import aiohttp

from flinkjob.graph.jobgraph import JobGraph
from flinkjob.graph.operations import InputSplit
from flinkjob.taskmanager.agent import CALL_TIMEOUT, Agent
from flinkjob.taskmanager.channel import Setup
from flinkjob.worker import events as ev
from flinkjob.worker.dialing import Dialer
from flinkjob.worker.protocol import AttemptId, Deployment
from flinkjob.worker.taskexecutor import TaskExecutor


class SimulatedSlots:
    """Stands where a TaskManager has its worker processes."""

    def __init__(self, on_event: Callable[[ev.Event], None], counts: dict[str, int]) -> None:
        self._on_event = on_event
        self._counts = counts
        self._attempts: dict[int, AttemptId] = {}
        self._held: set[int] | None = None

    def warm_up(self) -> None:
        """Nothing has to be started."""

    def start(self, index: int, deployment: Deployment, setup: Setup) -> None:
        """Begin, and end unless the task is to be held."""
        if self._held is None:
            vertices = JobGraph.decode(setup.job_graph).vertices
            self._held = {vertex.index for vertex in vertices if vertex.name.startswith("hold")}
        attempt = deployment.attempt
        self._attempts[index] = attempt
        self._counts["started"] += 1
        self._on_event(ev.Started(attempt))
        if attempt.vertex not in self._held:
            self._on_event(ev.Finished(attempt))

    def give_split(self, index: int, number: int, split: InputSplit | None) -> None:
        """Nobody asks for splits."""

    def cancel(self, index: int) -> None:
        """End the attempt."""
        self._counts["cancelled"] += 1
        self._on_event(ev.Cancelled(self._attempts[index]))

    def kill(self, index: int) -> None:
        """It has ended already."""

    def close(self) -> None:
        """Nothing is left."""


async def run(jobmanagers: tuple[str, ...], count: int, slots: int, prefix: str) -> dict[str, int]:
    """Run the TaskManagers to the end of the job; returns how many attempts were started and cancelled."""
    counts = {"started": 0, "cancelled": 0}
    connector = aiohttp.TCPConnector(limit=0)
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession(connector=connector, timeout=CALL_TIMEOUT) as session:

        async def one(number: int) -> None:
            executor = TaskExecutor(
                id=f"{prefix}{number}",
                job="",
                address="simulated",
                slots=slots,
                now=int(loop.time() * 1000),
                reconnection_timeout_ms=600_000,
            )
            agent = Agent(executor, lambda on_event: SimulatedSlots(on_event, counts), Dialer(jobmanagers))  # type: ignore[arg-type, return-value]  # stands in for Slots
            await agent.run(session)

        await asyncio.gather(*(one(number) for number in range(count)))
    return counts


def main() -> None:
    """A process of simulated TaskManagers; prints the counts as JSON at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobmanagers", help="HOST:PORT,...")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--prefix", default="simulated-")
    options = parser.parse_args()
    counts = asyncio.run(run(tuple(options.jobmanagers.split(",")), options.count, options.slots, options.prefix))
    json.dump(counts, sys.stdout)


if __name__ == "__main__":
    main()
