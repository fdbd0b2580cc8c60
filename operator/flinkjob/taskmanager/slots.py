"""The slots of a TaskManager: a warm worker process in each, replaced whenever it cannot be trusted any more.

A process that was cancelled, killed or died is never used again. Its successor is started at once, so that the next task
finds it warm; one that dies while it has no task is replaced only when a task needs it, so that a machine which cannot start
any is not kept busy trying.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

from flinkjob.graph.operations import InputSplit
from flinkjob.taskmanager.channel import Ready, Run, Setup, SplitGiven
from flinkjob.taskmanager.forking import ForkServer
from flinkjob.taskmanager.process import RunnerProcess
from flinkjob.worker.events import Cancelled, Failed, Finished, FromRunner, ProcessDied, Started
from flinkjob.worker.protocol import AttemptId, Deployment

logger = logging.getLogger(__name__)

SlotEvent = FromRunner | ProcessDied


@dataclass(slots=True, eq=False)
class _Slot:
    index: int
    process: RunnerProcess | None = None
    ready: bool = False
    setup: Setup | None = None
    attempt: AttemptId | None = None
    cancelled: bool = False


class Slots:
    """The worker processes, one per slot.

    Args:
        count: how many slots.
        work_dir: for logs (``slot-<n>.log``) and scratch directories (``slot-<n>``); it exists.
        module_dir: where the tasks' modules are.
        on_event: told what becomes of attempts. It may be called from within ``start``.
    """

    def __init__(self, *, count: int, work_dir: str, module_dir: str, on_event: Callable[[SlotEvent], None]) -> None:
        self._work_dir = work_dir
        self._module_dir = module_dir
        self._on_event = on_event
        self._server: ForkServer | None = None
        self._living: set[RunnerProcess] = set()
        self._slots = [_Slot(index) for index in range(count)]

    def warm_up(self) -> None:
        """Start the processes that are missing."""
        for slot in self._slots:
            if slot.process is None:
                self._replace(slot)

    def start(self, index: int, deployment: Deployment, setup: Setup) -> None:
        """Run the attempt in the slot, which is free."""
        slot = self._slots[index]
        slot.attempt = deployment.attempt
        try:
            process = slot.process if slot.process is not None and not slot.process.ended else self._spawn(slot)
        except OSError as error:
            self._end(slot, ProcessDied(deployment.attempt, f"its worker process cannot be started: {error.strerror}"))
            return
        if slot.setup is not setup:
            slot.setup = setup
            process.send(setup)
        process.send(Run(deployment))
        if slot.ready:
            self._on_event(Started(deployment.attempt))

    def give_split(self, index: int, number: int, split: InputSplit | None) -> None:
        """Answer the attempt in the slot."""
        process = self._slots[index].process
        if process is not None:
            process.send(SplitGiven(number, split))

    def cancel(self, index: int) -> None:
        """Tell the attempt in the slot to stop."""
        slot = self._slots[index]
        slot.cancelled = True
        if slot.process is not None:
            slot.process.terminate()

    def kill(self, index: int) -> None:
        """Kill the attempt in the slot; its end is told when the kernel has confirmed it."""
        process = self._slots[index].process
        if process is not None:
            process.kill()

    def pids(self) -> list[int | None]:
        """The process of each slot, by id; None where there is none, or none yet."""
        return [slot.process.pid if slot.process is not None else None for slot in self._slots]

    def close(self) -> None:
        """Kill all processes, and leave none behind."""
        for process in self._living:
            process.collect()
        self._living.clear()
        if self._server is not None:
            self._server.close()
            self._server = None
        for slot in self._slots:
            slot.process = None

    def _spawn(self, slot: _Slot) -> RunnerProcess:
        def on_message(process: RunnerProcess, message: FromRunner | Ready) -> None:
            if process is slot.process:
                self._hear(slot, message)

        def on_end(process: RunnerProcess, cause: str) -> None:
            self._living.discard(process)
            if process is slot.process:
                self._lose(slot, cause)

        if self._server is None or self._server.ended:
            self._server = ForkServer()
        scratch = os.path.join(self._work_dir, f"slot-{slot.index}")
        process = RunnerProcess(
            self._server,
            module_dir=self._module_dir,
            scratch=scratch,
            log=f"{scratch}.log",
            on_message=on_message,
            on_end=on_end,
        )
        slot.process, slot.ready, slot.setup = process, False, None
        self._living.add(process)
        return process

    def _replace(self, slot: _Slot) -> None:
        process, slot.process = slot.process, None
        if process is not None and process in self._living:
            process.kill()
        try:
            self._spawn(slot)
        except OSError as error:
            logger.warning("slot %d has no worker process: %s", slot.index, error)

    def _hear(self, slot: _Slot, message: FromRunner | Ready) -> None:
        if isinstance(message, Ready):
            slot.ready = True
            if slot.attempt is not None:
                self._on_event(Started(slot.attempt))
        elif message.attempt != slot.attempt:
            logger.warning("slot %d: a word of %s, which does not run there", slot.index, message.attempt)
        elif isinstance(message, (Finished, Failed, Cancelled)):
            self._end(slot, message)
        else:
            self._on_event(message)

    def _lose(self, slot: _Slot, cause: str) -> None:
        attempt = slot.attempt
        slot.process = None
        if attempt is None:
            logger.warning("slot %d had no task: %s", slot.index, cause)
        else:
            slot.cancelled = True
            self._end(slot, ProcessDied(attempt, cause))

    def _end(self, slot: _Slot, event: SlotEvent) -> None:
        """The slot is free before anybody hears of it: whoever does may start the next attempt there."""
        if slot.cancelled or isinstance(event, Cancelled):
            self._replace(slot)
        slot.attempt, slot.cancelled = None, False
        self._on_event(event)
