"""How the leadership of whoever led before came to its end, as the lease tells: the successor passes it on.

The lease's times are another machine's. They are told to people and measured by, never decided by.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from flinkjob.election.record import LeaseRecord

End = Literal["none", "released", "dead", "replaced", "expired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Predecessor:
    """The one who held the lease before.

    Attributes:
        end: ``none``: there was none, or nothing is known of it; ``released``: it stopped cleanly; ``dead``: whoever keeps
            the processes has seen that, and has emptied the lease; ``replaced``: it was an earlier process of the same pod;
            ``expired``: it has not renewed the lease in time.
        name: its pod, where that is told.
        cause: the same in words, to follow the name.
        seen: when it last gave a sign of life, milliseconds; 0 where that is not known.
    """

    end: End = "none"
    name: str = ""
    cause: str = "is gone"
    seen: int = 0


NOBODY = Predecessor()


def predecessor_of(record: LeaseRecord | None, *, own: str, since: int) -> Predecessor:
    """What a record says that this candidate has found before it took the lease.

    Args:
        record: None: there was none.
        own: what the names of earlier processes of the same pod begin with; "": they are not known by that.
        since: when this process began. Whoever released the lease before that has left nobody to take over: that was a stop
            of the job, and no gap in its leadership.
    """
    if record is None or not record.renew_time:  # also of a lease that was deleted and made again
        return NOBODY
    seen = _milliseconds(record.renew_time)
    if record.ended:
        return Predecessor(end="dead", cause=f"is gone: {record.ended}", seen=seen)
    if not record.holder:
        return Predecessor(end="released", cause="has handed over", seen=seen if seen >= since else 0)
    name = record.holder.partition("_")[0]
    if own and record.holder.startswith(own):
        return Predecessor(end="replaced", name=name, cause="is gone: its process was started anew", seen=seen)
    cause = f"is gone: it has not renewed its lease for {record.lease_duration:g} s"
    return Predecessor(end="expired", name=name, cause=cause, seen=seen)


def _milliseconds(time: str) -> int:
    try:
        return round(datetime.fromisoformat(time).timestamp() * 1000)
    except ValueError:
        return 0
