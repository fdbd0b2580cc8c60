"""Slots with real worker processes, without a TaskManager around them."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from flinkjob.api.job import TaskSpec, VertexSpec
from flinkjob.taskmanager.channel import Setup
from flinkjob.taskmanager.slots import SlotEvent, Slots
from flinkjob.worker.events import Finished, ProcessDied, Started
from flinkjob.worker.protocol import Deployment
from taskmanager.partitions import path_of
from taskmanager.scripted import attempt, gone, graph_of, is_running


class Bench:
    """One slot, and what is heard of it."""

    def __init__(self, tmp_path: Path) -> None:
        self.heard: asyncio.Queue[SlotEvent] = asyncio.Queue()
        self.slots = Slots(
            count=1, work_dir=str(tmp_path), module_dir=str(tmp_path / "modules"), on_event=self.heard.put_nowait
        )
        graph = graph_of(VertexSpec(name="quick", parallelism=9, task=TaskSpec(python="quick_task:run")))
        self.setup = Setup(graph.encode(), str(tmp_path / "storage"))

    def start(self, subtask: int) -> None:
        self.slots.start(0, Deployment(attempt(0, subtask)), self.setup)

    async def run(self, subtask: int) -> SlotEvent:
        """Run an attempt; returns how it ended."""
        self.start(subtask)
        while isinstance(event := await self.heard.get(), Started):
            assert event.attempt == attempt(0, subtask)
        return event

    async def pid(self) -> int:
        """The slot's process, once there is one."""
        while (pid := self.slots.pids()[0]) is None:
            await asyncio.sleep(0)
        return pid


@pytest.fixture
async def bench(tmp_path: Path, write_module: Callable[[str, str], None]) -> AsyncIterator[Bench]:
    write_module("quick_task", "def run(context):\n    context.emit(1)\n")
    bench = Bench(tmp_path)
    yield bench
    bench.slots.close()


async def test_a_process_is_used_again_and_again(bench: Bench) -> None:
    bench.slots.warm_up()
    pid = await bench.pid()
    for subtask in range(3):
        assert isinstance(await bench.run(subtask), Finished)
    assert await bench.pid() == pid


async def test_an_end_that_crosses_a_cancellation_counts_and_the_process_is_replaced(
    bench: Bench, tmp_path: Path
) -> None:
    assert isinstance(await bench.run(0), Finished)
    pid = await bench.pid()
    bench.start(1)
    while not path_of(tmp_path / "storage", subtask=1).exists():
        time.sleep(0.001)
    bench.slots.cancel(0)
    assert isinstance(await bench.heard.get(), Started)
    assert isinstance(await bench.heard.get(), Finished)
    assert await bench.pid() != pid
    assert isinstance(await bench.run(2), Finished)
    await gone(pid)


async def test_a_process_that_dies_without_a_task_is_replaced_when_one_comes(bench: Bench) -> None:
    assert isinstance(await bench.run(0), Finished)
    os.kill(await bench.pid(), signal.SIGKILL)
    while bench.slots.pids() != [None]:
        await asyncio.sleep(0)
    assert isinstance(await bench.run(1), Finished)


async def test_a_process_that_cannot_be_started_fails_the_attempt(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/no/such/python")
    bench.slots.warm_up()
    assert bench.slots.pids() == [None]
    event = await bench.run(0)
    assert event == ProcessDied(attempt(), "its worker process cannot be started: No such file or directory")


async def test_a_process_that_cannot_begin_fails_its_attempts_one_by_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    for subtask in range(3):
        cause = "its worker process cannot be started: the fork server exited with code 1"
        assert await bench.run(subtask) == ProcessDied(attempt(0, subtask), cause)


async def test_closing_leaves_no_process(bench: Bench) -> None:
    await bench.run(0)
    pid = await bench.pid()
    bench.slots.close()
    assert not is_running(pid)
    assert not Path(f"/proc/{pid}").exists(), "it was not collected"
