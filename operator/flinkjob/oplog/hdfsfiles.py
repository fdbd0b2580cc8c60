"""HDFS below a URL, reduced to what a log needs of it; every failure is an OSError of one line."""

import contextlib
import io
import os
from collections.abc import Iterator
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from flinkjob.api.errors import FlinkJobError
from flinkjob.oplog.filesystem import missing_backend, unusable

try:
    from hdfs_native import Client, FileReader, FileWriter, WriteOptions
except ImportError:
    raise missing_backend("hdfs", "hdfs://") from None

_READ_BYTES = 1 << 20


class HdfsDirectory:
    """The files below a ``hdfs://`` URL; names are paths below it."""

    def __init__(self, url: str) -> None:
        """Take the directory; nothing is asked yet. Without a host the URL means Hadoop's ``fs.defaultFS``.

        Raises:
            UnsupportedStorage: the URL names neither a NameNode and its port nor a name service of Hadoop's configuration.
        """
        parts = urlsplit(url)
        self.location = url
        self._root = unquote(parts.path).rstrip("/")
        try:
            self._client = Client(f"hdfs://{parts.netloc}" if parts.netloc else None)
        except Exception as error:
            raise unusable(url, error) from error

    def read(self, name: str) -> bytes:
        """See Directory."""
        with hdfs_errors(), self._client.read(self._path(name)) as file:
            return bytes(file.read())

    def create(self, name: str, data: bytes) -> None:
        """See Directory: written beside, and renamed where there is no such name yet."""
        self._write(name, data, overwrite=False)

    def put(self, name: str, data: bytes) -> None:
        """Write a file durably, in place of what is there; readers see the old content or the new."""
        self._write(name, data, overwrite=True)

    def create_open(self, name: str) -> FileWriter:
        """A new, empty file, to be written to; it must not exist yet.

        Raises:
            FileExistsError: it does.
        """
        with hdfs_errors():
            return self._client.create(self._path(name), WriteOptions(overwrite=False, create_parent=True))

    def append_to(self, name: str) -> FileWriter:
        """A file that is there, to be written to."""
        with hdfs_errors():
            return self._client.append(self._path(name))

    def open(self, name: str, *, closed: bool) -> BinaryIO:
        """A file as far as it can be read.

        Args:
            closed: an error where it cannot be read to its end, since somebody is writing to it.
        """
        with hdfs_errors():
            length = self._client.get_file_info(self._path(name)).length
            reader = self._client.read(self._path(name))
        if closed and len(reader) < length:
            raise OSError(f"{name} is being written to")
        return io.BufferedReader(_HdfsFile(reader), _READ_BYTES)

    def names(self, directory: str, *, recursive: bool = False) -> list[str]:
        """The names in a directory, below it; none where there is no such directory."""
        path = self._path(directory)
        try:
            with hdfs_errors():
                return sorted(s.path.removeprefix(f"{path}/") for s in self._client.list_status(path, recursive))
        except FileNotFoundError:
            return []

    def make_directory(self, name: str) -> None:
        """Make a directory and those above it; it may exist."""
        with hdfs_errors():
            self._client.mkdirs(self._path(name), create_parent=True)

    def recover_lease(self, name: str) -> bool:
        """Shut the file's writer out; whether that is done."""
        with hdfs_errors():
            return self._client.recover_lease(self._path(name))

    def rename(self, name: str, target: str) -> None:
        """Move a file where there is none."""
        with hdfs_errors():
            self._client.rename(self._path(name), self._path(target), False)

    def remove(self, name: str) -> None:
        """Remove a file; it may be gone already."""
        with hdfs_errors(), contextlib.suppress(FileNotFoundError):
            self._client.delete(self._path(name))

    def _write(self, name: str, data: bytes, *, overwrite: bool) -> None:
        directory, _, base = name.rpartition("/")
        beside = f"{directory}/.{base}.{os.urandom(6).hex()}.tmp".removeprefix("/")
        try:
            with hdfs_errors():
                with self.create_open(beside) as file:
                    file.write(data)
                    file.hsync()
                self._client.rename(self._path(beside), self._path(name), overwrite)
        except OSError:
            with contextlib.suppress(OSError):
                self.remove(beside)
            raise

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


class _HdfsFile(io.RawIOBase):
    """A file, as far as it could be read when it was opened."""

    def __init__(self, reader: FileReader) -> None:
        self._reader = reader
        self._size = len(reader)
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]  # any writable buffer
        count = max(0, min(len(buffer), self._size - self._position))
        if count:
            with hdfs_errors():
                data = self._reader.read_range(self._position, count)
            count = len(data)
            buffer[:count] = data
            self._position += count
        return count


@contextlib.contextmanager
def hdfs_errors() -> Iterator[None]:
    """What the client raises within the block becomes an OSError without the NameNode's stack trace."""
    try:
        yield
    except FlinkJobError:
        raise
    except Exception as error:
        kind = type(error) if isinstance(error, FileNotFoundError | FileExistsError) else OSError
        raise kind(str(error).split("\n")[0].split("\\n")[0]) from None
