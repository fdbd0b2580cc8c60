"""Durations and sizes read as Flink writes them, and what we write we also read."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flinkjob.api.errors import InvalidInput
from flinkjob.api.units import LARGEST, format_duration, format_memory, parse_duration, parse_memory

amounts = st.integers(min_value=0, max_value=LARGEST)


@given(amounts)
def test_a_formatted_duration_parses_to_itself(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds)) == milliseconds


@given(amounts)
def test_a_formatted_size_parses_to_itself(size: int) -> None:
    assert parse_memory(format_memory(size)) == size


@given(st.integers(0, 10**6), st.sampled_from(["s", "min", "h", "d"]), st.sampled_from(["", " ", "  "]), st.booleans())
def test_case_and_space_mean_nothing_in_a_duration(count: int, unit: str, space: str, upper: bool) -> None:
    written = f" {count}{space}{unit} "
    assert parse_duration(written.upper() if upper else written) == parse_duration(f"{count} {unit}")


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.integers(0, 999))
def test_an_iso_8601_duration_is_the_sum_of_its_parts(days: int, hours: int, minutes: int, secs: int, ms: int) -> None:
    written = f"P{days}DT{hours}H{minutes}M{secs}.{ms:03}S"
    assert parse_duration(written) == (((days * 24 + hours) * 60 + minutes) * 60 + secs) * 1000 + ms


@given(st.text(max_size=12))
def test_no_text_breaks_the_parsers(text: str) -> None:
    for parse in (parse_duration, parse_memory):
        with contextlib.suppress(InvalidInput):
            assert 0 <= parse(text) <= LARGEST


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("0", 0),
        ("3000", 3_000),
        ("500 ms", 500),
        ("500 millis", 500),
        ("60 s", 60_000),
        ("60sec", 60_000),
        ("1 second", 1_000),
        ("2 seconds", 2_000),
        ("1 min", 60_000),
        ("1 m", 60_000),
        ("3 minutes", 180_000),
        ("1h", 3_600_000),
        ("2 hours", 7_200_000),
        ("10 d", 864_000_000),
        ("1 day", 86_400_000),
        ("2000 µs", 2),
        ("2000 micros", 2),
        ("3000000 ns", 3),
        ("PT10S", 10_000),
        ("pt0.5s", 500),
        ("P1DT1H", 90_000_000),
    ],
)
def test_durations_read_as_in_flink(text: str, milliseconds: int) -> None:
    assert parse_duration(text) == milliseconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1024", 1024),
        ("12 b", 12),
        ("12bytes", 12),
        ("64 kb", 65_536),
        ("64k", 65_536),
        ("64 KB", 65_536),
        ("64 mb", 67_108_864),
        ("1 m", 1 << 20),
        ("1 g", 1 << 30),
        ("2gb", 2 << 30),
        ("1 t", 1 << 40),
        ("1 tebibytes", 1 << 40),
    ],
)
def test_sizes_read_as_in_flink(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "0 ms"), (1, "1 ms"), (1_500, "1500 ms"), (90_000, "90 s"), (60_000, "1 min"), (86_400_000, "1 d")],
)
def test_a_duration_is_written_in_its_largest_exact_unit(milliseconds: int, text: str) -> None:
    assert format_duration(milliseconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 b"), (1, "1 b"), (1_000, "1000 b"), (65_536, "64 kb"), (3 << 40, "3 tb")]
)
def test_a_size_is_written_in_its_largest_exact_unit(size: int, text: str) -> None:
    assert format_memory(size) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "s",
        "-1 s",
        "+1 s",
        "1.5 s",
        "1 s 2 ms",
        "1e3",
        "P",
        "PT",
        "P1Y",
        "-PT1S",
        "PT1S1H",
        "\u0663 s",
        "1 \uff53",
    ],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not a duration such as"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "kb", "-1", "1.5 gb", "1 mb 1 kb", "0x10"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not a memory size such as"):
        parse_memory(text)


def test_an_unknown_unit_is_named() -> None:
    with pytest.raises(InvalidInput, match="unknown unit 'parsec'"):
        parse_duration("10 parsec")
    with pytest.raises(InvalidInput, match="unknown unit 'kib'"):
        parse_memory("10 kib")


def test_less_than_a_millisecond_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'1500 µs' is not a whole number of milliseconds"):
        parse_duration("1500 µs")


def test_what_does_not_fit_64_bits_is_refused() -> None:
    assert parse_duration(f"{LARGEST} ms") == LARGEST
    for text in (f"{LARGEST + 1}", "999999999999999999 d", "P999999999999999999D"):
        with pytest.raises(InvalidInput, match="too large"):
            parse_duration(text)
    assert parse_memory(str(LARGEST)) == LARGEST
    for text in (f"{LARGEST + 1}", "8388608 tb"):
        with pytest.raises(InvalidInput, match="too large"):
            parse_memory(text)
