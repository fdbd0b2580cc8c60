"""The files of a job: written under another name until they are whole, read from anywhere.

This is the one place that knows whether a URL is a local path, which costs a few system calls, or one of fsspec's, which
costs the import of fsspec and of the backend. Paths are below the root, with ``/``.
"""

import errno
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, BinaryIO, Protocol, cast

from flinkjob.api.errors import FlinkJobError, StorageError

_LOCAL_SCHEMES = ("file://", "local://", "file:", "local:")
_DAMAGED = frozenset({errno.EIO, errno.ESTALE, errno.ENOTDIR, errno.EISDIR})


class MissingFile(StorageError):
    """The file is not there, or the medium has lost it."""


class PendingFile:
    """A file being written: nobody sees it under its name before ``commit``.

    Raises:
        StorageError: it cannot be made.
    """

    def __init__(self, storage: "Storage", path: str) -> None:
        self._storage = storage
        self._path = path
        # Attempts never share a name, but a process that was taken for dead may still write the same attempt.
        self._pending = f"{path}.{os.getpid():x}-{os.urandom(4).hex()}.tmp"
        self.size = 0
        try:
            self._file = storage.open_new(self._pending)
        except OSError as error:
            raise _failure("written", path, error) from error

    def write(self, data: bytes | bytearray) -> None:
        """Append.

        Raises:
            StorageError: it could not be written.
        """
        try:
            self._file.write(data)
        except OSError as error:
            raise _failure("written", self._path, error) from error
        self.size += len(data)

    def commit(self) -> None:
        """Make it durable and let it appear under its name, whole, in place of what was there.

        Raises:
            StorageError: it could not be; nothing has appeared.
        """
        try:
            self._storage.publish(self._file, self._pending, self._path)
        except OSError as error:
            raise _failure("written", self._path, error) from error

    def discard(self) -> None:
        """Leave nothing behind; after ``commit`` without effect."""
        # What cannot be removed stays until the job's storage goes; no reader looks at such names. On a full disk even
        # closing fails, and removing helps.
        for step in (self._file.close, partial(self._storage.forget, self._pending)):
            with suppress(OSError):
                step()


class Storage(Protocol):
    """What a root directory has to offer. Its methods raise OSError."""

    def open(self, path: str) -> BinaryIO:
        """The file, to be read."""

    def open_new(self, path: str) -> BinaryIO:
        """A new file, to be written; missing directories are made."""

    def publish(self, file: BinaryIO, pending: str, path: str) -> None:
        """Close the file durably and give it its name."""

    def forget(self, pending: str) -> None:
        """Leave nothing of a file that has not been published; it is closed."""


