"""The table of the cases that Blink and Flink tested: what it names is there, and what names a case is in it."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROWS = re.findall(r"^\| (?!case |-)(.+?) \| (.+) \|$", (TESTS / "lineage.md").read_text(), re.MULTILINE)
CASES = [case for case, _ in ROWS]
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def test_there_are_cases_and_each_is_told_once() -> None:
    assert len(CASES) > 50
    assert len(CASES) == len(set(CASES))


@pytest.mark.parametrize(("case", "here"), ROWS, ids=CASES)
def test_a_case_has_a_test_or_a_reason(case: str, here: str) -> None:
    named = NAMED.findall(here)
    assert named or here.startswith("does not apply: ")
    assert here.count("::") == len(named)
    for file, test in named:
        assert re.search(rf"^(async )?def {test}\(", (TESTS / file).read_text(), re.MULTILINE), f"{file} has no {test}"


def test_what_a_docstring_names_is_in_the_table() -> None:
    names = {case.rpartition(".")[2] for case in CASES}
    found = {
        name.rpartition(".")[2]
        for file in TESTS.rglob("test_*.py")
        for name in re.findall(r"``((?:\w+\.)?test[A-Z]\w+|\w+ITCase)``", file.read_text())
    }
    assert len(found) > 30
    assert found <= names
