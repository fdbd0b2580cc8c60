"""Who says that a TaskManager will not come back.

A lost connection says nothing: the TaskManager may return until ``heartbeat.timeout`` is over. But whoever keeps the
TaskManagers' processes or pods sees them end. On one machine that is the local cluster, which writes the ids of ended
ones into its cluster file; on Kubernetes it is the API server.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Protocol

import msgspec


class TaskManagerWatch(Protocol):
    """Tells which TaskManagers are known to have ended."""

    def ended(self, among: Collection[str]) -> dict[str, str]:
        """Those of the given ids that have ended: why, by id."""


class NoWatch:
    """Nobody tells: only time-outs decide."""

    def ended(self, among: Collection[str]) -> dict[str, str]:
        """Nothing."""
        return {}


class _ClusterFile(msgspec.Struct):
    ended: dict[str, str] = {}


class ClusterFileWatch:
    """Reads the cluster file of a local cluster whenever it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] = (0, 0)
        self._ended: dict[str, str] = {}

    def ended(self, among: Collection[str]) -> dict[str, str]:
        """The ``ended`` of the file; a file that is missing or half written changes nothing."""
        try:
            stat = self._path.stat()
            if (stat.st_mtime_ns, stat.st_ino) != self._seen:
                self._ended = msgspec.json.decode(self._path.read_bytes(), type=_ClusterFile).ended
                self._seen = (stat.st_mtime_ns, stat.st_ino)
        except (OSError, msgspec.DecodeError):
            pass
        return {id: self._ended[id] for id in among if id in self._ended}
