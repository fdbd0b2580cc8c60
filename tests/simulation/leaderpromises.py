"""What must be true of leaders, and of what they take for true: the same kind of promises as in ``promises``."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from flinkjob.api.errors import ProtocolViolation
from flinkjob.election.elector import ElectionTimes

if TYPE_CHECKING:
    from .cluster import Cluster
    from .jobmanager import JobManager
    from .scheduler import Process


def one_leads_at_a_time(newest: "Process") -> None:
    """As long as clocks go wrong by no more than they may, no two lead by the lease at once.

    It can only be broken as one acquires or renews it. A leader that goes on without the lease, by its fence, is another
    matter: ``only_the_newest_is_confirmed``.
    """
    world = cast("JobManager", newest).world
    if world.clocks_are_wrong:
        return
    others = [jm for jm in world.jobmanagers.values() if jm.alive and jm is not newest]
    leaders = [other.name for other in others if other.candidate.leads_by_the_lease()]
    assert not leaders, f"{newest.name} and {' and '.join(leaders)} lead"


def only_the_newest_is_confirmed(world: "Cluster", epoch: int, asked_at: int) -> None:
    """A leader that cannot renew its lease leads on only if it was the newest one when it asked: two do not lead for long."""
    deposed_at = world.store.fenced_at.get(epoch, asked_at)
    assert deposed_at >= asked_at, f"epoch {epoch} was deposed at {deposed_at}, and is confirmed at {asked_at}"


def a_confirmed_term_goes_on(process: "Process", confirmed_at: float, now: float, times: ElectionTimes) -> None:
    """An outage of the lease's store ends no term within the renew deadline after the log's fence has confirmed it."""
    # Added as the elector adds: the difference of the two moments may be a hair less than the deadline.
    over = now >= confirmed_at + times.renew_deadline
    assert over, f"the term of {process.name} ends {now - confirmed_at:g} s after it was confirmed"


def no_silence_counts_in_doubt(jobmanager: "JobManager", last_heard: Iterable[int]) -> None:
    """A leader that may itself be cut off takes no TaskManager for lost because it hears nothing of it."""
    patience = jobmanager.world.options.heartbeat_timeout
    for heard in last_heard:
        silence = jobmanager.now_ms() - max(heard, jobmanager.doubted_at)
        assert silence > patience, (
            f"{jobmanager.name} may be cut off, and gives up who has been silent for {silence} ms"
        )


def no_nonsense_is_told(world: "Cluster", taskmanager: str, error: ProtocolViolation) -> None:
    """What a TaskManager tells is never nonsense, as long as its messages arrive once each and in order."""
    assert world.network.disturbed, f"{taskmanager} is disconnected: {error}"
