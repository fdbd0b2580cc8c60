"""YAML reads as plain values, the same as for Kubernetes; tricks and slips are refused with their line."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flinkjob.api.errors import InvalidManifest
from flinkjob.api.yamltext import MAX_DEPTH, MAX_TEXT, MAX_VALUES, load_yaml

keys = st.text(st.characters(codec="utf-8"), max_size=80)
"""Even escaped they stay below the 1,024 characters that YAML allows a key on the line of its value."""
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(keys, inner),
    max_leaves=10,
)


@given(plain)
def test_what_json_says_yaml_reads(value: object) -> None:
    assert load_yaml(json.dumps([value])) == [value]


@given(st.text(st.sampled_from("ab:-[]{}&*!|>'\"#%@,? \n\t0<~")))
def test_any_text_is_refused_or_read_as_what_json_can_say(text: str) -> None:
    with contextlib.suppress(InvalidManifest):
        json.dumps(load_yaml(text), allow_nan=False)


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("yes", True),
        ("On", True),
        ("off", False),
        ("FALSE", False),
        ("tRUE", "tRUE"),
        ("y", "y"),
        ("12", 12),
        ("-12", -12),
        ("0x1F", 31),
        ("0o17", 15),
        ("017", 15),
        ("019", "019"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1.5e-3", 0.0015),
        (".nan", ".nan"),
        ("64 kb", "64 kb"),
        ("2024-01-01", "2024-01-01"),
        ("=", "="),
        ("'12'", "12"),
        ("!!str 12", "12"),
        ("!!float 1", 1.0),
    ],
)
def test_plain_scalars_read_as_for_kubernetes(scalar: str, value: object) -> None:
    loaded = load_yaml(f"[{scalar}]" if scalar else "[~]")
    assert loaded == [value]
    assert isinstance(loaded, list)
    assert type(loaded[0]) is type(value)


def test_an_escaped_surrogate_pair_is_one_character() -> None:
    assert load_yaml('"\\ud83d\\ude00"') == "\U0001f600"


def test_an_alias_stands_for_its_anchors_value() -> None:
    assert load_yaml("a: &x {b: 1}\nc: *x\n") == {"a": {"b": 1}, "c": {"b": 1}}


def test_empty_documents_do_not_count() -> None:
    assert load_yaml("---\na: 1\n---\n") == {"a": 1}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the text is empty"),
        ("# only a comment\n", "the text is empty"),
        ("a: 1\n---\nb: 2\n", "line 3: a second document begins here"),
        ("a: 1\nb: [1\n", "line 3, column 1: not valid YAML"),
        ("a: 1\n\tb: 2\n", "line 2, column 1: not valid YAML: found character"),
        ("a: *nowhere\n", "line 1, column 4: not valid YAML: found undefined alias 'nowhere'"),
        ("a: 1\nb: \x07\n", "line 2: not valid YAML: special characters are not allowed"),
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' appears twice (first in line 1)"),
        ("x: [{a: 1, a: 2}]\n", "line 1: the key 'a' appears twice in x[0] (first in line 1)"),
        ("1: a\n", "line 1: the key 1 is not a string; quote it"),
        ("on: a\n", "line 1: the key on is not a string; quote it"),
        ("? [a]\n: b\n", "line 1: a key has to be a string, not a list or a mapping"),
        ("a: &x {b: 1}\nc: {<<: *x}\n", "line 2: merge keys (<<) are not supported"),
        ("a: !!python/name:os.system ''\n", "line 1: '' cannot be read as !!python/name:os.system"),
        ("a: !!set {b}\n", "line 1: the tag !!set is not supported"),
        ("a: !mine [b]\n", "line 1: the tag !mine is not supported"),
        ("a: !!int abc\n", "line 1: 'abc' cannot be read as !!int"),
        ("a: !!float abc\n", "line 1: 'abc' cannot be read as !!float"),
        ("a: !!bool abc\n", "line 1: 'abc' cannot be read as !!bool"),
        ("a: 9223372036854775808\n", "line 1: the number '9223372036854775808' does not fit 64 bits"),
        (f"a: {'9' * 5000}\n", "does not fit 64 bits"),
        ("a: 1e999\n", "line 1: the number '1e999' is not finite"),
        ('a: "\\ud800"\n', "line 1: the string '\\ud800' holds half of a surrogate pair"),
        ("&a [*a]\n", f"nested deeper than {MAX_DEPTH} levels"),
        ("[" * 5000, f"nested deeper than {MAX_DEPTH} levels"),
        (
            "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
            f"line 1: lists and mappings are nested deeper than {MAX_DEPTH}",
        ),
        ("a" * (MAX_TEXT + 1), f"the text has {MAX_TEXT + 1} characters"),
    ],
)
def test_what_is_refused_is_named_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(InvalidManifest) as refused:
        load_yaml(text)
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)


def test_aliases_cannot_grow_a_small_text_without_bound() -> None:
    lines = ["- &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"- &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 6)]
    with pytest.raises(InvalidManifest, match=f"more than {MAX_VALUES} values"):
        load_yaml("\n".join(lines))


def test_the_deepest_allowed_nesting_is_read() -> None:
    assert load_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH)
