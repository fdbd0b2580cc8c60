"""An object store below a URL, reduced to what a log needs of it and to the errors that a log can tell apart.

Whatever a backend raises is an OSError here: FileExistsError only from ``create``, for an object that was there before;
FileNotFoundError only from reading, for one that is not there; anything else means that nobody knows.
"""

import contextlib
import errno
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

from fsspec import AbstractFileSystem

from flinkjob.api.errors import FlinkJobError
from flinkjob.oplog.filesystem import open_filesystem

CONCURRENCY = 32
"""Requests under way at once where many objects are removed."""

_FROM_THE_START = 0
"""Said, it saves a request: where nothing is said, s3fs first asks for the size. An empty object has no start (HTTP 416)."""

_MEMORY = threading.RLock()
"""``memory://`` is a dictionary whose files share one position: only one thread may be in it."""


class ObjectStore:
    """The objects below a URL; names are paths below it, with ``/``. Any number of threads may use it."""

    def __init__(self, url: str) -> None:
        """Open it.

        Raises:
            UnsupportedStorage: the scheme is unknown or its backend not installed.
        """
        self.location = url
        self._filesystem: AbstractFileSystem
        self._filesystem, root = open_filesystem(url)
        self._root = root.rstrip("/")
        self._in_memory = url.startswith("memory:")

    def create(self, name: str, data: bytes) -> None:
        """Write an object that must not exist yet; no byte of one that does is touched.

        Raises:
            FileExistsError: there is one of this name; it may be what an earlier try of one's own has left.
            ValueError: no bytes: s3fs does not create *empty* objects exclusively.
        """
        if not data:
            raise ValueError("an empty object is not created exclusively by every backend")
        with self._errors(name):
            self._filesystem.pipe_file(self._path(name), data, mode="create")

    def put(self, name: str, data: bytes) -> None:
        """Write an object, in place of what is there; readers see the old content or the new."""
        with self._errors(name):
            self._filesystem.pipe_file(self._path(name), data)

    def read(self, name: str) -> bytes:
        """An object's content.

        Raises:
            FileNotFoundError: there is no such object.
        """
        (content,) = self._contents([name])
        if content is None:
            raise FileNotFoundError(errno.ENOENT, "there is no such object", name)
        return content

    def read_many(self, names: Sequence[str]) -> list[bytes | None]:
        """The contents of objects, in order, asked for at once; None for each that does not exist."""
        return self._contents(names)

    def _contents(self, names: Sequence[str]) -> list[bytes | None]:
        with self._errors(names[0] if names else ""):
            paths = [self._path(name) for name in names]
            starts, ends = [_FROM_THE_START] * len(paths), [None] * len(paths)
            answers = self._filesystem.cat_ranges(paths, starts, ends, on_error="return")
        return [self._content(name, answer) for name, answer in zip(names, answers, strict=True)]

    def names(self, directory: str) -> list[str]:
        """The names directly in a directory, in order; on some stores they lag behind what has been written."""
        try:
            with self._errors(directory):
                found = self._filesystem.ls(self._path(directory), detail=False)
        except FileNotFoundError:
            return []
        return sorted(PurePosixPath(path).name for path in found)

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; they may be gone already."""
        with ThreadPoolExecutor(CONCURRENCY) as threads:
            for _ in threads.map(self._remove, names):
                pass

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError), self._errors(name):
            self._filesystem.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _content(self, name: str, answer: object) -> bytes | None:
        try:
            with self._errors(name):
                if isinstance(answer, BaseException):
                    raise answer
        except FileNotFoundError:
            return None
        except OSError as error:
            if _refused(error, "InvalidRange", 416):
                return b""
            raise
        assert isinstance(answer, bytes)
        return answer

    @contextlib.contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        try:
            with _MEMORY if self._in_memory else contextlib.nullcontext():
                yield
        except (FileExistsError, FileNotFoundError):
            raise
        except Exception as error:
            if _refused(error, "PreconditionFailed", 412):
                raise FileExistsError(errno.EEXIST, "the object exists", name) from error
            if isinstance(error, OSError | FlinkJobError):
                raise
            # Backends let errors of their libraries through that are no OSError: no credentials, no connection.
            raise OSError(errno.EIO, f"{type(error).__name__}: {error}", name) from error


def _refused(error: BaseException | None, code: str, status: int) -> bool:
    """Whether a store has refused a request with this error of S3's or status of HTTP's, however the backend words it."""
    while error is not None:
        response = getattr(error, "response", None)
        told = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
        if told == code or status in (getattr(error, "code", 0), getattr(error, "status", 0)):
            return True
        error = error.__cause__
    return False
