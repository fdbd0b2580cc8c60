"""The lease in a file, for the processes of one machine or of a shared directory.

The record is a JSON file that is only ever replaced as a whole. Compare-and-swap is made by a lock on a second file, held
for the comparison and the rename and for nothing else: a lock held for a term could never be taken from a process that
has been stopped. What takes time, writing and syncing the new file, is done before the lock is taken.
"""

import asyncio
import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from flinkjob.api.errors import LeaseError
from flinkjob.election.record import LeaseRecord
from flinkjob.oplog.files import sync_directory, write_beside

POLL_INTERVAL = 0.02
"""Seconds between two looks at the file of one who waits for a change."""
LOCK_TIMEOUT = 5.0
"""Seconds after which a lock that is not to be had is an error: its owner was stopped within its moment."""


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
            LeaseError: the file cannot be written, or another process does not let go of the lock.
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
        if _compare_and_swap(path, record.version, record.released()) is not None:
            return True


def _compare_and_swap(path: Path, expected: str, new: LeaseRecord) -> LeaseRecord | None:
    written = msgspec.structs.replace(new, version=str(int(expected or "0") + 1))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = write_beside(path, msgspec.json.format(msgspec.json.encode(written)) + b"\n")
        try:
            with _locked(path):
                present = read_lease(path)
                if (present.version if present else "") != expected:
                    return None
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as error:
        raise LeaseError(f"the lease file {path} cannot be written: {error}") from error
    return written


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = path.with_name(f"{path.name}.lock")
    deadline = time.monotonic() + LOCK_TIMEOUT
    with lock.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise LeaseError(
                        f"the lock {lock} could not be had for {LOCK_TIMEOUT:g} s; a process that holds it may be stopped"
                    ) from None
                time.sleep(0.001)
        yield


def _status(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LeaseError(f"the lease file {path} cannot be read: {error}") from error
    return status.st_ino, status.st_mtime_ns, status.st_size
