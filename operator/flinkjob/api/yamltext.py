"""The text of a YAML file becomes plain values: what JSON could say, and nothing that surprises.

Plain scalars read as Kubernetes reads them: null, booleans (``yes`` and ``off`` included), numbers; a date is a string.
A text can cost no more than its size suggests: its length, its depth and the number of its values are bounded, values
that come through aliases counted each time. A key given twice is refused, since one of its values would silently win.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

from flinkjob.api.errors import InvalidManifest
from flinkjob.api.fields import Step, render_path, shown

MAX_TEXT = 1 << 20
"""Longest text, in characters. Kubernetes itself stores no larger object."""

MAX_VALUES = 100_000
"""Most scalars, lists and mappings in one text, each use of an alias counted."""

MAX_DEPTH = 64
"""Deepest nesting of lists and mappings."""

_TAG = "tag:yaml.org,2002:"
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class _Loader(yaml.SafeLoader):
    """Composes nodes only, with implicit types of its own in place of YAML 1.1's dates, base-60 numbers and merges."""

    yaml_implicit_resolvers: dict[str, Any] = {}


def _resolve(name: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver(_TAG + name, re.compile(rf"(?:{pattern})\Z"), [*first])


_resolve("null", "~|null|Null|NULL|", "~nN")
_Loader.add_implicit_resolver(_TAG + "null", re.compile(r"\Z"), [""])
_resolve("bool", "|".join(f"{w}|{w.title()}|{w.upper()}" for w in _BOOLEANS), "tTfFyYnNoO")
_resolve("int", r"[-+]?(?:0|[1-9][0-9]*|0o?[0-7]+|0x[0-9a-fA-F]+)", "-+0123456789")
_resolve("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", "-+.0123456789")


def load_yaml(text: str) -> object:
    """The one document of `text` as mappings with string keys, lists, strings, numbers, booleans and None.

    Raises:
        InvalidManifest: it is no YAML, more or less than one document, or beyond one of the bounds; the message has
            the line.
    """
    if len(text) > MAX_TEXT:
        raise InvalidManifest(f"the text has {len(text)} characters; at most {MAX_TEXT} (1 MiB) are allowed")
    try:
        documents = list(_documents(text))
    except RecursionError:
        raise InvalidManifest(f"lists and mappings are nested deeper than {MAX_DEPTH} levels") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InvalidManifest(f"{line}not valid YAML: {error.problem or error.context}") from None
    except yaml.reader.ReaderError as error:
        line_number = text.count("\n", 0, error.position) + 1
        raise InvalidManifest(f"line {line_number}: not valid YAML: {error.reason}") from None
    if not documents:
        raise InvalidManifest("the text is empty; one YAML document is expected")
    if len(documents) > 1:
        line_number = documents[1].start_mark.line + 1
        raise InvalidManifest(f"line {line_number}: a second document begins here; exactly one is expected")
    return _Converter().convert(documents[0], ())


def _documents(text: str) -> Iterator[yaml.Node]:
    """The documents of the text, without empty ones such as a last ``---`` leaves."""
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is not None and not (node.tag == _TAG + "null" and node.value == ""):
                yield node
    finally:
        loader.dispose()


class _Converter:
    """Turns nodes into plain values, and counts them."""

    def __init__(self) -> None:
        self._values = 0

    def convert(self, node: yaml.Node, path: tuple[Step, ...]) -> object:
        self._values += 1
        if self._values > MAX_VALUES:
            raise _refusal(node, f"more than {MAX_VALUES} values, those that come through aliases included")
        if len(path) >= MAX_DEPTH and not isinstance(node, yaml.ScalarNode):
            raise _refusal(node, f"lists and mappings are nested deeper than {MAX_DEPTH} levels")
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.convert(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        raise _unsupported_tag(node)

    def _mapping(self, node: yaml.MappingNode, path: tuple[Step, ...]) -> dict[str, object]:
        values: dict[str, object] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            key = _key(key_node)
            if key in values:
                place = f" in {render_path(path)}" if path else ""
                raise _refusal(key_node, f"the key {shown(key)} appears twice{place} (first in line {lines[key]})")
            lines[key] = key_node.start_mark.line + 1
            values[key] = self.convert(value_node, (*path, key))
        return values


def _key(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise _refusal(node, "a key has to be a string, not a list or a mapping")
    key = _scalar(node)
    if not isinstance(key, str):
        raise _refusal(node, f"the key {node.value} is not a string; quote it")
    if key == "<<":
        raise _refusal(node, "merge keys (<<) are not supported; write the fields out")
    return key


def _scalar(node: yaml.ScalarNode) -> str | int | float | bool | None:
    text: str = node.value
    match node.tag.removeprefix(_TAG):
        case "str":
            return _string(node)
        case "null":
            return None
        case "bool" if text.lower() in _BOOLEANS:
            return _BOOLEANS[text.lower()]
        case "int":
            return _integer(node)
        case "float":
            return _float(node)
    raise _unsupported_tag(node)


def _string(node: yaml.ScalarNode) -> str:
    try:
        # JSON's escapes give a character beyond 16 bits in two halves; a half alone could never be written anywhere.
        return str(node.value).encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        problem = f"the string {shown(node.value)} holds half of a surrogate pair, which is no character"
        raise _refusal(node, problem) from None


def _integer(node: yaml.ScalarNode) -> int:
    sign = -1 if node.value.startswith("-") else 1
    digits = node.value.lstrip("+-").lower()
    try:
        base = 16 if digits.startswith("0x") else 8 if digits.startswith("0") and digits != "0" else 10
        number = sign * int(digits[:100], base)
    except ValueError:
        raise _unsupported_tag(node) from None
    if len(digits) > 100 or not -(2**63) <= number < 2**63:
        raise _refusal(node, f"the number {shown(node.value)} does not fit 64 bits")
    return number


def _float(node: yaml.ScalarNode) -> float:
    try:
        number = float(node.value)
    except ValueError:
        raise _unsupported_tag(node) from None
    if not math.isfinite(number):
        raise _refusal(node, f"the number {shown(node.value)} is not finite")
    return number


def _unsupported_tag(node: yaml.Node) -> InvalidManifest:
    tag = node.tag.replace(_TAG, "!!")
    if isinstance(node, yaml.ScalarNode):
        return _refusal(node, f"{shown(node.value)} cannot be read as {tag}; strings, numbers and booleans can")
    return _refusal(node, f"the tag {tag} is not supported; plain lists and mappings are")


def _refusal(node: yaml.Node, problem: str) -> InvalidManifest:
    return InvalidManifest(f"line {node.start_mark.line + 1}: {problem}")
