"""Histories of leaders that overlap in every way: what has been acknowledged once is in every later leader's history."""

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flinkjob.api.errors import Deposed
from flinkjob.graph.operations import Operation
from flinkjob.oplog.append import AppendMedium, FileAppender
from flinkjob.oplog.log import OperationLog
from flinkjob.oplog.replay import Replay

from .leaders import Leader, contents, replayed


class SlowLeader(Leader):
    """A leader whose every step is taken apart, so that others come in between."""

    def __init__(self, medium: AppendMedium, name: str) -> None:
        self.medium: AppendMedium = medium
        self.name = name
        self.stage = "claiming"
        self.epoch = medium.claim()
        self.pending = 0
        """How many operations the block has whose sync failed and that is to be repeated."""

    def fence(self) -> None:
        self.medium.fence(self.epoch, self.name)
        self.log = OperationLog(self.medium, self.epoch)
        self.stage = "reading"

    def read(self) -> None:
        replay: Replay = self.log.replay()
        self.history = contents(replay)
        assert replay.end is not None
        self.position = replay.end
        self.appender = self.medium.appender(self.epoch)
        self.stage = "leading"


class Histories(RuleBasedStateMachine):
    """Leaders, several at a time, and the longest history that any of them has acknowledged."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.leaders: list[SlowLeader] = []
        self.acknowledged: list[Operation] = []
        self.names = 0

    def teardown(self) -> None:
        self.directory.cleanup()

    def medium(self) -> AppendMedium:
        return AppendMedium(Path(self.directory.name))

    def in_stage(self, stage: str, pick: int) -> SlowLeader | None:
        leaders = [leader for leader in self.leaders if leader.stage == stage]
        return leaders[pick % len(leaders)] if leaders else None

    @rule()
    def claim(self) -> None:
        self.names += 1
        self.leaders.append(SlowLeader(self.medium(), f"jm-{self.names}"))

    @rule(pick=st.integers(0, 9))
    def fence(self, pick: int) -> None:
        if leader := self.in_stage("claiming", pick):
            leader.fence()

    @rule(pick=st.integers(0, 9))
    def read(self, pick: int) -> None:
        if leader := self.in_stage("reading", pick):
            try:
                leader.read()
            except Deposed:
                leader.stage = "dead"

    @rule(pick=st.integers(0, 9), count=st.integers(1, 3))
    def commit(self, pick: int, count: int) -> None:
        if leader := self.in_stage("leading", pick):
            try:
                leader.commit(leader.pending or count)
            except Deposed:
                leader.stage = "dead"
            else:
                leader.pending = 0
                assert leader.history[: len(self.acknowledged)] == self.acknowledged
                self.acknowledged = list(leader.history)

    @rule(pick=st.integers(0, 9), count=st.integers(1, 3), cut=st.none() | st.integers(0, 90))
    def fail_writing(self, pick: int, count: int, cut: int | None) -> None:
        """The bytes, or some of them, reach the file, but not for certain; the next commit repeats them."""
        leader = self.in_stage("leading", pick)
        if leader and not leader.pending:
            leader.pending = count
            self.write(leader, count, cut)
            assert isinstance(leader.appender, FileAppender)
            leader.appender._clean = False

    @rule(pick=st.integers(0, 9), count=st.integers(1, 3), cut=st.none() | st.integers(1, 90))
    def die_writing(self, pick: int, count: int, cut: int | None) -> None:
        """The bytes, or some of them, reach the file; the leader learns nothing of it and never writes again."""
        leader = self.in_stage("leading", pick)
        if leader and not leader.pending:
            self.write(leader, count, cut)
            leader.stage = "dead"

    @precondition(lambda self: any(leader.stage == "leading" for leader in self.leaders))
    @rule(pick=st.integers(0, 9))
    def snapshot(self, pick: int) -> None:
        leader = self.in_stage("leading", pick)
        # Only what is acknowledged may be in a snapshot; a leader that has only read waits for its first block.
        if (
            leader
            and not leader.pending
            and leader.history
            and leader.history == self.acknowledged[: len(leader.history)]
        ):
            try:
                leader.snapshot()
            except Deposed:
                leader.stage = "dead"

    @invariant()
    def all_that_was_acknowledged_is_there(self) -> None:
        history = replayed(self.medium())
        assert history[: len(self.acknowledged)] == self.acknowledged

    def write(self, leader: SlowLeader, count: int, cut: int | None) -> None:
        newest = max((s for s in leader.medium.segments() if s.epoch == leader.epoch), default=None)
        if newest is None:
            return  # its successor has trimmed it away
        with (Path(self.directory.name) / leader.medium.describe(newest)).open("ab") as file:
            file.write(leader.block(count)[0][:cut])


Histories.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestHistories = Histories.TestCase
