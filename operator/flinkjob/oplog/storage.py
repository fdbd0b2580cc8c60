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

import hashlib
import os
from pathlib import Path
from urllib.parse import quote

from fsspec.core import split_protocol
from fsspec.registry import known_implementations

from flinkjob.api.errors import LogUnavailable, UnsupportedStorage
from flinkjob.oplog.append import AppendMedium
from flinkjob.oplog.files import create_file, make_directory
from flinkjob.oplog.medium import Medium

_LOCAL = ("file", "local")
_LONGEST_NAME = 200
"""Of a directory's name, in bytes: file systems take 255."""


def open_medium(url: str) -> Medium:
    """The log medium for a job's directory, chosen by the URL's scheme.

    Raises:
        UnsupportedStorage: no medium keeps a log there; the message names the scheme and those that are supported.
    """
    return AppendMedium(local_path(url))


def local_path(url: str) -> Path:
    """The path that a plain path or a ``file://`` URL means.

    Raises:
        UnsupportedStorage: the URL has another scheme, or a host.
    """
    scheme, path = split_protocol(os.fspath(url))
    if scheme is None and path.startswith("file:/"):  # as Hadoop writes it, with one slash
        scheme, path = "file", path.removeprefix("file:")
    if scheme is not None and scheme not in _LOCAL:
        known = (
            "is no scheme that fsspec knows" if scheme not in known_implementations else "cannot keep an operation log"
        )
        raise UnsupportedStorage(f"{url!r}: {scheme}:// {known}; supported are a local path and file://")
    if scheme is not None and not path.startswith("/"):
        raise UnsupportedStorage(f"{url!r}: a file:// URL needs an absolute path, as in file:///var/lib/flink")
    if not path:
        raise UnsupportedStorage(f"{url!r} is no path; supported are a local path and file://")
    return Path(os.path.abspath(path))


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

    def _read(self, name: str) -> bytes | None:
        try:
            return (local_path(self.url) / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LogUnavailable(f"{self.url}/{name} cannot be read: {error}") from error

    def _store(self, name: str, data: bytes) -> bytes:
        path = local_path(self.url) / name
        try:
            make_directory(path.parent)
            create_file(path, data)
            return path.read_bytes()
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
