"""What may wait on its way to the JobManager, and what may not."""

import asyncio

from flinkjob.graph.states import ExecutionState
from flinkjob.taskmanager.outbox import Outbox
from flinkjob.worker import protocol as msg
from flinkjob.worker.protocol import FromTaskManager, Report, Reports
from taskmanager.scripted import attempt


def running(subtask: int) -> Report:
    return Report(attempt(0, subtask), ExecutionState.RUNNING)


def finished(subtask: int) -> Report:
    return Report(attempt(0, subtask), ExecutionState.FINISHED)


class Sent(list[FromTaskManager]):
    """What was sent, and a way to wait for it."""

    def __init__(self) -> None:
        self.some = asyncio.Event()

    def send(self, message: FromTaskManager) -> None:
        self.append(message)
        self.some.set()


async def test_an_end_leaves_at_once() -> None:
    sent = Sent()
    Outbox(sent.send).send(Reports((finished(0),)))
    assert sent == [Reports((finished(0),))]


async def test_a_beginning_leaves_a_little_later() -> None:
    sent = Sent()
    outbox = Outbox(sent.send)
    outbox.send(Reports((running(0),)))
    outbox.send(Reports((running(1),)))
    assert sent == []
    await sent.some.wait()
    assert sent == [Reports((running(0), running(1)))]


async def test_an_end_overtakes_its_beginning_and_no_other() -> None:
    sent = Sent()
    outbox = Outbox(sent.send)
    outbox.send(Reports((running(0), running(1))))
    outbox.send(Reports((finished(0),)))
    outbox.flush()
    assert sent == [Reports((finished(0),)), Reports((running(1),))]


async def test_nothing_else_overtakes_a_beginning() -> None:
    sent = Sent()
    outbox = Outbox(sent.send)
    outbox.send(Reports((running(0),)))
    request = msg.SplitRequest(attempt(), 0)
    outbox.send(request)
    assert sent == [Reports((running(0),)), request]


async def test_what_waits_for_a_lost_connection_is_forgotten() -> None:
    sent = Sent()
    outbox = Outbox(sent.send)
    outbox.send(Reports((running(0),)))
    outbox.close()
    outbox.flush()
    assert sent == []
