"""What the value of an option can be: each type parses the text, formats the value, and says what is allowed.

A refusal says what is wrong with the value; whoever knows the option puts its key in front.
"""

import enum
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from flinkjob.api.errors import InvalidInput
from flinkjob.api.fields import shown
from flinkjob.api.units import (
    DURATION_FORMAT,
    format_duration,
    parse_duration,
)

T = TypeVar("T")
EnumT = TypeVar("EnumT", bound=enum.StrEnum)

_INTEGER = re.compile(r"[-+]?[0-9]{1,19}")
_DECIMAL = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueType(Generic[T]):
    """How the values of an option are written.

    Attributes:
        name: what the options table calls it.
        allowed: what is allowed, in words that follow "is not".
        parse: the value of a text; raises `InvalidInput`, naming the text and what is allowed.
        format: the text of a value, such that ``parse(format(value)) == value``.
    """

    name: str
    allowed: str
    parse: Callable[[str], T]
    format: Callable[[T], str]


def duration(*, at_least: int = 0) -> ValueType[int]:
    """Milliseconds, not less than `at_least`."""
    bound = f", at least {format_duration(at_least)}" if at_least else ""
    allowed = DURATION_FORMAT + bound
    parse = _ranged(parse_duration, allowed, lambda value: value >= at_least)
    return ValueType(name=f"duration{bound}", allowed=allowed, parse=parse, format=format_duration)


def integer(*, at_least: int, at_most: int = 2**31 - 1) -> ValueType[int]:
    """A whole number in a range; Flink's integers have 32 bits."""
    allowed = f"a whole number from {at_least} to {at_most}"
    parse = _ranged(_parser(_INTEGER, int, allowed), allowed, lambda value: at_least <= value <= at_most)
    return ValueType(name=f"integer, at least {at_least}", allowed=allowed, parse=parse, format=str)


def number(*, at_least: float, at_most: float | None = None) -> ValueType[float]:
    """A decimal number in a range."""
    allowed = f"a number of at least {at_least}" if at_most is None else f"a number from {at_least} to {at_most}"
    top = sys.float_info.max if at_most is None else at_most
    parse = _ranged(_parser(_DECIMAL, float, allowed), allowed, lambda value: at_least <= value <= top)
    return ValueType(name=allowed.removeprefix("a "), allowed=allowed, parse=parse, format=repr)


def location() -> ValueType[str | None]:
    """A path or a URL, taken as it is; None stands for an option that is not set."""
    return ValueType(
        name="path or URL", allowed="a path or a URL", parse=_parse_location, format=lambda value: value or ""
    )


def choice(kind: type[EnumT], *, aliases: Mapping[str, EnumT] | None = None) -> ValueType[EnumT]:
    """One of the enum's values, in any case; `aliases` are taken too."""
    spellings = {**(aliases or {}), **{member.value: member for member in kind}}
    names = ", ".join(kind)
    allowed = f"one of {names}"

    def parse(text: str) -> EnumT:
        member = spellings.get(text.strip().lower())
        if member is None:
            raise InvalidInput(f"{shown(text)} is not {allowed}")
        return member

    return ValueType(name=names, allowed=allowed, parse=parse, format=str)


def _ranged(parse: Callable[[str], T], allowed: str, accept: Callable[[T], bool]) -> Callable[[str], T]:
    def checked(text: str) -> T:
        value = parse(text)
        if not accept(value):
            raise InvalidInput(f"{shown(text)} is not {allowed}")
        return value

    return checked


def _parser(pattern: re.Pattern[str], convert: Callable[[str], T], allowed: str) -> Callable[[str], T]:
    def parse(text: str) -> T:
        # Python's own int() and float() also take underscores, other scripts' digits and words such as "nan".
        if not pattern.fullmatch(text.strip().lower()):
            raise InvalidInput(f"{shown(text)} is not {allowed}")
        return convert(text)

    return parse


def _parse_location(text: str) -> str:
    if not text.strip() or "\0" in text:
        raise InvalidInput(f"{shown(text)} is not a path or a URL")
    return text.strip()
