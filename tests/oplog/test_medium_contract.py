"""What every log medium must do; a new one is added to the parameters of ``job_url``."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from flinkjob.api.errors import Deposed
from flinkjob.graph.operations import Operation
from flinkjob.oplog.log import OperationLog
from flinkjob.oplog.medium import Medium, Segment

from .leaders import Leader, contents, operation
from .writes import failing_writes, tear

OpenMedium = Callable[[], Medium]


def stored(medium: Medium, segment: Segment) -> bytes:
    with medium.open_segment(segment) as file:
        return file.read()


def claimed(medium: Medium, leader: str = "jm") -> int:
    epoch = medium.claim()
    medium.fence(epoch, leader)
    return epoch


def test_a_store_that_nobody_has_used_is_empty(medium: Medium) -> None:
    assert medium.segments() == []
    assert medium.snapshots() == []


def test_epochs_are_claimed_from_1_on(open_medium: OpenMedium) -> None:
    assert [open_medium().claim() for _ in range(3)] == [1, 2, 3]
    assert open_medium().segments() == [Segment(1, 0), Segment(2, 0), Segment(3, 0)]


def test_of_many_claims_at_once_each_gets_an_epoch_of_its_own(open_medium: OpenMedium) -> None:
    with ThreadPoolExecutor(8) as threads:
        epochs = list(threads.map(lambda _: open_medium().claim(), range(40)))
    assert sorted(epochs) == list(range(1, 41))


def test_what_has_been_appended_can_be_read_by_a_successor(open_medium: OpenMedium) -> None:
    medium, successor = open_medium(), open_medium()
    appender = medium.appender(claimed(medium))
    appender.append(b"one")
    appender.append(b"two")
    claimed(successor)
    assert stored(successor, Segment(1, 0)) == b"onetwo"
    successor.settle(2)
    assert stored(open_medium(), Segment(1, 0)) == b"onetwo"
    appender.close()


def test_a_fenced_leader_is_deposed_before_it_can_acknowledge(open_medium: OpenMedium) -> None:
    old, new = open_medium(), open_medium()
    appender = old.appender(claimed(old))
    appender.append(b"one")
    claimed(new, "jobmanager-2")
    with pytest.raises(Deposed, match="epoch 1 is over: a newer leader claimed epoch 2 jobmanager-2"):
        appender.append(b"two")
    with pytest.raises(Deposed, match="epoch 1 is over"):
        old.check_fence(1)
    new.check_fence(2)
    appender.close()


def test_a_claim_alone_deposes_nobody(open_medium: OpenMedium) -> None:
    medium = open_medium()
    appender = medium.appender(claimed(medium))
    open_medium().claim()
    appender.append(b"one")
    appender.close()


def test_a_fence_holds_for_a_leader_that_slept_between_its_claim_and_its_own_fencing(open_medium: OpenMedium) -> None:
    sleeper, successor = open_medium(), open_medium()
    epoch = sleeper.claim()
    claimed(successor)
    sleeper.fence(epoch, "sleeper")
    with pytest.raises(Deposed):
        sleeper.check_fence(epoch)
    successor.check_fence(2)


def test_every_lower_epoch_is_fenced_also_those_that_came_in_between(open_medium: OpenMedium) -> None:
    first, second, third = open_medium(), open_medium(), open_medium()
    first.fence(first.claim(), "a")
    second.claim()
    third.fence(third.claim(), "c")
    second.fence(2, "b")
    for epoch in (1, 2):
        with pytest.raises(Deposed):
            first.check_fence(epoch)
    third.check_fence(3)


def test_rolling_begins_a_segment_only_where_the_present_one_has_something(medium: Medium) -> None:
    """FLIP-383 ``FileSystemJobEventStoreTest.testCutBlock``, too."""
    appender = medium.appender(claimed(medium))
    appender.roll()
    assert medium.segments() == [Segment(1, 0)]
    appender.append(b"one")
    appender.roll()
    appender.roll()
    appender.append(b"two")
    assert medium.segments() == [Segment(1, 0), Segment(1, 1)]
    appender.close()
    assert stored(medium, Segment(1, 0)) == b"one"
    assert stored(medium, Segment(1, 1)) == b"two"


def test_segments_are_in_order_and_can_be_removed_twice(medium: Medium) -> None:
    appender = medium.appender(claimed(medium))
    for _ in range(11):
        appender.append(b"x")
        appender.roll()
    appender.close()
    assert medium.segments() == [Segment(1, n) for n in range(12)]
    medium.remove_segment(Segment(1, 3))
    medium.remove_segment(Segment(1, 3))
    assert Segment(1, 3) not in medium.segments()
    assert len({medium.describe(segment) for segment in medium.segments()}) == 11


def test_the_numbering_goes_on_when_the_segments_of_all_epochs_are_gone(open_medium: OpenMedium) -> None:
    medium = open_medium()
    claimed(medium)
    claimed(medium)
    for segment in medium.segments():
        medium.remove_segment(segment)
    assert open_medium().claim() == 3


def test_snapshots_are_put_listed_read_and_removed(open_medium: OpenMedium) -> None:
    medium = open_medium()
    claimed(medium)
    for lsn in (1000, 7, 7):
        medium.put_snapshot(lsn, b"graph at %d" % lsn)
    assert open_medium().snapshots() == [7, 1000]
    assert open_medium().read_snapshot(1000) == b"graph at 1000"
    assert medium.describe_snapshot(7) != medium.describe_snapshot(1000)
    medium.remove_snapshot(7)
    medium.remove_snapshot(7)
    assert medium.snapshots() == [1000]
    with pytest.raises(FileNotFoundError):
        medium.read_snapshot(7)


def test_what_is_set_aside_is_kept_and_the_fences_stay(open_medium: OpenMedium) -> None:
    old, new = open_medium(), open_medium()
    appender = old.appender(claimed(old))
    appender.append(b"one")
    old.put_snapshot(1, b"graph")
    epoch = claimed(new)
    places = {new.set_aside(epoch), new.set_aside(epoch)}
    assert len(places) == 2
    assert new.segments() == [Segment(2, 0)]
    assert new.snapshots() == []
    with pytest.raises(Deposed):
        appender.append(b"two")
    assert open_medium().claim() == 3
    appender.close()


def test_a_successor_reads_all_that_was_acknowledged(open_medium: OpenMedium) -> None:
    first = Leader(open_medium(), "first")
    first.commit(3)
    first.commit(2)
    second = Leader(open_medium(), "second")
    assert second.history == first.history == [operation(n, "first") for n in range(1, 6)]
    second.commit()
    assert Leader(open_medium(), "third").history == second.history


def test_read_and_write_op_log(open_medium: OpenMedium) -> None:
    """Blink ``FileSystemOperationLogStoreTest.testReadAndWriteOpLog``, ``MemoryOperationLogStoreTest``'s, and FLIP-383
    ``FileSystemJobEventStoreTest.testReadAndWriteEvent``: five operations, two generations that write nothing, and two
    operations more; then the log is cleared. Cleared it is by setting it aside: nothing is deleted.
    """
    first = Leader(open_medium(), "first")
    for _ in range(5):
        first.commit()
    assert len(first.history) == 5
    for _ in range(2):
        assert Leader(open_medium()).history == first.history
    later = Leader(open_medium(), "later")
    later.commit(2)
    last = Leader(open_medium(), "last")
    assert len(last.history) == 7
    assert last.history == later.history
    last.log.set_aside()
    assert Leader(open_medium()).history == []


def test_what_a_deposed_leader_acknowledges_at_any_point_its_successor_has_read(open_medium: OpenMedium) -> None:
    for point in range(4):
        old = Leader(open_medium(), f"old-{point}")
        old.commit(2)
        new = open_medium()
        epoch = new.claim()
        if point == 0:
            old.commit()
        new.fence(epoch, "new")
        if point == 1:
            with pytest.raises(Deposed):
                old.commit()
        log = OperationLog(new, epoch)
        seen = contents(log.replay())
        if point == 2:
            with pytest.raises(Deposed):
                old.commit()
        new.settle(epoch)
        if point == 3:
            with pytest.raises(Deposed):
                old.snapshot()
        assert seen[: len(old.history)] == old.history


def test_one_that_sleeps_until_its_successor_has_taken_a_snapshot_replays_nothing(open_medium: OpenMedium) -> None:
    """What the snapshot holds is its successor's: a graph to which an older epoch cannot add anything."""
    sleeper = OperationLog.open(open_medium(), "sleeper")
    new = Leader(open_medium(), "new")
    new.commit(3)
    new.snapshot()
    new.commit()
    with pytest.raises(Deposed, match=f"epoch {sleeper.epoch} is over"):
        sleeper.replay()


