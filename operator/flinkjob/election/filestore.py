"""The lease in a file, for the processes of one machine or of a shared directory.

The record is a JSON file that is only ever replaced as a whole. Compare-and-swap is made by a lock on a second file, held
for the comparison and the rename and for nothing else: a lock held for a term could never be taken from a process that
has been stopped. What takes time, writing and syncing the new file, is done before the lock is taken. A process may be
stopped within that moment, too: then the lock is broken, and when it goes on it finds so and changes nothing.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import msgspec

from flinkjob.api.errors import LeaseError
from flinkjob.election.record import LeaseRecord
from flinkjob.oplog.files import sync_directory, write_beside

POLL_INTERVAL = 0.02
"""Seconds between two looks at the file of one who waits for a change."""
LOCK_TIMEOUT = 1.0
"""Seconds after which a lock that is not to be had is broken: its owner was stopped within its moment."""

logger = logging.getLogger(__name__)


class FileLeaseStore:
    """A LeaseStore in the file at ``path``; the directory is made when the first record is written."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self) -> LeaseRecord | None:
        """See LeaseStore.

        Raises:
            LeaseError: the file cannot be read, or holds no lease record.
        """
        return await asyncio.to_thread(read_lease, self._path)

    async def compare_and_swap(self, expected: str, new: LeaseRecord) -> LeaseRecord | None:
        """See LeaseStore.

        Raises:
            LeaseError: the file cannot be written.
        """
        return await asyncio.to_thread(_compare_and_swap, self._path, expected, new)

    async def changed(self, after_version: str, timeout: float) -> bool:
        """See LeaseStore. Looks at the file's status every 20 ms and reads it only when that has changed."""
        seen: object = None
        deadline = time.monotonic() + timeout
        while True:
            status = await asyncio.to_thread(_status, self._path)
            if status != seen:
                seen = status
                record = await self.read()
                if (record.version if record else "") != after_version:
                    return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            await asyncio.sleep(min(POLL_INTERVAL, left))


def read_lease(path: Path) -> LeaseRecord | None:
    """The record in a lease file; None where there is no file.

    Raises:
        LeaseError: the file cannot be read, or holds no lease record.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LeaseError(f"the lease file {path} cannot be read: {error}") from error
    try:
        record = msgspec.json.decode(data, type=LeaseRecord)
    except msgspec.DecodeError as error:
        raise LeaseError(f"the lease file {path} holds no lease record: {error}") from None
    if not record.version.isdecimal():
        raise LeaseError(f"the lease file {path} holds no lease record: its version, {record.version!r}, is no number")
    return record


def empty_lease(path: Path, holder: str) -> bool:
    """Free the lease if this holder still has it, so that nobody waits for its expiry. Only for a holder known to be dead.

    Returns:
        Whether the lease was its, and is free now.

    Raises:
        LeaseError: the file cannot be read or written.
    """
    while True:
        record = read_lease(path)
        if record is None or record.holder != holder:
            return False
        freed = msgspec.structs.replace(record.released(), ended="its process has ended")
        if _compare_and_swap(path, record.version, freed) is not None:
            return True


def _compare_and_swap(path: Path, expected: str, new: LeaseRecord) -> LeaseRecord | None:
    written = msgspec.structs.replace(new, version=str(int(expected or "0") + 1))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = write_beside(path, msgspec.json.format(msgspec.json.encode(written)) + b"\n")
        try:
            with _locked(path) as still_mine:
                present = read_lease(path)
                if (present.version if present else "") != expected or not still_mine():
                    return None
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as error:
        raise LeaseError(f"the lease file {path} cannot be written: {error}") from error
    return written


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[Callable[[], bool]]:
    """Hold the lock for the length of the block; yields whether it is still held.

    The lock of an owner that does not let go of it is broken: its file is removed, and whoever comes makes a new one.
    """
    lock = path.with_name(f"{path.name}.lock")
    while True:
        with lock.open("ab") as file:
            own = partial(_is_open_as, file, lock)
            if not _flock(file):
                if own():
                    logger.warning(
                        "the lock %s is broken: it was held for %g s, by a stopped process?", lock, LOCK_TIMEOUT
                    )
                    lock.unlink(missing_ok=True)
            elif own():
                yield own
                return


def _flock(file: BinaryIO) -> bool:
    """Lock the file, waiting for it until LOCK_TIMEOUT is over."""
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.001)


def _is_open_as(file: BinaryIO, path: Path) -> bool:
    """Whether the path still leads to the open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _status(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LeaseError(f"the lease file {path} cannot be read: {error}") from error
    return status.st_ino, status.st_mtime_ns, status.st_size