class LocalStorage:
    """A directory of this machine, or one that is mounted."""

    def __init__(self, root: str) -> None:
        self._root = root

    def open(self, path: str) -> BinaryIO:
        """The file, to be read."""
        return open(f"{self._root}/{path}", "rb")

    def open_new(self, path: str) -> BinaryIO:
        """A new file, to be written; missing directories are made."""
        name = f"{self._root}/{path}"
        try:
            return open(name, "xb")
        except FileNotFoundError:
            os.makedirs(os.path.dirname(name), exist_ok=True)
            return open(name, "xb")

    def publish(self, file: BinaryIO, pending: str, path: str) -> None:
        """Sync, close, rename, and sync the directory that has the name."""
        with file:
            file.flush()
            os.fsync(file.fileno())
        name = f"{self._root}/{path}"
        os.replace(f"{self._root}/{pending}", name)
        directory = os.open(os.path.dirname(name), os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def forget(self, pending: str) -> None:
        """Remove it."""
        os.unlink(f"{self._root}/{pending}")


class RemoteStorage:
    """A directory behind any other URL; what its subclasses differ in is how a file gets its name.

    Raises:
        UnsupportedStorage: the protocol is unknown, or its backend is not installed.
    """

    def __init__(self, url: str) -> None:
        from flinkjob.oplog.filesystem import open_filesystem

        self._filesystem, root = open_filesystem(url)
        self._root = root.rstrip("/")

    def open(self, path: str) -> BinaryIO:
        """The file, to be read."""
        with _remote_errors():
            return io.BufferedReader(_RemoteFile(self._filesystem.open(f"{self._root}/{path}", "rb")))


class ObjectStorage(RemoteStorage):
    """An object store. It cannot rename, and a copy and a removal are two requests more; so a file is written to this
    machine's temporary directory, where it has no name and goes with its process, and uploaded when it is whole.
    """

    def open_new(self, path: str) -> BinaryIO:
        """A new file, to be written."""
        return cast(BinaryIO, tempfile.TemporaryFile(prefix="flinkjob-"))

    def publish(self, file: BinaryIO, pending: str, path: str) -> None:
        """Upload it: an object appears whole."""
        with file, _remote_errors():
            file.flush()
            file.seek(0)
            self._filesystem.put_file(f"/dev/fd/{file.fileno()}", f"{self._root}/{path}")

    def forget(self, pending: str) -> None:
        """There is nothing left of it."""


class RenamingStorage(RemoteStorage):
    """HDFS, which can rename as a local file system can."""

    def open_new(self, path: str) -> BinaryIO:
        """A new file, to be written; missing directories are made."""
        name = f"{self._root}/{path}"
        with _remote_errors():
            try:
                file = self._filesystem.open(name, "wb")
            except FileNotFoundError:
                self._filesystem.makedirs(name.rpartition("/")[0], exist_ok=True)
                file = self._filesystem.open(name, "wb")
            return cast(BinaryIO, _RemoteFile(file))

    def publish(self, file: BinaryIO, pending: str, path: str) -> None:
        """Close, which is what makes a remote file durable, and rename."""
        file.close()
        with _remote_errors():
            self._filesystem.mv(f"{self._root}/{pending}", f"{self._root}/{path}", overwrite=True)

    def forget(self, pending: str) -> None:
        """Remove it."""
        with _remote_errors():
            self._filesystem.rm_file(f"{self._root}/{pending}")


class _RemoteFile(io.RawIOBase):
    """A backend's file whose errors are OSErrors, and which ``io`` can put a buffer around."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        with _remote_errors():
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        with _remote_errors():
            self._file.seek(offset, whence)
            return int(self._file.tell())

    def write(self, data: Any, /) -> int:
        with _remote_errors():
            self._file.write(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            with _remote_errors():
                self._file.close()


@contextmanager
def _remote_errors() -> Iterator[None]:
    """Backends let errors of their libraries through that are no OSError; here they all are."""
    try:
        yield
    except (OSError, FlinkJobError):  # a task may be told to stop at any point
        raise
    except Exception as error:
        raise OSError(errno.EREMOTEIO, f"{type(error).__name__}: {error}") from error


def open_storage(url: str) -> Storage:
    """The directory at a local path, a ``file://`` URL or any other that fsspec knows.

    Raises:
        UnsupportedStorage: fsspec does not know it.
    """
    for scheme in _LOCAL_SCHEMES:
        if url.startswith(scheme):
            return LocalStorage(url.removeprefix(scheme).rstrip("/"))
    if "://" not in url:
        return LocalStorage(url.rstrip("/"))
    return RenamingStorage(url) if url.startswith("hdfs://") else ObjectStorage(url)


def open_input(url: str) -> BinaryIO:
    """A file to be read, by path or URL, for input splits.

    Raises:
        StorageError: it is missing or cannot be read.
    """
    directory, _, name = url.rpartition("/")
    # "name" alone is a file of the current directory, "/name" one of the root.
    root = directory if directory or not url.startswith("/") else "/"
    return open_file(open_storage(root or "."), name)


def open_file(storage: Storage, path: str) -> BinaryIO:
    """The file, to be read.

    Raises:
        MissingFile: there is no such file.
        StorageError: it cannot be read now.
    """
    try:
        return storage.open(path)
    except FileNotFoundError as error:
        raise MissingFile(f"{path} does not exist") from error
    except OSError as error:
        raise _failure("read", path, error) from error


def read_range(file: BinaryIO, start: int, length: int, name: str) -> bytes:
    """Bytes of the file; fewer than asked for where it ends.

    Raises:
        MissingFile: the medium has lost them.
        StorageError: they cannot be read now.
    """
    try:
        file.seek(start)
        return file.read(length)
    except OSError as error:
        raise _failure("read", name, error) from error


def _failure(verb: str, path: str, error: OSError) -> StorageError:
    kind = MissingFile if error.errno in _DAMAGED and verb == "read" else StorageError
    # HDFS appends a stack trace of its own.
    return kind(f"{path} cannot be {verb}: {str(error.strerror or error).splitlines()[0]}")
