"""Frames: what comes out is what went in, and nothing else gets through."""

from contextlib import suppress
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from flinkjob.api.errors import ProtocolViolation
from flinkjob.graph.operations import InputSplit, ResultPartition
from flinkjob.graph.states import ExecutionState
from flinkjob.rpc import codec
from flinkjob.worker import protocol as msg

NUMBERS = st.integers(0, 2**31)
ATTEMPTS = st.builds(msg.AttemptId, NUMBERS, NUMBERS, NUMBERS, NUMBERS)
PARTITIONS = st.builds(ResultPartition, NUMBERS, NUMBERS, NUMBERS)
REPORTS = st.builds(
    msg.Report,
    ATTEMPTS,
    st.sampled_from(ExecutionState),
    PARTITIONS,
    st.dictionaries(st.text(), st.integers(-(2**63), 2**63) | st.floats(allow_nan=False)),
    st.text(),
    st.none() | st.tuples(NUMBERS, NUMBERS),
)


def tuples(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(items, max_size=3).map(tuple)


FROM_TASKMANAGER = st.one_of(
    st.builds(msg.Register, NUMBERS, st.text(), st.text(), st.text(), NUMBERS, tuples(REPORTS)),
    st.builds(msg.Reports, tuples(REPORTS)),
    st.builds(msg.SplitRequest, ATTEMPTS, NUMBERS),
    st.builds(msg.Heartbeat, tuples(st.builds(msg.Progress, ATTEMPTS, st.floats(0, 1), NUMBERS, NUMBERS))),
)
DEPLOYMENTS = st.builds(
    msg.Deployment, ATTEMPTS, tuples(tuples(st.builds(msg.InputPartition, NUMBERS, NUMBERS, PARTITIONS)))
)
FROM_JOBMANAGER = st.one_of(
    st.builds(msg.Registered, NUMBERS, st.binary(), st.text(), NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    st.builds(msg.Refused, st.text(), st.text()),
    st.builds(msg.Deploy, NUMBERS, tuples(DEPLOYMENTS)),
    st.builds(msg.Cancel, NUMBERS, tuples(ATTEMPTS)),
    st.builds(msg.Acknowledge, NUMBERS, tuples(ATTEMPTS)),
    st.builds(
        msg.Splits,
        NUMBERS,
        ATTEMPTS,
        NUMBERS,
        st.none() | st.builds(InputSplit, st.text(), NUMBERS, NUMBERS, st.text()),
    ),
    st.builds(msg.JobOver, NUMBERS, st.text()),
    st.builds(msg.Alive, NUMBERS),
)


@given(st.lists(FROM_TASKMANAGER, max_size=5))
def test_messages_of_a_taskmanager_survive_a_frame(messages: list[msg.FromTaskManager]) -> None:
    assert codec.decode_from_taskmanager(codec.frame([codec.encode_message(m) for m in messages])) == messages


@given(st.lists(FROM_JOBMANAGER, max_size=5))
def test_messages_of_a_jobmanager_survive_a_frame(messages: list[msg.FromJobManager]) -> None:
    assert codec.decode_from_jobmanager(codec.frame([codec.encode_message(m) for m in messages])) == messages


@given(st.binary(max_size=200))
def test_whatever_arrives_is_messages_or_a_violation(data: bytes) -> None:
    for decode in (codec.decode_from_taskmanager, codec.decode_from_jobmanager):
        with suppress(ProtocolViolation):
            messages: list[Any] = decode(data)
            assert isinstance(messages, list)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HTTP/1.1",
        msgspec.msgpack.encode([["unknown", 1]]),
        msgspec.msgpack.encode([["alive", "one"]]),
        msgspec.msgpack.encode(["alive", 1]),
        msgspec.msgpack.encode([["alive", 1]])[:-1],
        msgspec.msgpack.encode([["alive", 1]]) + b"\0",
        msgspec.msgpack.encode([["deploy", 1, [[[1, 0, 0], []]]]]),
        b"\x91" * 100_000,
    ],
)
def test_nonsense_is_a_violation(data: bytes) -> None:
    with pytest.raises(ProtocolViolation, match=f"{len(data)} bytes from a JobManager"):
        codec.decode_from_jobmanager(data)


def test_a_message_of_the_other_direction_is_a_violation() -> None:
    with pytest.raises(ProtocolViolation):
        codec.decode_from_taskmanager(codec.frame([codec.encode_message(msg.Alive(1))]))


def test_frames_and_messages_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_FRAME_BYTES", 100)
    with pytest.raises(ProtocolViolation, match="101 bytes"):
        codec.decode_from_taskmanager(b"x" * 101)
    with pytest.raises(ProtocolViolation, match="a JobOver of"):
        codec.encode_message(msg.JobOver(1, "x" * 100))


def test_the_number_of_messages_is_bounded() -> None:
    alive = codec.encode_message(msg.Alive(1))
    with pytest.raises(ProtocolViolation, match="length"):
        codec.decode_from_jobmanager(codec.frame([alive] * (codec.MAX_MESSAGES + 1)))
