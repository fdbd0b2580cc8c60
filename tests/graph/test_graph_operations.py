"""The operations' bytes are the log's format: they stay what they are, and nonsense is refused."""

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flinkjob.graph import operations as ops
from flinkjob.graph.describe import as_values, in_words
from flinkjob.graph.operations import decode_operations, encode_operations
from flinkjob.graph.states import JobStatus

from .samples import GOLDEN, T, word_count

each_operation = pytest.mark.parametrize(
    ("operation", "golden"), GOLDEN, ids=[type(operation).__name__ for operation, _ in GOLDEN]
)


@each_operation
def test_the_bytes_of_an_operation_never_change(operation: ops.Operation, golden: str) -> None:
    assert encode_operations([operation]).hex() == "91" + golden


@each_operation
def test_an_operation_survives_its_bytes(operation: ops.Operation, golden: str) -> None:
    assert decode_operations(bytes.fromhex("91" + golden)) == [operation]


def test_a_failover_that_was_logged_without_the_last_sign_of_life_is_read() -> None:
    failover, golden = GOLDEN[-1]
    assert isinstance(failover, ops.FailoverCompleted)
    before = "9b" + golden.removeprefix("9c").removesuffix("00")
    assert decode_operations(bytes.fromhex("91" + before)) == [failover]


def test_every_kind_of_operation_has_golden_bytes_and_tags_count_from_one() -> None:
    kinds = get_args(ops.Operation)
    assert [type(operation) for operation, _ in GOLDEN] == list(kinds)
    assert [kind.__struct_config__.tag for kind in kinds] == list(range(1, len(kinds) + 1))


def test_many_operations_are_one_array_in_their_order() -> None:
    every = [operation for operation, _ in GOLDEN]
    assert decode_operations(encode_operations(every)) == every
    assert decode_operations(encode_operations([])) == []


def test_fields_with_defaults_may_be_missing_as_older_logs_miss_them() -> None:
    short = [[9, 1, 2, 3, T], [2, 1, T], [11, [[1, 2]], T, "why", [1, 2, 3], T], [13, 2, "jm", "", T, 0, 0, 0, T, {}]]
    assert decode_operations(msgspec.msgpack.encode(short)) == [
        ops.TaskFinished(1, 2, 3, T),
        ops.JobStatusChanged(JobStatus.RUNNING, T),
        ops.RestartScheduled(((1, 2),), T, "why", ops.RestartState(1, 2, 3), T),
        ops.FailoverCompleted(2, "jm", "", T, 0, 0.0, 0.0, T, {}),
    ]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x91",
        b"\x90\x90",
        msgspec.msgpack.encode({"a": 1}),
        msgspec.msgpack.encode([[14, 1]]),
        msgspec.msgpack.encode([[0]]),
        msgspec.msgpack.encode([[]]),
        msgspec.msgpack.encode([[1, "three", "jm", T]]),
        msgspec.msgpack.encode([[1, 3]]),
        msgspec.msgpack.encode([[8, 1, 2, 3, 77, T]]),
        bytes.fromhex("91940103a2ffffcf0000019ab697e800"),
        bytes.fromhex("9193050091" + "94a00000" + "91" * 100_000),
    ],
    ids=lambda payload: payload[:12].hex() or "empty",
)
def test_bytes_that_are_no_operations_raise_one_kind_of_error(payload: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_operations(payload)


@given(st.data())
def test_damaged_bytes_raise_one_kind_of_error_or_are_operations(data: st.DataObject) -> None:
    payload = bytearray(encode_operations([operation for operation, _ in GOLDEN]))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        operations = decode_operations(bytes(payload))
    except msgspec.DecodeError:
        return
    for operation in operations:
        assert in_words(operation, word_count())
        assert as_values(operation)["operation"] == type(operation).__name__


@each_operation
def test_an_operation_can_be_told_in_words_whatever_it_names(operation: ops.Operation, golden: str) -> None:
    assert in_words(operation, word_count())


def test_words_name_tasks_as_people_do() -> None:
    graph = word_count()
    assert in_words(ops.TaskDeploying(0, 3, 1, 2, T), graph) == (
        "16:00:00.000 tokenize[3] attempt 1 is DEPLOYING to TaskManager number 2"
    )
    assert in_words(ops.SplitsCreated(9, ()), graph) == "vertex 9 has 0 splits"
    assert in_words(ops.TaskFailed(-1, 0, 0, 1 << 63, "x"), graph).startswith(f"{1 << 63} ms vertex -1[0] attempt 0")


@pytest.mark.parametrize(
    ("partition", "possible"),
    [
        (ops.ResultPartition(), True),
        (ops.ResultPartition(ops.MAX_INT, ops.MAX_INT, 0xFFFFFFFF), True),
        (ops.ResultPartition(size=-1), False),
        (ops.ResultPartition(size=ops.MAX_INT + 1), False),
        (ops.ResultPartition(records=-1), False),
        (ops.ResultPartition(records=ops.MAX_INT + 1), False),
        (ops.ResultPartition(checksum=-1), False),
        (ops.ResultPartition(checksum=1 << 32), False),
    ],
)
def test_a_partition_has_numbers_that_can_be(partition: ops.ResultPartition, possible: bool) -> None:
    assert partition.possible is possible
