"""Writes that go wrong, on each kind of medium: cut short, refused, or done with the answer lost."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from flinkjob.oplog import append
from flinkjob.oplog.append import AppendMedium
from flinkjob.oplog.medium import Segment
from flinkjob.oplog.object import ObjectMedium
from flinkjob.oplog.objectfile import encode_link

from .leaders import Leader


def tear(leader: Leader, torn: bytes) -> None:
    """Have the store hold what a write leaves that was cut short, behind the leader's last block."""
    medium, epoch, appender = leader.medium, leader.log.epoch, leader.appender
    if isinstance(medium, AppendMedium):
        with (Path(medium.location) / medium.describe(Segment(epoch, 0))).open("ab") as file:
            file.write(torn)
    elif isinstance(medium, ObjectMedium):
        name = f"oplog/{epoch:010d}/{appender._number:010d}"  # type: ignore[attr-defined]  # the next one's
        medium._store.create(name, encode_link(torn, appender._offset))  # type: ignore[attr-defined]
    else:
        file = appender._file  # type: ignore[attr-defined]
        file.write(torn)
        file.hsync()


@contextmanager
def failing_writes(leader: Leader, *, after_the_write: bool) -> Iterator[None]:
    """Have every write of the leader fail: before anything was written, or after all was and only the answer is lost."""
    error = OSError(errno.EIO, "the store has failed")

    def broken(write: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if after_the_write:
                write(*arguments, **options)
            raise error

        return call

    medium, appender = leader.medium, leader.appender
    if isinstance(medium, AppendMedium):
        patch = (
            mock.patch.object(append.os, "fdatasync", broken(append.os.fdatasync))  # type: ignore[attr-defined]
            if after_the_write
            else mock.patch.object(append, "write_fully", broken(append.write_fully))  # type: ignore[attr-defined]
        )
    elif isinstance(medium, ObjectMedium):
        patch = mock.patch.object(medium._store, "create", broken(medium._store.create))
    else:
        opened = appender._open  # type: ignore[attr-defined]

        def open_broken() -> _BrokenFile:
            return _BrokenFile(opened(), after_the_write, error)

        patch = mock.patch.object(appender, "_open", open_broken)
    with patch:
        yield


class _BrokenFile:
    """An HDFS file whose sync never succeeds."""

    def __init__(self, file: Any, after_the_write: bool, error: OSError) -> None:
        self._file = file
        self._after_the_write = after_the_write
        self._error = error

    def write(self, data: bytes) -> None:
        if self._after_the_write:
            self._file.write(data)

    def hsync(self) -> None:
        if self._after_the_write:
            self._file.hsync()
        raise self._error
