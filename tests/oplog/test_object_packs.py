"""Packs, by which a log of many objects is read with few requests; the log is the same without them."""

import errno
from collections.abc import Callable, Sequence
from pathlib import Path

import fsspec
import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from flinkjob.oplog import objectchain
from flinkjob.oplog.object import ObjectMedium
from flinkjob.oplog.objectchain import Links, Packer, link_name
from flinkjob.oplog.objectstore import ObjectStore

from .leaders import Leader, replayed
from .scripted import Script, scripted

MANY = 300


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"memory://{tmp_path}"


def opened(url: str) -> ObjectMedium:
    return ObjectMedium(ObjectStore(url))


def packs(url: str) -> dict[str, bytes]:
    """The packs below a URL, by their paths."""
    filesystem, root = fsspec.url_to_fs(url)
    return {path: filesystem.cat_file(path) for path in filesystem.find(root) if "/pack-" in path}


def busy(medium: ObjectMedium, commits: int = MANY) -> Leader:
    leader = Leader(medium)
    for _ in range(commits):
        leader.commit()
    return leader


class Counting(ObjectStore):
    """Counts the objects that are asked for."""

    asked = 0

    def read(self, name: str) -> bytes:
        self.asked += 1
        return super().read(name)

    def read_many(self, names: Sequence[str]) -> list[bytes | None]:
        self.asked += len(names)
        return super().read_many(names)


def test_a_log_of_many_objects_is_read_with_few_requests(url: str) -> None:
    leader = busy(opened(url))
    store = Counting(url)
    assert Leader(ObjectMedium(store)).history == leader.history
    assert store.asked < MANY / 5
    assert len(packs(url)) == MANY // 16 + MANY // 256


@pytest.mark.parametrize(
    "change", [lambda data: None, lambda data: data[:-1], lambda data: b"", lambda data: b"P" + data]
)
@pytest.mark.parametrize("pick", [0, 1, 17, 18])
def test_a_pack_that_is_missing_or_damaged_is_done_without(
    url: str, change: Callable[[bytes], bytes | None], pick: int
) -> None:
    leader = busy(opened(url))
    filesystem, _ = fsspec.url_to_fs(url)
    path, data = sorted(packs(url).items())[pick]
    filesystem.rm_file(path)
    if (changed := change(data)) is not None:
        filesystem.pipe_file(path, changed)
    assert replayed(opened(url)) == leader.history


def test_every_changed_byte_of_a_pack_is_noticed(url: str) -> None:
    leader = busy(opened(url), 16)
    filesystem, _ = fsspec.url_to_fs(url)
    ((path, data),) = packs(url).items()
    for place in range(len(data)):
        filesystem.pipe_file(path, data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert replayed(opened(url)) == leader.history


def test_links_that_were_lost_may_still_be_in_their_pack(url: str) -> None:
    leader = busy(opened(url))
    opened(url)._store.remove([link_name(1, 7)])
    assert replayed(opened(url)) == leader.history


def test_a_pack_that_cannot_be_written_does_no_harm(url: str) -> None:
    store = ObjectStore(url)

    def fail(name: str, data: bytes) -> None:
        raise OSError(errno.EIO, "the store has failed")

    store.put = fail  # type: ignore[method-assign]
    leader = busy(ObjectMedium(store))
    assert packs(url) == {}
    assert Leader(opened(url)).history == leader.history


def test_packs_are_removed_with_the_links_in_them(url: str) -> None:
    leader = busy(opened(url), 40)
    for _ in range(2):
        leader.snapshot()
        leader.commit()
    assert list(packs(url)) == []
    for _ in range(60):
        leader.commit()
    assert [path.rsplit("/", 1)[1] for path in packs(url)] == [
        "pack-16-0000000033",  # it has links of the segment that was removed, too
        "pack-16-0000000049",
        "pack-16-0000000065",
        "pack-16-0000000081",
    ]
    assert replayed(opened(url)) == leader.history


def test_large_links_are_not_written_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objectchain, "_LARGEST_PACK", 100)
    packer = Packer(1)
    assert [name for number in range(1, 17) for name, _ in packer.add(number, b"x" * 7)] == []
    assert [name for number in range(17, 33) for name, _ in packer.add(number, b"x" * 6)] == [
        "oplog/0000000001/0000000/pack-16-0000000017"
    ]


def test_a_write_that_is_repeated_is_in_its_pack_once(url: str) -> None:
    """The store fails after it has created an object; the writer gives the same block again."""
    script = Script()
    leader = Leader(scripted(url, script))
    for number in range(40):
        data, operations, position = leader.block(1)

        def fail(_: int) -> None:
            script.after = lambda number: None
            raise OSError(errno.EIO, "the answer was lost")

        if number % 3 == 0:
            script.after = fail
            with pytest.raises(OSError, match="lost"):
                leader.appender.append(data)
        leader.appender.append(data)
        leader.history += operations
        leader.position = position
    assert len(packs(url)) == 2
    assert replayed(opened(url)) == leader.history


@settings(max_examples=200)
@given(data=st.data(), end=st.integers(2, 700))
def test_any_range_of_links_is_read_whatever_packs_are_there(data: st.DataObject, end: int) -> None:
    contents = {number: b"%d" % number for number in range(1, end)}
    objects = {link_name(3, number): link for number, link in contents.items()}
    packer = Packer(3)
    made = [pack for number, link in contents.items() for pack in packer.add(number, link)]
    objects |= {name: content for name, content in made if data.draw(st.integers(0, 9))}
    begin = data.draw(st.integers(1, end - 1))
    index = data.draw(st.integers(0, end - 1 - begin))

    class Store(ObjectStore):
        def __init__(self) -> None:
            pass

        def read_many(self, names: Sequence[str]) -> list[bytes | None]:
            return [objects.get(name) for name in names]

    links = Links(Store(), 3, range(begin, end))
    found: list[bytes | None] = []
    while begin + index + len(found) < end:
        more = links.read(index + len(found))
        assert more, "reading goes on"
        found += more
    assert found == [contents[number] for number in range(begin + index, end)]
    assert links.ends() == (contents[begin], contents[end - 1])
