"""Durations and memory sizes, in the text formats of Flink's options.

A duration is an int of milliseconds, a size an int of bytes. What is written is a whole number and a unit, in any case,
with or without a space between them; a bare number is milliseconds or bytes. Sizes are 1024-based. The unit names are
those of Flink's ``TimeUtils`` and ``MemorySize``. A duration may also be ISO-8601, such as ``PT10S``.
"""

import re
from collections.abc import Mapping

from flinkjob.api.errors import InvalidInput
from flinkjob.api.fields import shown

DURATION_FORMAT = "a duration such as '500 ms', '60 s', '1 min', '2 h', '10 d' or 'PT10S' (a bare number is ms)"
MEMORY_FORMAT = "a memory size such as '512 b', '64 kb', '32 mb', '1 gb' or '1 tb' (a bare number is bytes)"

LARGEST = 2**63 - 1
"""The largest duration in milliseconds and the largest size in bytes: Flink's, and what 64 bits hold."""

_MS_IN_NS = 1_000_000


def _spellings(units: Mapping[int, str]) -> dict[str, int]:
    return {name: factor for factor, names in units.items() for name in names.split()}


_NANOSECONDS = _spellings(
    {
        1: "ns nano nanos nanosecond nanoseconds",
        1_000: "µs μs micro micros microsecond microseconds",
        _MS_IN_NS: "ms milli millis millisecond milliseconds",
        1_000 * _MS_IN_NS: "s sec secs second seconds",
        60_000 * _MS_IN_NS: "m min minute minutes",
        3_600_000 * _MS_IN_NS: "h hour hours",
        86_400_000 * _MS_IN_NS: "d day days",
    }
)
_BYTES = _spellings(
    {
        1: "b bytes",
        1 << 10: "k kb kibibytes",
        1 << 20: "m mb mebibytes",
        1 << 30: "g gb gibibytes",
        1 << 40: "t tb tebibytes",
    }
)
_NUMBER_AND_UNIT = re.compile(r"([0-9]{1,19})\s*([a-zµμ]*)")
_ISO_8601 = re.compile(
    r"p(?=.)(?:([0-9]{1,19})d)?(?:t(?=.)(?:([0-9]{1,19})h)?(?:([0-9]{1,19})m)?(?:([0-9]{1,19})(?:\.([0-9]{1,9}))?s)?)?"
)


def parse_duration(text: str) -> int:
    """Milliseconds of a duration written as Flink writes it.

    Raises:
        InvalidInput: it is no duration, not a whole number of milliseconds, or larger than `LARGEST`.
    """
    nanoseconds = _iso_nanoseconds(text)
    if nanoseconds is None:
        nanoseconds = _amount(text, units=_NANOSECONDS, bare="ms", expected=DURATION_FORMAT)
    milliseconds, rest = divmod(nanoseconds, _MS_IN_NS)
    if rest:
        raise InvalidInput(f"{shown(text)} is not a whole number of milliseconds")
    return _bounded(milliseconds, text, expected=DURATION_FORMAT)


def format_duration(milliseconds: int) -> str:
    """The duration in the largest unit that holds it exactly: ``90000`` as ``90 s``."""
    for unit, factor in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)):
        if milliseconds and milliseconds % factor == 0:
            return f"{milliseconds // factor} {unit}"
    return f"{milliseconds} ms"


def parse_memory(text: str) -> int:
    """Bytes of a memory size written as Flink writes it.

    Raises:
        InvalidInput: it is no memory size, or larger than `LARGEST`.
    """
    return _bounded(_amount(text, units=_BYTES, bare="b", expected=MEMORY_FORMAT), text, expected=MEMORY_FORMAT)


def format_memory(size: int) -> str:
    """The size in the largest unit that holds it exactly: ``65536`` as ``64 kb``."""
    for unit, factor in (("tb", 1 << 40), ("gb", 1 << 30), ("mb", 1 << 20), ("kb", 1 << 10)):
        if size and size % factor == 0:
            return f"{size // factor} {unit}"
    return f"{size} b"


def _amount(text: str, *, units: Mapping[str, int], bare: str, expected: str) -> int:
    match = _NUMBER_AND_UNIT.fullmatch(text.strip().lower())
    if match is None:
        raise InvalidInput(f"{shown(text)} is not {expected}")
    number, unit = match.groups()
    factor = units.get(unit or bare)
    if factor is None:
        raise InvalidInput(f"{shown(text)} has the unknown unit {unit!r}; expected {expected}")
    return int(number) * factor


def _iso_nanoseconds(text: str) -> int | None:
    match = _ISO_8601.fullmatch(text.strip().lower())
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups()[:4])
    fraction = int((match[5] or "").ljust(9, "0"))
    return (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1_000 * _MS_IN_NS + fraction


def _bounded(amount: int, text: str, *, expected: str) -> int:
    if amount > LARGEST:
        raise InvalidInput(f"{shown(text)} is too large for {expected}")
    return amount
