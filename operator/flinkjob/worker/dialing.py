"""Where a TaskManager looks for the leader, and how long it waits before it looks there.

All known addresses are tried in turn. The first round goes without any waiting, since after the death of a leader the
standby is one address away; later rounds back off, with jitter, up to a second. An address named by a standby goes first,
once in a round, so that two JobManagers which take each other for the leader do not make the TaskManager spin.
"""

from collections.abc import Sequence

FIRST_DELAY_MS = 50
MAX_DELAY_MS = 1_000


class Dialer:
    """The order of the calls.

    Args:
        addresses: ``host:port`` of each JobManager, at least one.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = tuple(addresses)
        self._next = 0
        self._tries = 0
        self._hint = ""
        self._hint_spent = False

    def next(self, jitter: float) -> tuple[str, int]:
        """The address to call now, and the milliseconds to wait before; ``jitter`` is from 0 to 1."""
        if self._hint:
            address, self._hint = self._hint, ""
            self._hint_spent = True
            return address, 0
        address = self._addresses[self._next]
        self._next = (self._next + 1) % len(self._addresses)
        rounds, place = divmod(self._tries, len(self._addresses))
        self._tries += 1
        if place or not rounds:
            return address, 0
        self._hint_spent = False
        # Each round doubles the delay; beyond the 16th doubling it would only make large numbers.
        delay = min(MAX_DELAY_MS, FIRST_DELAY_MS << min(rounds - 1, 16))
        return address, round(delay * (0.5 + jitter / 2))

    @property
    def rounds(self) -> int:
        """How often all JobManagers have been called in vain."""
        return self._tries // len(self._addresses)

    def refused(self, leader: str) -> None:
        """The JobManager called last does not lead; ``leader`` is who does, as far as it knows ("" if it doesn't)."""
        if leader and not self._hint_spent:
            self._hint = leader

    def registered(self) -> None:
        """A leader took us in: when it is lost, the search begins anew."""
        self._tries = 0
        self._hint = ""
        self._hint_spent = False
