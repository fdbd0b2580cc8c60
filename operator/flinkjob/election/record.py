"""The lease record: who leads, for how long without a sign of life, and how often the lease has changed hands.

It has the fields of a Kubernetes Lease. Its times are there for people; no decision is ever taken from them, because the
clocks of two machines cannot be compared.
"""

import msgspec

_JSON_NAMES = {
    "holder": "holderIdentity",
    "lease_duration": "leaseDurationSeconds",
    "acquire_time": "acquireTime",
    "renew_time": "renewTime",
    "transitions": "leaseTransitions",
}


class LeaseRecord(msgspec.Struct, frozen=True, rename=_JSON_NAMES):
    """What the store holds.

    Attributes:
        holder: the leader's identity, unique to its process; "" when the lease is free.
        address: host:port at which TaskManagers reach the leader, or "".
        rest: host:port at which its REST API is reached, or "".
        lease_duration: seconds without a change of the record after which the lease may be taken.
        acquire_time, renew_time: text for people, in ISO 8601.
        transitions: how often the lease has gone to another holder.
        ended: why the last holder is known to be dead, as whoever emptied the lease for it says; "" where it has released the
            lease itself, or somebody holds it.
        version: names this very state of the record in its store; every write gives a new one, "" means not written yet.
    """

    holder: str = ""
    address: str = ""
    lease_duration: float = 15.0
    acquire_time: str = ""
    renew_time: str = ""
    transitions: int = 0
    version: str = ""
    rest: str = ""
    ended: str = ""

    def released(self, at: str = "") -> "LeaseRecord":
        """The record as its holder leaves it on a clean stop: free at once.

        Args:
            at: the time, which is the last sign of life of the holder; "": that of the last renewal stays.
        """
        return msgspec.structs.replace(self, holder="", address="", rest="", renew_time=at or self.renew_time)
