"""The bytes of blocks and snapshots."""

import struct
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flinkjob.api.errors import UnsupportedStorage
from flinkjob.oplog.format import (
    HEADER_SIZE,
    SNAPSHOT_HEADER_SIZE,
    BadBlock,
    BlockHeader,
    check_payload,
    decode_header,
    decode_snapshot,
    encode_block,
    encode_snapshot,
    holds_header,
)

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)


def a_block(payload: bytes = b"payload") -> bytes:
    return encode_block(payload, epoch=3, previous_epoch=2, first_lsn=11, count=4, previous_checksum=77)[0]


def test_the_block_is_laid_out_as_documented() -> None:
    block = a_block(b"abc")
    assert HEADER_SIZE == 52
    assert block[:4] == b"FJOL"
    assert struct.unpack(">I", block[4:8]) == (1,)
    assert struct.unpack(">QQQ", block[8:32]) == (3, 2, 11)
    assert struct.unpack(">III", block[32:44]) == (4, 3, 77)
    assert struct.unpack(">I", block[44:48]) == (crc32(b"abc"),)
    assert struct.unpack(">I", block[48:52]) == (crc32(block[:48]),)
    assert block[52:] == b"abc"


def test_version_1_of_the_format_never_changes() -> None:
    assert a_block(b"abc").hex() == (
        "464a4f4c" "00000001" "0000000000000003" "0000000000000002" "000000000000000b"
        "00000004" "00000003" "0000004d" "352441c2" "cfbb34d2" "616263"
    )  # fmt: skip
    assert encode_snapshot(b"abc", epoch=3, lsn=11).hex() == (
        "464a534e" "00000001" "0000000000000003" "000000000000000b" "0000000000000003" "8a7a7afd" "616263"
    )  # fmt: skip


@given(payload=st.binary(max_size=100), epoch=u64, previous=u64, lsn=u64, count=u32, checksum=u32)
def test_a_block_is_read_as_it_was_written(
    payload: bytes, epoch: int, previous: int, lsn: int, count: int, checksum: int
) -> None:
    block, own = encode_block(
        payload, epoch=epoch, previous_epoch=previous, first_lsn=lsn, count=count, previous_checksum=checksum
    )
    header = decode_header(block[:HEADER_SIZE])
    assert header == BlockHeader(epoch, previous, lsn, count, len(payload), checksum, crc32(payload), own)
    check_payload(header, block[HEADER_SIZE:])


def test_a_header_with_any_bit_changed_is_none() -> None:
    block = a_block()
    for bit in range(8 * HEADER_SIZE):
        changed = bytearray(block[:HEADER_SIZE])
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadBlock):
            decode_header(bytes(changed))


def test_a_payload_that_is_short_or_changed_is_none() -> None:
    block = a_block()
    header = decode_header(block)
    with pytest.raises(BadBlock, match="6 bytes of the payload are there, of 7"):
        check_payload(header, b"payloa")
    with pytest.raises(BadBlock, match="checksum"):
        check_payload(header, b"Payload")


def test_an_intact_block_of_a_later_format_is_refused_by_name() -> None:
    header = bytearray(a_block()[:48])
    header[4:8] = struct.pack(">I", 2)
    with pytest.raises(UnsupportedStorage, match="format version 2; this program reads version 1"):
        decode_header(bytes(header) + struct.pack(">I", crc32(header)))


@given(before=st.binary(max_size=60), after=st.binary(max_size=60))
def test_an_intact_header_is_found_anywhere_in_bytes(before: bytes, after: bytes) -> None:
    assert holds_header(before + b"FJOL" + a_block() + after, epoch=3)
    assert not holds_header(before + a_block() + after, epoch=4)
    assert not holds_header(before + a_block()[: HEADER_SIZE - 1], epoch=3)


@given(data=st.binary(max_size=100), epoch=u64, lsn=u64)
def test_a_snapshot_is_read_as_it_was_written(data: bytes, epoch: int, lsn: int) -> None:
    snapshot = decode_snapshot(encode_snapshot(data, epoch=epoch, lsn=lsn))
    assert (snapshot.data, snapshot.epoch, snapshot.lsn) == (data, epoch, lsn)


def test_a_snapshot_with_any_byte_changed_or_cut_is_none() -> None:
    file = encode_snapshot(b"the graph", epoch=1, lsn=9)
    for offset in range(len(file)):
        changed = bytearray(file)
        changed[offset] ^= 0x41
        for bad in (bytes(changed), file[:offset], file + b"x"):
            with pytest.raises(BadBlock):
                decode_snapshot(bad)


def test_a_snapshot_of_a_later_format_is_refused_by_name() -> None:
    header = bytearray(encode_snapshot(b"", epoch=1, lsn=9)[: SNAPSHOT_HEADER_SIZE - 4])
    header[4:8] = struct.pack(">I", 2)
    with pytest.raises(UnsupportedStorage, match="LSN 9 has format version 2"):
        decode_snapshot(bytes(header) + struct.pack(">I", crc32(header)))
