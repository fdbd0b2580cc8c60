"""What is particular to the medium on object stores: single requests that are interleaved, lost or answered wrongly."""

import contextlib
import errno
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import fsspec
import pytest

from flinkjob.api.errors import CorruptedLog, Deposed, StorageError
from flinkjob.graph.operations import Operation
from flinkjob.oplog.medium import Segment
from flinkjob.oplog.object import ObjectMedium
from flinkjob.oplog.objectstore import ObjectStore
from flinkjob.oplog.replay import Replay

from .leaders import Leader, contents, replayed
from .scripted import Script, scripted


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"memory://{tmp_path}"


def opened(url: str) -> ObjectMedium:
    return ObjectMedium(ObjectStore(url))


def objects(url: str) -> dict[str, bytes]:
    """All objects below a URL, by name."""
    filesystem, root = fsspec.url_to_fs(url)
    return {str(path).removeprefix(f"{root}/"): filesystem.cat_file(path) for path in filesystem.find(root)}


def fill(medium: ObjectMedium) -> list[Operation]:
    """Three leaders' history, with snapshots and a trimmed beginning."""
    for term in range(3):
        leader = Leader(medium, f"jm-{term}")
        for _ in range(term + 1):
            leader.commit(2)
            leader.commit(1)
            leader.snapshot()
        leader.commit(3)
    return leader.history


def at(point: int, act: Callable[[], object]) -> Callable[[int], None]:
    """Act once, at the request of this number."""
    return lambda number: None if number != point else (act(), None)[1]


# Names


def test_objects_are_named_by_epoch_and_number(url: str) -> None:
    leader = Leader(opened(url), "jm-1")
    leader.commit()
    leader.snapshot()
    leader.commit()
    Leader(opened(url), "jm-2")
    assert objects(url).keys() == {
        "oplog/0000000001/claim",
        "oplog/0000000001/0000000/0000000001",
        "oplog/0000000001/0000000/0000000002",
        "oplog/0000000001/0000000/0000000003",
        "oplog/0000000001/fence",
        "oplog/0000000001/segments",
        "oplog/0000000002/claim",
        "snapshots/00000000000000000001",
        "snapshots/index",
    }
    assert objects(url)["oplog/0000000001/0000000/0000000003"].startswith(b"S")


def test_objects_of_other_names_are_left_alone(url: str) -> None:
    leader = Leader(opened(url))
    leader.commit()
    for name in ("oplog/notes", "oplog/0000000001/README", "snapshots/README"):
        opened(url)._store.create(name, b"mine")
    assert opened(url).segments() == [Segment(1, 0)]
    assert opened(url).snapshots() == []
    assert Leader(opened(url)).history == leader.history


def test_a_commit_is_one_request(url: str) -> None:
    script = Script()
    leader = Leader(scripted(url, script))
    script.requests = 0
    leader.commit()
    leader.commit()
    assert script.requests == 2


def test_a_trimmed_log_has_no_blocks_left_that_nobody_needs(url: str) -> None:
    leader = Leader(opened(url), "old")
    leader.commit()
    leader = Leader(opened(url), "new")
    for _ in range(20):
        leader.commit()
        leader.snapshot()
    blocks = [name for name, data in objects(url).items() if data.startswith(b"B")]
    assert len(blocks) == 1  # the one after the older snapshot
    assert replayed(opened(url)) == leader.history


def test_what_an_interrupted_trimming_left_goes_with_the_next(url: str) -> None:
    script = Script()
    medium = scripted(url, script)
    leader = Leader(medium)
    for _ in range(2):
        leader.commit(3)
        leader.snapshot()
    leader.commit()
    killed = mock.patch.object(medium._store, "remove", side_effect=InterruptedError("killed"))
    with killed, pytest.raises(InterruptedError):
        leader.snapshot()
    assert "oplog/0000000001/0000000/0000000002" in objects(url)
    assert replayed(opened(url)) == leader.history
    leader.commit()
    leader.snapshot()
    assert "oplog/0000000001/0000000/0000000002" not in objects(url)
    assert replayed(opened(url)) == leader.history


# Fencing