def test_a_torn_end_is_dropped_and_the_successor_goes_on_behind_it(open_medium: OpenMedium) -> None:
    """FLIP-383 ``FileSystemJobEventStoreTest.testReadUnexpectedLengthEvent`` among them: a header that announces more than
    there is.
    """
    history: list[Operation] = []
    for cut in (1, 51, 60, -1):
        leader = Leader(open_medium(), f"cut-{cut}")
        assert leader.history == history
        leader.commit(2)
        tear(leader, leader.block(3)[0][:cut])
        history = leader.history
    assert Leader(open_medium()).history == history


def test_a_block_whose_answer_was_lost_is_repeated_and_counts_once(open_medium: OpenMedium) -> None:
    leader = Leader(open_medium(), "old")
    leader.commit(2)
    with failing_writes(leader, after_the_write=True), pytest.raises(OSError, match="the store has failed"):
        leader.commit(3)
    leader.commit(3)
    leader.commit(1)
    assert Leader(open_medium(), "new").history == leader.history


def test_a_store_that_refused_for_a_while_has_lost_nothing(open_medium: OpenMedium) -> None:
    leader = Leader(open_medium(), "old")
    leader.commit(2)
    with failing_writes(leader, after_the_write=False):
        for _ in range(3):
            with pytest.raises(OSError, match="the store has failed"):
                leader.commit(3)
    leader.commit(3)
    leader.commit(1)
    assert Leader(open_medium(), "new").history == leader.history


