"""The reduced object store, on memory and on a real S3 server."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flinkjob.oplog.objectstore import ObjectStore
from stores.seaweed import S3


@pytest.fixture(params=["memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    url = f"memory://{tmp_path}" if request.param == "memory" else request.getfixturevalue("s3_url")
    return ObjectStore(f"{url}/with [brackets] and *")


def test_an_object_is_created_once(store: ObjectStore) -> None:
    store.create("dir/name", b"first")
    with pytest.raises(FileExistsError):
        store.create("dir/name", b"second")
    assert store.read("dir/name") == b"first"


def test_an_empty_object_is_not_created_at_all(store: ObjectStore) -> None:
    with pytest.raises(ValueError, match="empty"):
        store.create("name", b"")
    with pytest.raises(FileNotFoundError):
        store.read("name")


def test_of_many_creations_at_once_one_wins(store: ObjectStore) -> None:
    def create(content: bytes) -> bytes | None:
        try:
            store.create("name", content)
        except FileExistsError:
            return None
        return content

    with ThreadPoolExecutor(4) as threads:
        won = [content for content in threads.map(create, [b"%d" % n for n in range(4)]) if content]
    assert won == [store.read("name")]


def test_objects_are_replaced_read_listed_and_removed(store: ObjectStore) -> None:
    assert store.names("dir") == []
    for name in ("dir/b", "dir/a", "other/c"):
        store.put(name, b"old")
        store.put(name, name.encode())
    assert store.names("dir") == ["a", "b"]
    assert store.read_many(["dir/b", "dir/none", "other/c"]) == [b"dir/b", None, b"other/c"]
    assert store.read_many([]) == []
    store.remove(["dir/a", "dir/none", "other/c"])
    assert store.names("dir") == ["b"]
    with pytest.raises(FileNotFoundError):
        store.read("dir/a")


def test_what_has_become_empty_is_read_as_such(store: ObjectStore) -> None:
    store.put("name", b"")
    assert store.read("name") == b""


def test_many_objects_are_removed(store: ObjectStore) -> None:
    names = [f"dir/{n}" for n in range(70)]
    for name in names:
        store.create(name, b"x")
    store.remove(names[1:])
    assert store.names("dir") == ["0"]


def test_errors_that_are_no_os_errors_become_some() -> None:
    with pytest.raises(OSError, match="ValueError: Read only filesystem"):
        ObjectStore("data://text").put("name", b"x")


def test_wrong_credentials_are_an_error_of_one_kind(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec.config

    from flinkjob.oplog import filesystem

    monkeypatch.setitem(fsspec.config.conf, "s3", {**fsspec.config.conf["s3"], "secret": "wrong"})
    filesystem._instance.cache_clear()
    try:
        with pytest.raises(OSError, match="signature"):
            ObjectStore("s3://flinkjob/job").create("name", b"x")
    finally:
        filesystem._instance.cache_clear()
