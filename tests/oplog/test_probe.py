"""Whether a store creates exclusively is found out by trying."""

import threading
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from flinkjob.api.errors import UnsupportedStorage
from flinkjob.oplog.object import ObjectMedium
from flinkjob.oplog.objectstore import ObjectStore
from flinkjob.oplog.probe import CREATORS, check_exclusive_creation


class LooksFirst(ObjectStore):
    """Looks whether the object exists and writes it then, as fsspec's default does; the writers look all at once."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._looking = threading.Barrier(CREATORS)

    def create(self, name: str, data: bytes) -> None:
        if name in {f"oplog/{found}" for found in self.names("oplog")}:
            raise FileExistsError(name)
        self._looking.wait()
        self.put(name, data)


class Overwrites(ObjectStore):
    """A server that ignores the condition."""

    def create(self, name: str, data: bytes) -> None:
        self.put(name, data)


class OverwritesLate(ObjectStore):
    """Lets one through of those that come at once, and anyone afterwards."""

    _creations = 0

    def create(self, name: str, data: bytes) -> None:
        self._creations += 1
        if self._creations <= CREATORS:
            super().create(name, data)
        else:
            self.put(name, data)


class WritesAndRefuses(ObjectStore):
    """Refuses rightly, and has written all the same."""

    def create(self, name: str, data: bytes) -> None:
        try:
            super().create(name, data)
        except FileExistsError:
            self.put(name, data)
            raise


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"memory://{tmp_path}/job"


@pytest.mark.parametrize(
    ("store", "reason"),
    [
        (LooksFirst, f"{CREATORS} of {CREATORS} writers created the same object at once"),
        (Overwrites, f"{CREATORS} of {CREATORS} writers created the same object at once"),
        (OverwritesLate, "an object that exists was created once more"),
        (WritesAndRefuses, "a creation that was refused has changed the object"),
    ],
)
def test_a_store_that_does_not_create_exclusively_is_refused(
    url: str, store: Callable[[str], ObjectStore], reason: str
) -> None:
    with pytest.raises(UnsupportedStorage, match=rf"^{url} cannot keep an operation log: .*\({reason}\)"):
        ObjectMedium(store(url)).claim()
    assert fsspec.url_to_fs(url)[0].find(url) == []


def test_a_store_that_does_is_left_as_it_was(url: str) -> None:
    check_exclusive_creation(ObjectStore(url))
    assert fsspec.url_to_fs(url)[0].find(url) == []


def test_the_store_is_asked_before_the_first_epoch_only(url: str) -> None:
    assert ObjectMedium(ObjectStore(url)).claim() == 1
    assert ObjectMedium(Overwrites(url)).claim() == 2


def test_an_s3_server_with_conditional_writes_is_taken(s3_url: str) -> None:
    check_exclusive_creation(ObjectStore(s3_url))