def test_a_leader_whose_writes_fail_is_told_when_it_has_been_deposed(open_medium: OpenMedium) -> None:
    old = Leader(open_medium(), "old")
    old.commit()
    new = Leader(open_medium(), "new")
    with failing_writes(old, after_the_write=False), pytest.raises(Deposed):
        old.commit()
    assert new.history == old.history


def test_an_unacknowledged_block_is_in_the_history_of_all_successors_or_of_none(open_medium: OpenMedium) -> None:
    leader = Leader(open_medium(), "old")
    leader.commit()
    with failing_writes(leader, after_the_write=True), pytest.raises(OSError, match="the store has failed"):
        leader.commit(2)
    second = Leader(open_medium(), "second")
    second.commit()
    with pytest.raises(Deposed):
        leader.commit(2)
    assert Leader(open_medium(), "third").history == second.history


def test_a_listing_that_lags_behind_hides_nothing(open_medium: OpenMedium, open_lagging: OpenMedium) -> None:
    """Each leader had listed the store long before its term, one that leads for the second time as well. Between them come
    leaders who see everything, and remove what nobody should need any more.
    """
    media = [open_lagging() for _ in range(3)]
    history: list[Operation] = []
    for term, lagging in enumerate([*media, media[0], media[1]]):
        for waiting in media:
            waiting.segments()
            waiting.snapshots()
        for medium in (open_medium(), lagging):
            leader = Leader(medium, f"jm-{term}")
            assert leader.history == history
            for _ in range(3):
                leader.commit(2)
                leader.snapshot()
                leader.commit(1)
            history = leader.history
    new = Leader(media[2], "new")
    assert new.history == history
    with pytest.raises(Deposed):
        leader.commit()


def test_a_claim_that_a_listing_hides_is_not_made_twice(open_lagging: OpenMedium) -> None:
    media = [open_lagging() for _ in range(4)]
    assert [medium.segments() for medium in media] == [[], [], [], []]
    assert [medium.claim() for medium in media] == [1, 2, 3, 4]


def test_trimming_keeps_the_log_replayable(open_medium: OpenMedium) -> None:
    history: list[Operation] = []
    for term in range(1, 5):
        leader = Leader(open_medium(), f"jm-{term}")
        assert leader.history == history
        for _ in range(term):
            leader.commit(2)
            leader.snapshot()
            leader.commit(1)
        history = leader.history
    last = Leader(open_medium())
    assert last.history == history
    assert len(last.medium.snapshots()) == 2
    assert [segment for segment in last.medium.segments() if segment.epoch < 4] == []
    assert min(segment for segment in last.medium.segments() if segment.epoch == 4).number > 0
