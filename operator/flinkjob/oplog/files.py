"""Files that are there for good once a function returns: what a crash or a power failure may not undo.

A new name survives a power failure only when its directory has been synced too, so every function here that makes a name
syncs the directory after the file.
"""

import contextlib
import errno
import os
import tempfile
from pathlib import Path


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(directory: Path) -> None:
    """Make a directory and those above it, durably; it may exist."""
    if directory.is_dir():
        return
    make_directory(directory.parent)
    directory.mkdir(exist_ok=True)
    sync_directory(directory.parent)


def write_fully(descriptor: int, data: bytes) -> None:
    """Write all bytes, however many calls that takes."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def replace_file(path: Path, data: bytes) -> None:
    """Write a file beside and rename it into place: readers see the old content or the new, never a part."""
    temporary = write_beside(path, data)
    temporary.replace(path)
    sync_directory(path.parent)


def create_file(path: Path, data: bytes) -> bool:
    """Like ``replace_file``, but the first writer wins. Returns whether this one was the first."""
    temporary = write_beside(path, data)
    first = True
    try:
        os.link(temporary, path)
    except FileExistsError:
        first = False
    finally:
        temporary.unlink()
    # Also for the loser: the winner may have died between its link and its sync.
    sync_directory(path.parent)
    return first


class LocalDirectory:
    """A directory of files that are written once; it is made with the first of them."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, name: str) -> bytes:
        """See Directory."""
        return (self._path / name).read_bytes()

    def create(self, name: str, data: bytes) -> None:
        """See Directory."""
        make_directory(self._path)
        if not create_file(self._path / name, data):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)


def write_beside(path: Path, data: bytes) -> Path:
    """Write and sync a temporary file in the directory of ``path``, ready to be renamed."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        os.fchmod(descriptor, 0o644)
        write_fully(descriptor, data)
        os.fsync(descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    finally:
        os.close(descriptor)
    return temporary
