"""Whose silence is taken for a loss."""

from typing import Any, cast

import pytest

from flinkjob.jobmanager.clock import Clock
from flinkjob.jobmanager.connections import Connected, Connections
from flinkjob.rpc.connection import Connection


class PlayedClock(Clock):
    """Shows what the test sets."""

    now = 0

    def now_ms(self) -> int:
        return self.now


class Socket:
    """Only ever hung up."""

    aborted = False

    def abort(self) -> None:
        self.aborted = True


class World:
    """One TaskManager that said its last word at 0 ms, and a JobManager with a time-out of 10 s."""

    def __init__(self) -> None:
        self.clock = PlayedClock()
        self.socket = Socket()
        self.connections = Connections(self.clock)
        connection = cast("Connection[Any]", self.socket)
        self.connections._by_id["tm"] = Connected("tm", connection, 0)

    def looks(self, at: int, *, deaf: bool = False) -> list[str]:
        """Those that are connected after a look at that time."""
        self.clock.now = at
        self.connections.drop_silent(10_000, deaf=deaf)
        return [connected.id for connected in self.connections]


@pytest.fixture
def world() -> World:
    return World()


def test_one_that_is_silent_for_the_time_out_is_lost(world: World) -> None:
    assert world.looks(10_000) == ["tm"]
    assert world.looks(10_001) == []
    assert world.socket.aborted


def test_silence_does_not_count_while_the_jobmanager_may_be_deaf(world: World) -> None:
    assert world.looks(9_000, deaf=True) == ["tm"]
    assert world.looks(18_000, deaf=True) == ["tm"]
    assert world.looks(28_000) == ["tm"]
    assert world.looks(28_001) == []
