"""The JobManager's clock: the time of day at its start, carried on by a clock that never steps."""

import time


class Clock:
    """Milliseconds of the Unix epoch that never go back, whatever is done to the machine's time of day."""

    def __init__(self) -> None:
        self._start = time.time() - time.monotonic()

    def now_ms(self) -> int:
        """The time."""
        return int((self._start + time.monotonic()) * 1000)

    def not_before(self, at_ms: int) -> None:
        """That moment has passed already: a predecessor has lived through it, by a clock that was ahead of this one."""
        self._start += max(0, at_ms - self.now_ms()) / 1000
