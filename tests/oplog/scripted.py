"""An object store in memory whose every request can be watched, delayed, failed or answered wrongly."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from flinkjob.oplog.object import ObjectMedium
from flinkjob.oplog.objectstore import ObjectStore


@dataclass
class Script:
    """What happens around requests; the default is nothing.

    Attributes:
        before, after: called with the number of the request (from 0), before it is sent and after it was done.
        listing: what a listing of a directory shows of the names that are there.
        requests: how many there have been.
    """

    before: Callable[[int], None] = lambda number: None
    after: Callable[[int], None] = lambda number: None
    listing: Callable[[str, list[str]], list[str]] = lambda directory, names: names
    requests: int = field(default=0)


class ScriptedStore(ObjectStore):
    """An ObjectStore that follows a script."""

    def __init__(self, url: str, script: Script) -> None:
        super().__init__(url)
        self._script = script

    def _begin(self) -> int:
        number = self._script.requests
        self._script.requests += 1
        self._script.before(number)
        return number

    def create(self, name: str, data: bytes) -> None:
        number = self._begin()
        super().create(name, data)
        self._script.after(number)

    def put(self, name: str, data: bytes) -> None:
        number = self._begin()
        super().put(name, data)
        self._script.after(number)

    def read(self, name: str) -> bytes:
        number = self._begin()
        data = super().read(name)
        self._script.after(number)
        return data

    def read_many(self, names: Sequence[str]) -> list[bytes | None]:
        number = self._begin()
        found = super().read_many(names)
        self._script.after(number)
        return found

    def names(self, directory: str) -> list[str]:
        self._begin()
        return self._script.listing(directory, super().names(directory))

    def _remove(self, name: str) -> None:
        number = self._begin()
        super()._remove(name)
        self._script.after(number)


def scripted(url: str, script: Script) -> ObjectMedium:
    """A medium whose requests follow the script."""
    return ObjectMedium(ScriptedStore(url, script))