def test_a_successor_that_comes_at_any_request_of_the_old_leader_has_all_that_was_acknowledged(url: str) -> None:
    point = 0
    while True:
        place, script = f"{url}/{point}", Script()
        old = Leader(scripted(place, script), "old")
        successors: list[Leader] = []
        script.before = at(script.requests + point, lambda: successors.append(Leader(opened(place), "new")))  # noqa: B023 - called within this round
        with contextlib.suppress(Deposed):
            for _ in range(4):
                old.commit(2)
                old.commit(1)
                old.snapshot()
        if not successors:
            break
        (new,) = successors
        assert new.history[: len(old.history)] == old.history
        new.commit()
        with pytest.raises(Deposed):
            old.commit()
        assert Leader(opened(place)).history == new.history
        point += 1
    assert point > 30


def test_an_old_leader_that_writes_at_any_request_of_its_successor_acknowledges_nothing_that_is_not_read(
    url: str,
) -> None:
    for busy in (1, 9):  # commits at each point: with many, the leader trims its log under the successor
        point = 0
        while True:
            place, script = f"{url}/{busy}-{point}", Script()
            old = Leader(opened(place), "old")
            old.commit(2)
            came: list[int] = []

            def work() -> None:
                came.append(1)  # noqa: B023 - called within this round
                try:
                    for _ in range(busy):  # noqa: B023
                        old.commit(1)  # noqa: B023
                        if busy > 1:  # noqa: B023
                            old.snapshot()  # noqa: B023
                except Deposed:
                    pass

            script.before = at(point, work)
            new = Leader(scripted(place, script), "new")
            if not came:
                break
            assert new.history[: len(old.history)] == old.history
            with pytest.raises(Deposed):
                old.commit()
            new.commit()
            assert Leader(opened(place)).history == new.history
            point += 1
        assert point > 8


def test_a_seal_where_the_leader_has_trimmed_the_log_does_not_count(url: str) -> None:
    """The successor sleeps right before it writes the seal, and the old leader goes on and trims what it has written."""
    old, script = Leader(opened(url), "old"), Script()
    old.commit(2)

    def work(number: int) -> None:
        if "oplog/0000000002/claim" in objects(url) and number > claimed:
            script.before = lambda number: None
            for _ in range(5):
                old.commit()
                old.snapshot()

    new = scripted(url, script)
    epoch, claimed = new.claim(), script.requests + 2
    script.before = work
    new.fence(epoch, "new")
    assert contents(Replay.newest(new, below_epoch=epoch))[: len(old.history)] == old.history
    with pytest.raises(Deposed, match="epoch 2 new"):
        old.commit()


def test_many_leaders_cost_a_successor_no_requests(url: str) -> None:
    counts = []
    for number in range(12):
        script = Script()
        medium = scripted(url, script)
        epoch = medium.claim()
        before = script.requests
        medium.fence(epoch, f"jm-{number}")
        counts.append(script.requests - before)
    assert len(set(counts[2:])) == 1


# Listings


@pytest.mark.parametrize("seen", [0, 1, 5, 12])
def test_a_listing_that_lags_behind_hides_nothing(url: str, seen: int) -> None:
    """Each directory's listing shows only the first names that it ever had, trimmed ones included."""
    known: dict[str, list[str]] = {}

    def stale(directory: str, names: list[str]) -> list[str]:
        shown = known.setdefault(directory, [])
        shown += [name for name in names if name not in shown][: max(0, seen - len(shown))]
        return shown

    history: list[Operation] = []
    for term in range(4):
        leader = Leader(scripted(url, Script(listing=stale)), f"jm-{term}")
        assert leader.history == history
        for _ in range(3):
            leader.commit(2)
            leader.commit(1)
            leader.snapshot()
        leader.commit(1)
        history = leader.history
    old, new = leader, Leader(scripted(url, Script(listing=stale)), "new")
    assert new.history == history
    with pytest.raises(Deposed):
        old.commit()


# Answers that are lost


def test_a_claim_whose_answer_was_lost_is_not_taken_for_anothers(url: str) -> None:
    """A backend that repeats a request by itself is told that the object exists, which its first try has made."""
    medium = opened(url)
    create = medium._store.create

    def twice(name: str, data: bytes) -> None:
        create(name, data)
        create(name, data)

    medium._store.create = twice  # type: ignore[method-assign]
    assert medium.claim() == 1
    medium._store.create = create  # type: ignore[method-assign]
    assert medium.claim() == 2


