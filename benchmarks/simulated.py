"""Simulated TaskManagers: the real protocol and core, with light sockets and with slots that run nothing.

Many of them live in one process, so that one machine can show what a JobManager does with thousands. A task of a vertex
named ``hold…`` runs until it is cancelled; every other task finishes at once. With ``--tell``, registrations and deployments
are printed as they happen, one JSON object a line, and SIGUSR1 has one held task finish.
"""

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable

import aiohttp
from lightsocket import LightSocket

from flinkjob.graph.jobgraph import JobGraph
from flinkjob.graph.operations import InputSplit
from flinkjob.rpc.connection import TASKMANAGER_PATH
from flinkjob.taskmanager.agent import HANDSHAKE_TIMEOUT, Agent
from flinkjob.taskmanager.channel import Setup
from flinkjob.worker import events as ev
from flinkjob.worker.dialing import Dialer
from flinkjob.worker.protocol import AttemptId, Deployment
from flinkjob.worker.taskexecutor import TaskExecutor

Tell = Callable[[str], None]


def print_at_once(what: str) -> None:
    """Say what has happened, and when."""
    print(json.dumps({"what": what, "at": time.time() * 1000}), flush=True)


class TellingDialer(Dialer):
    """Tells of each registration."""

    def __init__(self, addresses: tuple[str, ...], tell: Tell) -> None:
        super().__init__(addresses)
        self._tell = tell

    def registered(self) -> None:
        super().registered()
        self._tell("registered")


class SimulatedAgent(Agent):
    """An Agent whose connections cost little."""

    async def _call(self, session: aiohttp.ClientSession, address: str) -> aiohttp.ClientWebSocketResponse | None:
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                return await LightSocket.connect(address, TASKMANAGER_PATH)  # type: ignore[return-value]  # stands in for it
        except OSError:
            return None


class SimulatedSlots:
    """Stands where a TaskManager has its worker processes."""

    def __init__(self, on_event: Callable[[ev.Event], None], counts: dict[str, int], tell: Tell) -> None:
        self._on_event = on_event
        self._tell = tell
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
        self._tell("deployed")
        self._on_event(ev.Started(attempt))
        if attempt.vertex not in self._held:
            self._on_event(ev.Finished(attempt))

    def finish_one(self) -> None:
        """End a held attempt as if its work were done."""
        _, attempt = self._attempts.popitem()
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


async def run(jobmanagers: tuple[str, ...], count: int, slots: int, prefix: str, tell: Tell) -> dict[str, int]:
    """Run the TaskManagers to the end of the job; returns how many attempts were started and cancelled."""
    counts = {"started": 0, "cancelled": 0}
    made: list[SimulatedSlots] = []
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, lambda: made[0].finish_one())

    def make_slots(on_event: Callable[[ev.Event], None]) -> SimulatedSlots:
        made.append(SimulatedSlots(on_event, counts, tell))
        return made[-1]

    async with aiohttp.ClientSession() as session:

        async def one(number: int) -> None:
            executor = TaskExecutor(
                id=f"{prefix}{number}",
                job="",
                address="simulated",
                slots=slots,
                now=int(loop.time() * 1000),
                reconnection_timeout_ms=600_000,
            )
            agent = SimulatedAgent(executor, make_slots, TellingDialer(jobmanagers, tell))  # type: ignore[arg-type]  # stands in for Slots
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
    parser.add_argument("--tell", action="store_true")
    options = parser.parse_args()
    tell: Tell = print_at_once if options.tell else lambda what: None
    jobmanagers = tuple(options.jobmanagers.split(","))
    counts = asyncio.run(run(jobmanagers, options.count, options.slots, options.prefix, tell))
    json.dump(counts, sys.stdout)


if __name__ == "__main__":
    main()
