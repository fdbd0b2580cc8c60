"""Plain values (mappings, lists, scalars) become typed ones, and every refusal has the path of its field.

The types are the msgspec structs of this room; their annotations say what is allowed. msgspec's own conversion is not
used because its errors do not say which item of a list is wrong, nor which field an unknown one was meant to be.

An explicit null is the same as leaving the field out, as it is for Kubernetes.
"""

import difflib
import enum
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo, fields

from flinkjob.api.errors import InvalidInput
from flinkjob.api.fields import FieldError, did_you_mean, shown
from flinkjob.api.units import parse_memory

StructT = TypeVar("StructT", bound=Struct)

_TYPE_NAMES: Mapping[type, str] = {str: "a string", bool: "true or false", int: "a whole number", float: "a number"}

_TYPO = 0.8
"""How alike an unknown field of an open struct must be to one of its own to be taken for a slip, not an extension."""


def decode(value: object, struct: type[StructT]) -> StructT:
    """The mapping `value` as a `struct`.

    Raises:
        FieldError: a field is unknown, missing, of the wrong type, or refused by the struct itself.
    """
    values = _mapping(value)
    known = {info.encode_name: info for info in _fields(struct)}
    _refuse_unknown(values, known, closed=struct.__struct_config__.forbid_unknown_fields)
    decoded = {}
    for name, info in known.items():
        if values.get(name) is not None:
            decoded[info.name] = _at(name, _decode, values[name], info.type)
        elif info.default is NODEFAULT and info.default_factory is NODEFAULT:
            raise FieldError(f"is missing: {_expected(info.type)} is needed here", name)
    return struct(**decoded)


@cache
def _fields(struct: type[Struct]) -> tuple[FieldInfo, ...]:
    return fields(struct)


def _refuse_unknown(values: Mapping[str, object], known: Iterable[str], *, closed: bool) -> None:
    for name in values:
        if name in known:
            continue
        if closed:
            raise FieldError(f"unknown field {shown(name)}{did_you_mean(name, known)}; allowed: {', '.join(known)}")
        if difflib.get_close_matches(name, known, n=1, cutoff=_TYPO):
            raise FieldError(f"unknown field {shown(name)}{did_you_mean(name, known)}")


def _decode(value: object, annotation: Any) -> Any:
    arguments = get_args(annotation)
    match get_origin(annotation):
        case origin if origin in (Union, UnionType):
            return _decode_union(value, [argument for argument in arguments if argument is not type(None)])
        case origin if origin is Annotated:
            return _FORMATS[arguments[1].extra["format"]](value)
        case origin if origin is Literal:
            return _one_of(value, arguments)
        case origin if origin is tuple:
            return tuple(_at(i, _decode, item, arguments[0]) for i, item in enumerate(_list(value)))
        case origin if origin is dict:
            return {key: _at(key, _decode, item, arguments[1]) for key, item in _mapping(value).items()}
    if annotation is Any:
        return value
    if issubclass(annotation, Struct):
        return decode(value, annotation)
    if issubclass(annotation, enum.Enum):
        return _decode_enum(value, annotation)
    return _scalar(value, [annotation])


def _decode_union(value: object, members: list[Any]) -> Any:
    return _decode(value, members[0]) if len(members) == 1 else _scalar(value, members)


def _decode_enum(value: object, kind: type[enum.Enum]) -> enum.Enum:
    try:
        return kind(value)
    except ValueError:
        return kind(_one_of(value, [member.value for member in kind]))


def _one_of(value: object, allowed: Iterable[object]) -> object:
    if value not in allowed:
        names = [str(each) for each in allowed]
        raise FieldError(f"{shown(value)} is not {'one of ' if len(names) > 1 else ''}{', '.join(names)}")
    return value


def _scalar(value: object, kinds: list[type]) -> object:
    # By the exact type: to Python a bool is an int as well, to a person `parallelism: true` is a mistake.
    if type(value) not in kinds:
        *names, last = [_TYPE_NAMES[kind] for kind in kinds]
        raise _mismatch(value, f"{', '.join(names)} or {last}" if names else last)
    return value


def _decode_memory(value: object) -> int:
    if type(value) not in (str, int):
        raise _mismatch(value, "a memory size such as 64 kb")
    try:
        return parse_memory(str(value))
    except InvalidInput as error:
        raise FieldError(str(error)) from None


def _decode_one_or_more(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list | tuple):
        raise _mismatch(value, "a string or a list of strings")
    return tuple(_at(i, _scalar, item, [str]) for i, item in enumerate(value))


_FORMATS: Mapping[str, Callable[[object], object]] = {"memory": _decode_memory, "one-or-more": _decode_one_or_more}


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise _mismatch(value, "a mapping")
    for key in value:
        if not isinstance(key, str):
            raise FieldError(f"the key {shown(key)} is not a string")
    return value


def _list(value: object) -> list[object] | tuple[object, ...]:
    if not isinstance(value, list | tuple):
        raise _mismatch(value, "a list")
    return value


def _at(step: str | int, function: Callable[[object, Any], Any], value: object, argument: Any) -> Any:
    try:
        return function(value, argument)
    except FieldError as error:
        raise error.under(step) from None


def _mismatch(value: object, expected: str) -> FieldError:
    quote = "; quote it" if expected == "a string" and isinstance(value, bool | int | float) else ""
    return FieldError(f"expected {expected}, got {_described(value)}{quote}")


def _described(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str():
            return f"the string {shown(value)}"
        case int() | float():
            return f"the number {shown(value)}"
        case Mapping():
            return "a mapping"
        case list() | tuple():
            return "a list"
    return f"a {type(value).__name__}"


def _expected(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " or ".join(str(value) for value in get_args(annotation))
    return _TYPE_NAMES.get(annotation, "a mapping")
