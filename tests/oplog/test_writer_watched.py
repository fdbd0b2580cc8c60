"""What a writer tells of itself: its lag, what it has written, and whether there is a newer leader."""

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from flinkjob.api.errors import Deposed, LogUnavailable
from flinkjob.graph.operations import Operation
from flinkjob.oplog.append import AppendMedium
from flinkjob.oplog.committer import WRITE_BUCKETS, WriteStatistics
from flinkjob.oplog.log import OperationLog
from flinkjob.oplog.writer import LogWriter

from .leaders import Leader, operation


class Clock:
    """Moved by hand, and by each wait."""

    def __init__(self) -> None:
        self.now = 100.0
        self.on_wait: Callable[[], None] = lambda: None

    def __call__(self) -> float:
        return self.now

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.now += seconds
        self.on_wait()
        return event.is_set()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def medium(tmp_path: Path) -> AppendMedium:
    return AppendMedium(tmp_path)


def open_writer(medium: AppendMedium, clock: Clock) -> LogWriter:
    log = OperationLog.open(medium, "jm")
    assert list(log.replay()) == []
    return log.writer(
        on_durable=lambda lsn: None, on_failed=lambda error: None, clock=clock, wait=clock.wait, retry_deadline=60.0
    )


def ops(first: int, count: int) -> list[Operation]:
    return [operation(lsn) for lsn in range(first, first + count)]


async def test_what_has_been_written_is_counted(medium: AppendMedium, clock: Clock, tmp_path: Path) -> None:
    writer = open_writer(medium, clock)
    await writer.wait_durable(writer.append(ops(1, 3)))
    await writer.wait_durable(writer.append(ops(4, 1)))
    written = writer.statistics
    assert (written.blocks, written.operations, written.failures) == (2, 4, 0)
    assert written.bytes == sum(file.stat().st_size for file in (tmp_path / "oplog").glob("*.log"))
    assert written.buckets == [2, *[0] * len(WRITE_BUCKETS)]
    await writer.close()


async def test_failed_writes_are_counted_and_their_time_belongs_to_the_block(
    medium: AppendMedium, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, real = open_writer(medium, clock), os.fdatasync

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "broken")

    def repair() -> None:
        if writer.statistics.failures == 3:
            monkeypatch.setattr(os, "fdatasync", real)

    clock.on_wait = repair
    monkeypatch.setattr(os, "fdatasync", fail)
    await writer.wait_durable(writer.append(ops(1, 1)))
    assert (writer.statistics.blocks, writer.statistics.failures) == (1, 3)
    assert writer.statistics.seconds == pytest.approx(0.05 + 0.1 + 0.2)
    assert writer.statistics.buckets[WRITE_BUCKETS.index(0.5)] == 1
    await writer.close()


def test_a_duration_is_counted_in_the_class_that_it_belongs_to() -> None:
    written = WriteStatistics()
    for seconds in (0.0, 0.001, 0.0011, 10.0, 11.0):
        written.count(operations=1, size=1, seconds=seconds)
    assert (written.buckets[0], written.buckets[1], written.buckets[-2], written.buckets[-1]) == (2, 1, 1, 1)
    assert sum(written.buckets) == written.blocks == 5


async def test_the_lag_is_the_age_of_the_oldest_operation_that_is_not_durable(
    medium: AppendMedium, clock: Clock
) -> None:
    writer = open_writer(medium, clock)
    assert writer.lag_seconds == 0
    writer.append(ops(1, 1))
    clock.now += 4.0
    writer.append(ops(2, 1))
    assert writer.lag_seconds == 4.0
    await writer.wait_durable(2)
    clock.now += 100.0
    assert writer.lag_seconds == 0
    writer.append(ops(3, 1))
    assert writer.lag_seconds == 0
    await writer.close()


async def test_a_leader_that_is_the_newest_is_told_so_and_one_that_is_not_as_well(
    medium: AppendMedium, clock: Clock
) -> None:
    writer = open_writer(medium, clock)
    await writer.check_fence()
    Leader(medium, "new")
    with pytest.raises(Deposed, match="epoch 2"):
        await writer.check_fence()
    writer.abandon()


async def test_a_store_that_cannot_be_read_leaves_it_open_who_leads(
    medium: AppendMedium, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = open_writer(medium, clock)

    def fail(medium: AppendMedium, epoch: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(AppendMedium, "check_fence", fail)
    with pytest.raises(LogUnavailable, match="broken"):
        await writer.check_fence()
    writer.abandon()


async def test_a_write_that_hangs_does_not_keep_a_leader_from_knowing(
    medium: AppendMedium, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, hanging, go_on = open_writer(medium, clock), threading.Event(), threading.Event()

    def hang(descriptor: int) -> None:
        hanging.set()
        go_on.wait()

    monkeypatch.setattr(os, "fdatasync", hang)
    writer.append(ops(1, 1))
    await asyncio.to_thread(hanging.wait)
    await writer.check_fence()
    go_on.set()
    await writer.close()
