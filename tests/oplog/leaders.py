"""Leaders without a loop: they claim, replay and commit step by step, in the order that a test wants."""

from collections.abc import Iterable

from flinkjob.graph.operations import EpochStarted, Operation, decode_operations, encode_operations
from flinkjob.oplog.format import encode_block, encode_snapshot
from flinkjob.oplog.log import OperationLog
from flinkjob.oplog.medium import Medium
from flinkjob.oplog.replay import Position, Replay
from flinkjob.oplog.snapshots import trim


def operation(number: int, leader: str = "jm") -> Operation:
    """An operation that a graph takes at LSN ``number`` and that no other is equal to."""
    return EpochStarted(epoch=number, leader=leader, at=number)


class Leader:
    """A leader that has replayed the log and writes blocks of operations that carry its name.

    Attributes:
        history: all operations of the log as this leader sees it, from LSN 1 (what a snapshot holds is in its bytes).
    """

    def __init__(self, medium: Medium, name: str = "jm") -> None:
        self.medium = medium
        self.name = name
        self.log = OperationLog.open(medium, name)
        self.replay = self.log.replay()
        self.history = contents(self.replay)
        assert self.replay.end is not None
        self.position: Position = self.replay.end
        medium.settle(self.log.epoch)
        self.appender = medium.appender(self.log.epoch)

    def block(self, count: int) -> tuple[bytes, list[Operation], Position]:
        """The next block, its operations, and the position behind it."""
        before = self.position
        operations = [operation(before.lsn + 1 + n, self.name) for n in range(count)]
        data, checksum = encode_block(
            encode_operations(operations),
            epoch=self.log.epoch,
            previous_epoch=before.epoch,
            first_lsn=before.lsn + 1,
            count=count,
            previous_checksum=before.checksum,
        )
        return data, operations, Position(before.lsn + count, self.log.epoch, checksum)

    def commit(self, count: int = 1) -> None:
        data, operations, position = self.block(count)
        self.appender.append(data)
        self.history += operations
        self.position = position

    def snapshot(self) -> None:
        """Store all history as a snapshot, as ``LogWriter.write_snapshot`` does."""
        self.medium.check_fence(self.log.epoch)
        file = encode_snapshot(encode_operations(self.history), epoch=self.log.epoch, lsn=self.position.lsn)
        self.medium.put_snapshot(self.position.lsn, file)
        self.appender.roll()
        self.medium.check_fence(self.log.epoch)
        trim(self.medium, self.log.epoch)


def contents(replay: Replay) -> list[Operation]:
    """All operations that a replay stands for; a snapshot's data are taken to be encoded operations."""
    history = decode_operations(replay.snapshot) if replay.snapshot is not None else []
    return history + flat(replay)


def flat(blocks: Iterable[list[Operation]]) -> list[Operation]:
    return [operation for block in blocks for operation in block]


def replayed(medium: Medium) -> list[Operation]:
    """What a new leader would see, without becoming one."""
    return contents(Replay.newest(medium))
