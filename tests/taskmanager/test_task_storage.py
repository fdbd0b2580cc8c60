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
    ObjectStorage,
    PendingFile,
    Storage,
    open_file,
    open_input,
    open_storage,
    read_range,
)


@pytest.fixture(params=["path", "file-url", "memory", "s3", pytest.param("hdfs", marks=pytest.mark.hdfs)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """Each kind of storage."""
    urls = {"path": str(tmp_path), "file-url": f"file://{tmp_path}/", "memory": f"memory://{tmp_path.name}"}
    return open_storage(urls.get(request.param) or request.getfixturevalue(f"{request.param}_url"))


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


def test_files_are_read_in_pieces_and_by_lines(storage: Storage) -> None:
    file = PendingFile(storage, "dir/name")
    file.write(b"line\n" * 1000)
    file.commit()
    with open_file(storage, "dir/name") as reader:
        assert read_range(reader, 4998, 10, "name") == b"e\n"
        assert read_range(reader, 5, 5, "name") == b"line\n"
        assert reader.readline() == b"line\n"
        assert reader.seek(0, os.SEEK_END) == 5000
        assert reader.read(1) == b""


def test_a_large_file_is_whole(storage: Storage) -> None:
    piece = os.urandom(1 << 20)
    file = PendingFile(storage, "dir/name")
    for _ in range(12):
        file.write(piece)
    file.commit()
    assert content(storage, "dir/name") == piece * 12


def test_an_object_is_written_by_one_request(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(s3_url)
    assert isinstance(storage, ObjectStorage)
    asked = []
    call = storage._filesystem._call_s3

    async def listening(method: str, *arguments: object, **keywords: object) -> object:
        asked.append(method)
        return await call(method, *arguments, **keywords)

    monkeypatch.setattr(storage._filesystem, "_call_s3", listening)
    for end in (PendingFile.commit, PendingFile.discard):
        file = PendingFile(storage, "dir/name")
        file.write(b"data" * 10_000)
        end(file)
        file.discard()
    assert asked == ["put_object"]


def test_nothing_appears_where_the_upload_fails(s3_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the process dies meanwhile neither: what it writes has no name."""

    async def failing(method: str, *arguments: object, **keywords: object) -> object:
        raise OSError(errno.EIO, "the store has failed")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    storage = open_storage(s3_url)
    assert isinstance(storage, ObjectStorage)
    file = PendingFile(storage, "dir/name")
    file.write(b"x" * (1 << 20))
    assert list(tmp_path.iterdir()) == []
    with monkeypatch.context() as patch:
        patch.setattr(storage._filesystem, "_call_s3", failing)
        with pytest.raises(StorageError, match="dir/name cannot be written: the store has failed"):
            file.commit()
    file.discard()
    with pytest.raises(MissingFile):
        open_file(storage, "dir/name")


def test_what_was_discarded_is_gone(storage: Storage) -> None:
    file = PendingFile(storage, "dir/name")
    file.write(b"data")
    file.discard()
    with pytest.raises(MissingFile):
        open_file(storage, file._pending)


@pytest.mark.hdfs
def test_a_failure_of_hdfs_is_told_in_one_line(hdfs_url: str) -> None:
    with pytest.raises(StorageError) as missing:
        open_file(open_storage(hdfs_url), "none")
    assert "\n" not in str(missing.value)
    PendingFile(open_storage(hdfs_url), "dir/name").commit()
    with pytest.raises(StorageError) as in_the_way:
        PendingFile(open_storage(hdfs_url), "dir/name/below")
    assert "\n" not in str(in_the_way.value)


def test_a_discarded_file_leaves_nothing(tmp_path: Path) -> None:
    file = PendingFile(LocalStorage(str(tmp_path)), "dir/name")
    file.write(b"data")
    file.discard()
    assert list((tmp_path / "dir").iterdir()) == []


def test_local_urls_need_no_fsspec(tmp_path: Path) -> None:
    for url in (f"{tmp_path}", f"file://{tmp_path}", f"local://{tmp_path}", f"file:{tmp_path}"):
        assert isinstance(open_storage(url), LocalStorage)
    assert isinstance(open_storage("memory://x"), ObjectStorage)


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