def test_every_request_of_a_leaders_life_may_fail_before_or_after_it_was_done(url: str) -> None:
    """The leader dies of it; what it had acknowledged is there, and the next one can lead."""
    for moment in ("before", "after"):
        point = 0
        while True:
            place, script = f"{url}/{moment}-{point}", Script()
            history: list[Operation] = []
            first = Leader(opened(place), "first")
            first.commit(2)

            def fail(number: int) -> None:
                if number == point:  # noqa: B023 - called within this round
                    raise OSError(errno.EIO, "the store has failed")

            setattr(script, moment, fail)
            try:
                leader = Leader(scripted(place, script), "second")
                history = leader.history
                for _ in range(3):
                    leader.commit(1)
                    history = list(leader.history)
                    leader.snapshot()
            except (OSError, StorageError):
                pass
            if script.requests <= point:
                break
            last = Leader(opened(place), "last")
            assert last.history[: len(history)] == history
            last.commit()
            assert Leader(opened(place)).history == last.history
            point += 1
        assert point > 30


# Damage


def test_any_byte_that_is_changed_or_object_that_is_lost_is_told(url: str) -> None:
    """A successor either sees the whole history, or is told of the damage; the last block's end may be torn."""
    history = fill(opened(url))
    filesystem, root = fsspec.url_to_fs(url)
    Leader(opened(url))  # which seals the last epoch
    whole = {name: data for name, data in objects(url).items() if name.startswith(("oplog/0000000003", "snapshots"))}

    def check() -> None:
        replay = Replay.newest(opened(url), below_epoch=4)
        try:
            seen = contents(replay)
        except StorageError:
            return
        assert seen == history or (replay.statistics.torn_bytes and seen == history[: len(seen)])

    for name, data in whole.items():
        changes = [None] + [data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :] for i in range(len(data))]
        changes += [data[:i] for i in range(1, len(data))]
        for changed in changes:
            if changed is None:
                filesystem.rm_file(f"{root}/{name}")
            else:
                filesystem.pipe_file(f"{root}/{name}", changed)
            check()
        filesystem.pipe_file(f"{root}/{name}", data)
    check()


def test_a_block_that_is_missing_is_named(url: str) -> None:
    leader = Leader(opened(url))
    for _ in range(5):
        leader.commit()
    opened(url)._store.remove(["oplog/0000000001/0000000/0000000003"])
    with pytest.raises(CorruptedLog, match=r"damaged in oplog/0000000001/0000000/0000000003, .*the object is missing"):
        replayed(opened(url))


def test_an_interrupted_setting_aside_leaves_a_log_that_still_reads_as_damaged(url: str) -> None:
    point = 0
    while True:
        place, script = f"{url}/{point}", Script()
        fill(opened(place))
        leader = Leader(opened(place), "last")
        leader.commit()
        leader.commit()
        damage = "oplog/0000000004/0000000/0000000001"
        block = objects(place)[damage]
        opened(place)._store.put(damage, block[:-1] + bytes([block[-1] ^ 1]))
        before = objects(place)
        medium = opened(place)
        epoch = medium.claim()
        medium.fence(epoch, "new")

        def die(number: int) -> None:
            if number == point:  # noqa: B023 - called within this round
                raise InterruptedError("killed")

        script.before = die
        try:
            scripted(place, script).set_aside(epoch)
        except InterruptedError:
            if [segment for segment in medium.segments() if segment.epoch < epoch]:
                with pytest.raises(CorruptedLog):
                    replayed(medium)
        else:
            break
        medium.set_aside(epoch)
        assert replayed(opened(place)) == []
        kept = {data for name, data in objects(place).items() if name.startswith("damaged-")}
        assert {data for name, data in before.items() if data.startswith((b"B", b"FJSN"))} <= kept
        point += 1
    assert point > 10


def test_a_log_that_was_set_aside_can_still_be_looked_at(url: str) -> None:
    history = fill(opened(url))
    medium = opened(url)
    epoch = medium.claim()
    medium.fence(epoch, "new")
    assert replayed(opened(medium.set_aside(epoch))) == history
