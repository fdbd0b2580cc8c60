"""What is told to the JobManager, with news that is old before it leaves held back.

A short task begins and ends within moments. That it RUNS is worth a message only if it still does a little later: an end
overtakes it, and spares the leader an operation in its log.
"""

import asyncio
from collections.abc import Callable

from flinkjob.worker.protocol import AttemptId, FromTaskManager, Report, Reports

DELAY = 0.005
"""Seconds for which the report of a running attempt may wait for its end."""


class Outbox:
    """Sends messages in order, except that reports of running attempts may wait; a new connection needs a new one.

    Args:
        send: to the JobManager.
    """

    def __init__(self, send: Callable[[FromTaskManager], None]) -> None:
        self._send = send
        self._running: dict[AttemptId, Report] = {}
        self._timer: asyncio.TimerHandle | None = None

    def send(self, message: FromTaskManager) -> None:
        """Send the message, now or soon."""
        if not isinstance(message, Reports):
            # A leader must know that an attempt runs before it hears what the attempt wants.
            self.flush()
            self._send(message)
            return
        ended = tuple(report for report in message.reports if report.state.terminal)
        for report in message.reports:
            if report.state.terminal:
                self._running.pop(report.attempt, None)
            else:
                self._running[report.attempt] = report
        if ended:
            self._send(Reports(ended))
        if self._running and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(DELAY, self.flush)

    def flush(self) -> None:
        """Send what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._running:
            reports, self._running = tuple(self._running.values()), {}
            self._send(Reports(reports))

    def close(self) -> None:
        """Forget what waits."""
        self._running.clear()
        self.flush()
