"""The directory of one job below ``high-availability.storageDir``, and all that outlives its JobManagers.

::

    <high-availability.storageDir>/<namespace>/<name>-<uid>/
        jobgraph      the JobGraph as it was first built; nobody ever builds it again
        oplog/        the operation log
        snapshots/    folded graphs
        result        the job's end
        partitions/   what tasks produced, by attempt
        checkpoints/  what tasks left for their next attempt

``jobgraph`` and ``result`` are written once: of several leaders that try, the first wins and all get what it wrote.
"""

import contextlib
import hashlib
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from fsspec.core import split_protocol

from flinkjob.api.errors import FlinkJobError, LogUnavailable, UnsupportedStorage
from flinkjob.oplog.append import AppendMedium
from flinkjob.oplog.files import LocalDirectory
from flinkjob.oplog.filesystem import scheme_of
from flinkjob.oplog.medium import Medium

if TYPE_CHECKING:
    from flinkjob.oplog.objectstore import ObjectStore

_LOCAL = (None, "file", "local")
_LONGEST_NAME = 200
"""Of a directory's name, in bytes: file systems take 255."""


class Directory(Protocol):
    """Files that are written once. Its methods raise OSError where the store fails."""

    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
            FileNotFoundError: there is no such file.
        """

    def create(self, name: str, data: bytes) -> None:
        """Write a file durably, so that readers see the whole of it or nothing.

        Raises:
            FileExistsError: somebody has done so before.
        """


def open_medium(url: str) -> Medium:
    """The log medium for a job's directory, chosen by the URL's scheme.

    Raises:
        UnsupportedStorage: the scheme is unknown, or its backend is not installed.
    """
    if is_local(url):
        return AppendMedium(local_path(url))
    if scheme_of(url) == "hdfs":
        from flinkjob.oplog.hdfs import HdfsMedium

        return HdfsMedium(url)
    from flinkjob.oplog.object import ObjectMedium

    return ObjectMedium(_object_store(url))


def open_directory(url: str) -> Directory:
    """A job's directory itself, for what is written once.

    Raises:
        UnsupportedStorage: the scheme is unknown, or its backend is not installed.
    """
    if is_local(url):
        return LocalDirectory(local_path(url))
    if scheme_of(url) == "hdfs":
        from flinkjob.oplog.hdfsfiles import HdfsDirectory

        return HdfsDirectory(url)
    return _object_store(url)


def is_local(url: str) -> bool:
    """Whether the URL means a path of this machine, mounted ones included."""
    return scheme_of(url) in _LOCAL


def local_path(url: str) -> Path:
    """The path that a plain path or a ``file://`` URL means.

    Raises:
        UnsupportedStorage: the URL has another scheme, or a host.
    """
    scheme, path = split_protocol(os.fspath(url))
    if scheme is None and path.startswith("file:/"):  # as Hadoop writes it, with one slash
        scheme, path = "file", path.removeprefix("file:")
    if scheme not in _LOCAL:
        raise UnsupportedStorage(f"{url!r} is no path of this machine; wanted is a local path or file://")
    if scheme is not None and not path.startswith("/"):
        raise UnsupportedStorage(f"{url!r}: a file:// URL needs an absolute path, as in file:///var/lib/flink")
    if not path:
        raise UnsupportedStorage(f"{url!r} is no path; supported are a local path and URLs such as file:// and s3://")
    return Path(os.path.abspath(path))


def _object_store(url: str) -> "ObjectStore":
    from flinkjob.oplog.objectstore import ObjectStore

    return ObjectStore(url)


class JobStorage:
    """One job's directory. Making one touches nothing.

    Attributes:
        url: the directory, in the form in which it was given.
    """

    def __init__(self, url: str) -> None:
        """Take the directory at a URL: what ``flinkjob log`` is given."""
        self.url = os.fspath(url).rstrip("/") or "/"

    @classmethod
    def below(cls, storage_dir: str, *, namespace: str, name: str, uid: str) -> "JobStorage":
        """The directory of a job below ``high-availability.storageDir``. Any name is safe: it becomes one path component."""
        return cls(f"{os.fspath(storage_dir).rstrip('/')}/{_component(namespace)}/{_component(f'{name}-{uid}')}")

    @property
    def partitions_url(self) -> str:
        """Where tasks write their result partitions."""
        return f"{self.url}/partitions"

    @property
    def checkpoints_url(self) -> str:
        """Where tasks leave their checkpoints."""
        return f"{self.url}/checkpoints"

    def medium(self) -> Medium:
        """The log's medium.

        Raises:
            UnsupportedStorage: no log can be kept at the URL.
        """
        return open_medium(self.url)

    def warm_up(self) -> None:
        """Load the backend and connect, which takes most of a second on some stores: done in advance, a failover is shorter.

        What fails here fails again, and is told, where the store is needed.
        """
        with contextlib.suppress(FlinkJobError):
            self.medium()
            self.read_job_graph()

    def read_job_graph(self) -> bytes | None:
        """The stored JobGraph; None where there is none yet.

        Raises:
            LogUnavailable: it cannot be read.
        """
        return self._read("jobgraph")

    def store_job_graph(self, data: bytes) -> bytes:
        """Store the JobGraph unless there is one, and return the one that is stored.

        Raises:
            LogUnavailable: it cannot be written.
        """
        return self._store("jobgraph", data)

    def read_result(self) -> bytes | None:
        """The stored end of the job; None where there is none yet.

        Raises:
            LogUnavailable: it cannot be read.
        """
        return self._read("result")

    def store_result(self, data: bytes) -> bytes:
        """Store the job's end unless it is stored, and return the one that is stored.

        Raises:
            LogUnavailable: it cannot be written.
        """
        return self._store("result", data)

    @cached_property
    def _directory(self) -> Directory:
        return open_directory(self.url)

    def _read(self, name: str) -> bytes | None:
        try:
            return self._directory.read(name)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LogUnavailable(f"{self.url}/{name} cannot be read: {error}") from error

    def _store(self, name: str, data: bytes) -> bytes:
        try:
            with contextlib.suppress(FileExistsError):
                self._directory.create(name, data)
            return self._directory.read(name)
        except OSError as error:
            raise LogUnavailable(f"{self.url}/{name} cannot be written: {error}") from error


def _component(name: str) -> str:
    """A name as one path component: no separator, no ``.`` or ``..``, not too long; different names stay different."""
    safe = quote(name, safe="")
    if safe.startswith("."):
        safe = f"%2E{safe[1:]}"
    if len(safe) > _LONGEST_NAME:
        safe = f"{safe[: _LONGEST_NAME - 33]}-{hashlib.sha256(name.encode()).hexdigest()[:32]}"
    return safe or "%"
