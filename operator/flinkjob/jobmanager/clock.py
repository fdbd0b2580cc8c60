"""The JobManager's clock: the time of day at its start, carried on by a clock that never steps."""

import time


class Clock:
    """Milliseconds of the Unix epoch that never go back, whatever is done to the machine's time of day."""

    def __init__(self) -> None:
        self._start = time.time() - time.monotonic()

    def now_ms(self) -> int:
        """The time."""
        return int((self._start + time.monotonic()) * 1000)
