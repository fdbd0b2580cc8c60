"""Effects are released when, and only when, the log is durable up to their decision."""

from collections.abc import Sequence

from flinkjob.graph.operations import EpochStarted, JobStatusChanged, Operation
from flinkjob.graph.states import JobStatus
from flinkjob.jobmanager.effects import EffectQueue, NoJournal
from flinkjob.jobmaster.events import Decision, Effect, EnumerateSplits, JobEnded


class SlowJournal:
    """A journal whose durability is moved by hand."""

    def __init__(self) -> None:
        self.written: list[Operation] = []
        self.durable_lsn = 0

    def append(self, operations: Sequence[Operation]) -> int:
        self.written.extend(operations)
        return len(self.written)


EPOCH = EpochStarted(1, "jobmanager-0", 1)
RUNNING = JobStatusChanged(JobStatus.RUNNING, 1)


def test_an_effect_waits_for_its_operation() -> None:
    journal, released = SlowJournal(), list[Effect]()
    queue = EffectQueue(journal, released.append, lsn=0)
    queue.put(Decision([EPOCH, RUNNING], [EnumerateSplits(0)]))
    queue.release(1)
    assert released == []
    queue.release(2)
    assert released == [EnumerateSplits(0)]


def test_an_effect_without_an_operation_waits_for_those_decided_before() -> None:
    journal, released = SlowJournal(), list[Effect]()
    queue = EffectQueue(journal, released.append, lsn=0)
    queue.put(Decision([EPOCH], []))
    queue.put(Decision([], [EnumerateSplits(7)]))
    assert released == []
    journal.durable_lsn = 1
    queue.put(Decision([], []))
    assert released == [EnumerateSplits(7)]


def test_effects_keep_their_order() -> None:
    journal, released = SlowJournal(), list[Effect]()
    queue = EffectQueue(journal, released.append, lsn=0)
    queue.put(Decision([EPOCH], [EnumerateSplits(0), EnumerateSplits(1)]))
    queue.put(Decision([RUNNING], [JobEnded(JobStatus.FINISHED)]))
    queue.release(2)
    assert released == [EnumerateSplits(0), EnumerateSplits(1), JobEnded(JobStatus.FINISHED)]


def test_what_was_not_released_when_the_term_ends_is_never_released() -> None:
    journal, released = SlowJournal(), list[Effect]()
    queue = EffectQueue(journal, released.append, lsn=0)
    queue.put(Decision([EPOCH], [EnumerateSplits(0)]))
    queue.clear()
    queue.release(1)
    assert released == []


def test_a_replayed_log_counts_from_where_it_ends() -> None:
    journal, released = SlowJournal(), list[Effect]()
    journal.durable_lsn = 41
    queue = EffectQueue(journal, released.append, lsn=41)
    queue.put(Decision([], [EnumerateSplits(0)]))
    assert released == [EnumerateSplits(0)]


def test_without_a_log_nothing_waits() -> None:
    released = list[Effect]()
    queue = EffectQueue(NoJournal(), released.append, lsn=0)
    queue.put(Decision([EPOCH, RUNNING], [EnumerateSplits(0)]))
    assert released == [EnumerateSplits(0)]
