"""What keeps the lease record: a store with compare-and-swap. Kubernetes has one in its Lease; ``filestore`` makes one."""

from typing import Protocol

from flinkjob.election.record import LeaseRecord


class LeaseStore(Protocol):
    """All methods may raise LeaseError and may take long; whoever calls them sets a time limit by cancelling."""

    async def read(self) -> LeaseRecord | None:
        """The record as it is now; None where there is none."""

    async def compare_and_swap(self, expected: str, new: LeaseRecord) -> LeaseRecord | None:
        """Write the record if the version in the store is ``expected`` ("": there must be none yet).

        Returns:
            What the store holds now, with its new version, or None where the version was another one.
        """

    async def changed(self, after_version: str, timeout: float) -> bool:
        """Wait until the record has another version than that, for so many seconds at most; return whether it has."""
