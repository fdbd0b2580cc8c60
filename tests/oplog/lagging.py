"""Media whose listings lag behind what has been written, each as far as its kind of store may.

- A file system on the network (NFS) may answer from what it listed before, until this client has changed the directory.
- HDFS may be asked at an observer, which follows the NameNode, but never lags behind what this client has itself changed.
- An object store may show what it showed at first, for ever.
"""

from typing import TYPE_CHECKING

from flinkjob.oplog import storage
from flinkjob.oplog.append import AppendMedium
from flinkjob.oplog.medium import Medium, Segment
from flinkjob.oplog.object import ObjectMedium

from .scripted import Script, scripted

if TYPE_CHECKING:
    from pathlib import Path

    from hdfs_native import FileWriter


def open_lagging(url: str) -> Medium:
    """A medium at a URL whose listings lag."""
    medium = storage.open_medium(url)
    if isinstance(medium, AppendMedium):
        return LaggingAppendMedium(storage.local_path(url))
    if isinstance(medium, ObjectMedium):
        shown: dict[str, list[str]] = {}
        return scripted(url, Script(listing=lambda directory, names: shown.setdefault(directory, names)))
    medium._files = _lagging_hdfs(url)  # type: ignore[attr-defined]
    return medium


class LaggingAppendMedium(AppendMedium):
    """An AppendMedium on a client that has its directories cached."""

    def __init__(self, directory: "Path") -> None:
        super().__init__(directory)
        self._seen: dict[str, list[Segment] | list[int] | dict[int, int]] = {}

    def segments(self) -> list[Segment]:
        self._seen.setdefault("fences", super()._fences() if self._log.exists() else {})
        return self._seen.setdefault("segments", super().segments())  # type: ignore[return-value]

    def snapshots(self) -> list[int]:
        return self._seen.setdefault("snapshots", super().snapshots())  # type: ignore[return-value]

    def _fences(self) -> dict[int, int]:
        return self._seen.setdefault("fences", super()._fences())  # type: ignore[return-value]

    def _create(self, segment: Segment) -> int:
        descriptor = super()._create(segment)
        self._changed(self._log)
        return descriptor

    def _touch(self, path: "Path") -> None:
        super()._touch(path)
        self._changed(path.parent)

    def put_snapshot(self, lsn: int, file: bytes) -> None:
        super().put_snapshot(lsn, file)
        self._changed(self._snapshots)

    def remove_snapshot(self, lsn: int) -> None:
        super().remove_snapshot(lsn)
        self._changed(self._snapshots)

    def remove_segment(self, segment: Segment) -> None:
        super().remove_segment(segment)
        self._changed(self._log)

    def _changed(self, directory: "Path") -> None:
        for name in ("snapshots",) if directory == self._snapshots else ("segments", "fences"):
            self._seen.pop(name, None)


def _lagging_hdfs(url: str) -> object:
    from flinkjob.oplog.hdfsfiles import HdfsDirectory

    class LaggingHdfsDirectory(HdfsDirectory):
        """An HdfsDirectory whose questions an observer answers."""

        def __init__(self, url: str) -> None:
            super().__init__(url)
            self._seen: dict[tuple[str, bool], list[str]] = {}

        def names(self, directory: str, *, recursive: bool = False) -> list[str]:
            return self._seen.setdefault((directory, recursive), super().names(directory, recursive=recursive))

        def create_open(self, name: str) -> "FileWriter":
            file = super().create_open(name)
            self._seen.clear()
            return file

        def make_directory(self, name: str) -> None:
            super().make_directory(name)
            self._seen.clear()

        def rename(self, name: str, target: str) -> None:
            super().rename(name, target)
            self._seen.clear()

        def remove(self, name: str) -> None:
            super().remove(name)
            self._seen.clear()

    return LaggingHdfsDirectory(url)
