"""The seam between local paths and fsspec URLs."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import fsspec
import pytest

from flinkjob.api.errors import StorageError, UnsupportedStorage
from flinkjob.taskmanager.storage import (
    LocalStorage,
    MissingFile,
    PendingFile,
    RemoteStorage,
    Storage,
    open_file,
    open_input,
    open_storage,
)


@pytest.fixture(params=["path", "file-url", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """Each kind of storage."""
    urls = {"path": str(tmp_path), "file-url": f"file://{tmp_path}/", "memory": f"memory://{tmp_path.name}"}
    return open_storage(urls[request.param])


def content(storage: Storage, path: str) -> bytes:
    with open_file(storage, path) as file:
        return file.read()


def test_a_file_appears_whole_when_it_is_committed(storage: Storage) -> None:
    file = PendingFile(storage, "a/b/name")
    file.write(b"one")
    file.write(bytearray(b"two"))
    assert file.size == 6
    with pytest.raises(MissingFile, match="a/b/name does not exist"):
        open_file(storage, "a/b/name")
    file.commit()
    assert content(storage, "a/b/name") == b"onetwo"
    file.discard()
    assert content(storage, "a/b/name") == b"onetwo"


def test_a_commit_replaces_what_was_there(storage: Storage) -> None:
    for data in (b"old", b"new"):
        file = PendingFile(storage, "dir/name")
        file.write(data)
        file.commit()
    assert content(storage, "dir/name") == b"new"


def test_two_writers_of_one_name_do_not_meet(storage: Storage) -> None:
    one, other = PendingFile(storage, "dir/name"), PendingFile(storage, "dir/name")
    one.write(b"1" * 10)
    other.write(b"2" * 10)
    one.commit()
    other.discard()
    assert content(storage, "dir/name") == b"1" * 10


def test_a_discarded_file_leaves_nothing(tmp_path: Path) -> None:
    file = PendingFile(LocalStorage(str(tmp_path)), "dir/name")
    file.write(b"data")
    file.discard()
    assert list((tmp_path / "dir").iterdir()) == []


def test_local_urls_need_no_fsspec(tmp_path: Path) -> None:
    for url in (f"{tmp_path}", f"file://{tmp_path}", f"local://{tmp_path}", f"file:{tmp_path}"):
        assert isinstance(open_storage(url), LocalStorage)
    assert isinstance(open_storage("memory://x"), RemoteStorage)


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(UnsupportedStorage, match="nowhere://x"):
        open_storage("nowhere://x/y")


class FullDisk(LocalStorage):
    """A disk that takes a name and no byte."""

    def open_new(self, path: str) -> BinaryIO:
        super().open_new(path).close()
        return open("/dev/full", "wb")


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_a_full_disk_is_a_storage_error_and_leaves_nothing(tmp_path: Path, size: int) -> None:
    file = PendingFile(FullDisk(str(tmp_path)), "dir/name")
    with pytest.raises(StorageError, match=os.strerror(errno.ENOSPC)):  # noqa: PT012 - a buffer may take the bytes
        file.write(b"x" * size)
        file.commit()
    file.discard()
    assert list((tmp_path / "dir").iterdir()) == []


def test_a_directory_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="file/name"):
        PendingFile(LocalStorage(str(tmp_path)), "file/name")


def test_inputs_open_by_path_and_by_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "input").write_bytes(b"data")
    with fsspec.open("memory://inputs/input", "wb") as file:
        file.write(b"data")
    monkeypatch.chdir(tmp_path)
    openers: list[Callable[[], str]] = [
        lambda: "input",
        lambda: str(tmp_path / "input"),
        lambda: f"file://{tmp_path}/input",
        lambda: "memory://inputs/input",
    ]
    for url in openers:
        with open_input(url()) as file:
            assert file.read() == b"data"
    with pytest.raises(StorageError, match="missing"):
        open_input(str(tmp_path / "missing"))
