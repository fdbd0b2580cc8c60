"""Group commit: order, batches, failing stores, deposition, snapshots, the closing."""

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest

from flinkjob.api.errors import Deposed, LogUnavailable, StorageError
from flinkjob.graph.operations import EpochStarted, Operation, encode_operations
from flinkjob.oplog.append import AppendMedium, FileAppender
from flinkjob.oplog.log import OperationLog
from flinkjob.oplog.medium import Segment
from flinkjob.oplog.replay import Position, Replay
from flinkjob.oplog.writer import LogWriter

from .leaders import Leader, flat, operation, replayed


class Outcome:
    """What the writer's callbacks have told."""

    def __init__(self) -> None:
        self.durable: list[int] = []
        self.failures: list[StorageError] = []
        self.failed = asyncio.Event()

    def on_failed(self, error: StorageError) -> None:
        self.failures.append(error)
        self.failed.set()


class Time:
    """A clock that only waiting moves; what is to happen meanwhile happens in the thread that waits."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self.on_pause: Callable[[], None] = lambda: None

    def clock(self) -> float:
        return self.now

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.now += seconds
        self.pauses.append(seconds)
        self.on_pause()
        return event.is_set()


@pytest.fixture
def medium(tmp_path: Path) -> AppendMedium:
    return AppendMedium(tmp_path)


def open_writer(
    medium: AppendMedium,
    outcome: Outcome,
    time: Time | None = None,
    *,
    flush_interval: float = 0.0,
    retry_deadline: float = 60.0,
) -> LogWriter:
    log = OperationLog.open(medium, "jm")
    for _ in log.replay():
        pass
    return log.writer(
        on_durable=outcome.durable.append,
        on_failed=outcome.on_failed,
        flush_interval=flush_interval,
        retry_deadline=retry_deadline,
        clock=time.clock if time else monotonic,
        wait=time.wait if time else threading.Event.wait,
    )


def ops(first: int, count: int) -> list[Operation]:
    return [operation(lsn) for lsn in range(first, first + count)]


class Gate:
    """Holds every append of a FileAppender until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.arrived = threading.Event()
        self.open = threading.Event()
        append = FileAppender.append

        def held(appender: FileAppender, block: bytes) -> None:
            self.arrived.set()
            self.open.wait()
            append(appender, block)

        monkeypatch.setattr(FileAppender, "append", held)


def failing_sync(monkeypatch: pytest.MonkeyPatch, error: int = errno.EIO) -> Callable[[], None]:
    """Have every sync fail until the returned function is called."""
    real = os.fdatasync

    def fail(descriptor: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fdatasync", fail)
    return lambda: monkeypatch.setattr(os, "fdatasync", real)


async def ended(writer: LogWriter) -> None:
    """The writer's thread is over."""
    await asyncio.to_thread(writer._committer._thread.join)


async def test_operations_get_lsns_at_once_and_are_durable_later(medium: AppendMedium) -> None:
    outcome = Outcome()
    writer = open_writer(medium, outcome)
    assert writer.append(ops(1, 3)) == 3
    assert writer.append([]) == 3
    assert writer.append(ops(4, 1)) == 4
    assert (writer.durable_lsn, writer.lag) == (0, 4)
    await writer.wait_durable(4)
    assert (writer.durable_lsn, writer.lag) == (4, 0)
    assert outcome.durable[-1] == 4
    assert replayed(medium) == ops(1, 4)
    await writer.close()
    assert outcome.failures == []


async def test_multi_thread_write_event(medium: AppendMedium) -> None:
    """FLIP-383 ``FileSystemJobEventStoreTest.testMultiThreadWriteEvent``: many write at once, here tasks of one loop; all
    that each wrote is there once and in its order.
    """
    writer = open_writer(medium, Outcome())

    async def write(number: int) -> None:
        for step in range(10):
            await writer.wait_durable(writer.append([EpochStarted(epoch=step + 1, leader=f"{number}", at=1)]))

    await asyncio.gather(*(write(number) for number in range(10)))
    await writer.close()
    told = [op for op in replayed(medium) if isinstance(op, EpochStarted)]
    assert len(told) == 100
    for number in range(10):
        assert [op.epoch for op in told if op.leader == f"{number}"] == list(range(1, 11))


async def test_what_arrives_during_a_commit_becomes_the_next_block(
    medium: AppendMedium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FLIP-383 ``FsBatchFlushOutputStreamTest.testBatchFlush``, too."""
    gate = Gate(monkeypatch)
    outcome = Outcome()
    writer = open_writer(medium, outcome)
    writer.append(ops(1, 1))
    await asyncio.to_thread(gate.arrived.wait)
    for lsn in range(2, 102):
        writer.append(ops(lsn, 1))
    assert outcome.durable == []
    gate.open.set()
    await writer.close()
    assert outcome.durable == [1, 101]


async def test_the_next_block_is_begun_without_the_loop(medium: AppendMedium, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that is busy with decisions does not leave the disk idle."""
    gate = Gate(monkeypatch)
    outcome = Outcome()
    writer = open_writer(medium, outcome)
    for lsn in (1, 2):
        writer.append(ops(lsn, 1))
        gate.arrived.wait()  # the loop is not given a chance to run
        gate.arrived.clear()
        gate.open.set()
    assert outcome.durable == []
    await writer.close()
    assert outcome.durable == [1, 2]


async def test_a_block_is_bounded_in_operations_and_in_bytes(medium: AppendMedium) -> None:
    outcome = Outcome()
    OperationLog.open(medium, "jm")
    largest = len(encode_operations(ops(1, 3)))
    writer = LogWriter(
        medium,
        1,
        Position(),
        on_durable=outcome.durable.append,
        on_failed=outcome.on_failed,
        max_operations=7,
        max_bytes=largest,
    )
    writer.append(ops(1, 20))
    await writer.close()
    replay = Replay.newest(medium)
    blocks = list(replay)
    assert flat(blocks) == ops(1, 20)
    assert max(len(encode_operations(block)) for block in blocks) <= largest
    assert len(outcome.durable) == len(blocks) > 20 // 3
    assert max(len(block) for block in blocks) <= 3


async def test_an_operation_larger_than_a_block_is_written_by_itself(medium: AppendMedium) -> None:
    """FLIP-383 ``FsBatchFlushOutputStreamTest.testWriteLargerThanBufferSize``, too."""
    outcome = Outcome()
    OperationLog.open(medium, "jm")
    writer = LogWriter(
        medium, 1, Position(), on_durable=outcome.durable.append, on_failed=outcome.on_failed, max_bytes=10
    )
    large = operation(1, "x" * 1000)
    writer.append([large, large])
    await writer.close()
    assert list(Replay.newest(medium)) == [[large], [large]]


async def test_a_commit_lingers_for_company(medium: AppendMedium) -> None:
    outcome, time = Outcome(), Time()
    writer = open_writer(medium, outcome, time, flush_interval=0.5)
    writer.append(ops(1, 1))

    def on_pause() -> None:
        writer.append(ops(2, 1))

    time.on_pause = on_pause
    await writer.wait_durable(2)
    assert outcome.durable == [2]
    assert time.pauses == [0.5]
    await writer.close()


async def test_the_log_goes_on_where_the_predecessor_ended(medium: AppendMedium) -> None:
    """FLIP-383 ``JobEventManagerTest.testRestart``, too."""
    for term in range(3):
        writer = open_writer(medium, Outcome())
        assert writer.last_lsn == writer.durable_lsn == 2 * term
        writer.append(ops(2 * term + 1, 2))
        await writer.close()
    assert replayed(medium) == ops(1, 6)


async def test_what_was_replayed_is_synced_before_anything_is_written(
    medium: AppendMedium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A predecessor that was killed may have left a block in the page cache only."""
    Leader(medium, "old").commit()
    synced: set[int] = set()
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    writer = open_writer(medium, Outcome())
    assert os.stat(Path(medium.location) / medium.describe(Segment(1, 0))).st_ino in synced
    await writer.close()


async def test_the_writer_needs_a_finished_replay(medium: AppendMedium) -> None:
    """FLIP-383 ``JobEventManagerTest.testInvalidInvoke``, too: there nothing was written before the start."""
    log = OperationLog.open(medium, "jm")
    outcome = Outcome()
    with pytest.raises(RuntimeError, match="has not been replayed"):
        log.writer(on_durable=outcome.durable.append, on_failed=outcome.on_failed)


async def test_start_twice(medium: AppendMedium) -> None:
    """FLIP-383 ``JobEventManagerTest.testStartTwice``: there the second start was refused; here whoever opens the log a
    second time is another leader, and deposes the first.
    """
    outcome = Outcome()
    first = open_writer(medium, outcome)
    second = open_writer(medium, Outcome())
    first.append(ops(1, 1))
    await outcome.failed.wait()
    assert [type(error) for error in outcome.failures] == [Deposed]
    await first.close()
    second.append(ops(1, 1))
    await second.close()
    assert replayed(medium) == ops(1, 1)


async def test_a_failing_write_is_repeated_with_growing_pauses_until_it_succeeds(
    medium: AppendMedium, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome, time = Outcome(), Time()
    writer = open_writer(medium, outcome, time)
    repair = failing_sync(monkeypatch)
    seen: list[tuple[str | None, int]] = []

    def on_pause() -> None:
        seen.append((writer.degraded, writer.lag))
        if len(time.pauses) == 4:
            repair()

    time.on_pause = on_pause
    writer.append(ops(1, 3))
    await writer.wait_durable(3)
    assert time.pauses == [0.05, 0.1, 0.2, 0.4]
    assert seen == [("Input/output error", 3)] * 4
    assert writer.degraded is None
    writer.append(ops(4, 1))
    await writer.close()
    assert replayed(medium) == ops(1, 4)
    assert outcome.failures == []


async def test_a_store_that_fails_until_the_deadline_ends_the_writer(
    medium: AppendMedium, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome, time = Outcome(), Time()
    writer = open_writer(medium, outcome, time, retry_deadline=10.0)
    failing_sync(monkeypatch, errno.ENOSPC)
    writer.append(ops(1, 3))
    with pytest.raises(LogUnavailable):
        await writer.wait_durable(3)
    [failure] = outcome.failures
    assert isinstance(failure, LogUnavailable)
    assert str(failure).endswith("could not be written from LSN 1 on for 10 s: No space left on device")
    assert max(time.pauses) == 2.0
    assert 8.0 <= time.now <= 10.0
    assert outcome.durable == []
    assert writer.failure is failure
    with pytest.raises(LogUnavailable):
        writer.append(ops(4, 1))
    await writer.close()


async def test_a_store_that_does_not_answer_is_given_up_too(
    medium: AppendMedium, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    outcome = Outcome()
    writer = open_writer(medium, outcome, retry_deadline=0.01)
    writer.append(ops(1, 1))
    await outcome.failed.wait()
    assert "the store does not answer" in str(outcome.failures[0])
    await writer.close()
    gate.open.set()
    assert outcome.durable == []


async def test_a_store_that_answers_after_it_was_given_up_gets_no_further_block(
    medium: AppendMedium, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    outcome = Outcome()
    writer = open_writer(medium, outcome, retry_deadline=0.01)
    writer.append(ops(1, 1))
    await asyncio.to_thread(gate.arrived.wait)
    writer.append(ops(2, 1))
    await outcome.failed.wait()
    gate.open.set()
    await ended(writer)
    assert replayed(medium) == ops(1, 1)
    assert outcome.durable == []


async def test_a_deposed_leader_is_told_at_once_and_acknowledges_nothing(medium: AppendMedium) -> None:
    outcome, time = Outcome(), Time()
    writer = open_writer(medium, outcome, time)
    writer.append(ops(1, 1))
    await writer.wait_durable(1)
    Leader(medium, "new")
    writer.append(ops(2, 5))
    await outcome.failed.wait()
    assert isinstance(outcome.failures[0], Deposed)
    assert outcome.durable == [1]
    assert time.pauses == []
    with pytest.raises(Deposed):
        writer.append(ops(7, 1))
    await writer.close()
    assert len(outcome.failures) == 1


async def test_a_deposed_leader_that_cannot_write_is_told_as_well(
    medium: AppendMedium, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome, time = Outcome(), Time()
    writer = open_writer(medium, outcome, time)
    Leader(medium, "new")
    failing_sync(monkeypatch)
    writer.append(ops(1, 1))
    await outcome.failed.wait()
    assert isinstance(outcome.failures[0], Deposed)
    assert time.pauses == []
    await writer.close()


async def test_a_deposed_leader_whose_files_are_trimmed_away_is_told_as_well(medium: AppendMedium) -> None:
    outcome, time = Outcome(), Time()
    writer = open_writer(medium, outcome, time)
    new = Leader(medium, "new")
    for _ in range(2):
        new.commit()
        new.snapshot()
    assert all(segment.epoch == 2 for segment in medium.segments())
    writer.append(ops(1, 1))
    await outcome.failed.wait()
    assert isinstance(outcome.failures[0], Deposed)
    await writer.close()


async def test_closing_writes_what_has_been_appended(medium: AppendMedium) -> None:
    """FLIP-383 ``JobEventManagerTest.testStop``, too: a log that is closed takes nothing more."""
    outcome = Outcome()
    writer = open_writer(medium, outcome, Time(), flush_interval=100.0)
    writer.append(ops(1, 5))
    await writer.close()
    assert outcome.durable == [5]
    with pytest.raises(LogUnavailable, match="closed"):
        writer.append(ops(6, 1))


async def test_an_abandoned_writer_tells_nobody_and_does_not_go_on_trying(
    medium: AppendMedium, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome, time = Outcome(), Time()
    writer = open_writer(medium, outcome, time)
    failing_sync(monkeypatch)
    abandoned = asyncio.Event()

    loop = asyncio.get_running_loop()

    async def abandon() -> None:
        writer.abandon()
        abandoned.set()

    time.on_pause = lambda: asyncio.run_coroutine_threadsafe(abandon(), loop).result()
    writer.append(ops(1, 3))
    await abandoned.wait()
    await ended(writer)
    assert len(time.pauses) == 1
    assert (outcome.durable, outcome.failures) == ([], [])
    with pytest.raises(LogUnavailable, match="term is over"):
        writer.append(ops(4, 1))


async def test_something_that_is_no_operation_ends_the_writer_and_not_in_silence(medium: AppendMedium) -> None:
    outcome = Outcome()
    writer = open_writer(medium, outcome)
    writer.append([object()])  # type: ignore[list-item]  # a bug of the caller's
    await outcome.failed.wait()
    assert "writer ended at LSN 1" in str(outcome.failures[0])
    await writer.close()


async def test_a_snapshot_waits_until_its_operations_are_durable(
    medium: AppendMedium, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    writer = open_writer(medium, Outcome())
    writer.append(ops(1, 3))
    snapshot = asyncio.create_task(writer.write_snapshot(2, encode_operations(ops(1, 2))))
    await asyncio.to_thread(gate.arrived.wait)
    await writer._snapshots.submit(lambda: None)  # whatever its thread was given before is done now
    assert medium.snapshots() == []
    gate.open.set()
    await snapshot
    assert medium.snapshots() == [2]
    assert replayed(medium) == ops(1, 3)
    await writer.close()


async def test_a_snapshot_of_what_was_never_appended_is_refused(medium: AppendMedium) -> None:
    writer = open_writer(medium, Outcome())
    with pytest.raises(ValueError, match="LSN 1 cannot be"):
        await writer.write_snapshot(1, b"")
    await writer.close()


async def test_two_snapshots_are_kept_and_the_segments_they_need(medium: AppendMedium) -> None:
    writer = open_writer(medium, Outcome())
    for turn in range(5):
        lsn = writer.append(ops(2 * turn + 1, 2))
        await writer.write_snapshot(lsn, encode_operations(ops(1, lsn)))
        assert replayed(medium) == ops(1, lsn)
    assert medium.snapshots() == [8, 10]
    assert [segment.number for segment in medium.segments()] == [4, 5]
    await writer.close()


async def test_a_deposed_leader_writes_no_snapshot(medium: AppendMedium) -> None:
    outcome = Outcome()
    writer = open_writer(medium, outcome)
    writer.append(ops(1, 2))
    await writer.wait_durable(2)
    Leader(medium, "new")
    with pytest.raises(Deposed):
        await writer.write_snapshot(2, b"")
    assert medium.snapshots() == []
    assert isinstance(outcome.failures[0], Deposed)
    await writer.close()


async def test_a_snapshot_that_cannot_be_written_leaves_the_log_as_it_is(
    medium: AppendMedium, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: AppendMedium, lsn: int, file: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    outcome = Outcome()
    writer = open_writer(medium, outcome)
    writer.append(ops(1, 2))
    with monkeypatch.context() as patch:
        patch.setattr(AppendMedium, "put_snapshot", fail)
        with pytest.raises(LogUnavailable, match=r"the snapshot at LSN 2 .* No space left on device"):
            await writer.write_snapshot(2, b"")
    writer.append(ops(3, 1))
    await writer.close()
    assert outcome.failures == []
    assert replayed(medium) == ops(1, 3)
