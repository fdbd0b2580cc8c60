"""Input splits: byte ranges of files, and what an enumerator gives."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flinkjob.api.job import SplitsSpec
from flinkjob.graph.operations import InputSplit
from flinkjob.jobmanager.splits import _ranges, find_splits
from flinkjob.jobmanager.usercode import UserCodeFailed, build_vertices

ENUMERATORS = """
from flinkjob import JobGraphBuilder, Split

def numbers(args):
    for number in range(args["count"]):
        yield {"number": number}

def files(args):
    return [Split(path="/data/a", start=3, length=4)]

def broken(args):
    print("on the way")
    raise ValueError("no such table: words")

def no_iterable(args):
    return 7

def dies(args):
    import os
    os._exit(3)

def build(args):
    graph = JobGraphBuilder()
    a = graph.command("a", ["true"], parallelism=args["n"])
    graph.python("b", "tasks:b", inputs=[a.by_hash()])
    return graph
"""


@given(size=st.integers(0, 1 << 40), most=st.integers(1 << 20, 1 << 40))
def test_ranges_cover_the_file_once_and_none_is_too_long(size: int, most: int) -> None:
    ranges = list(_ranges("f", size, most))
    position = 0
    for split in ranges:
        assert split.start == position
        assert 0 < split.length <= most
        position += split.length
    assert position == size


async def test_files_are_cut_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes(b"x" * 10)
    (tmp_path / "a.txt").write_bytes(b"x" * 4)
    (tmp_path / "empty.txt").touch()
    (tmp_path / "other.md").write_bytes(b"x")
    (tmp_path / "dir.txt").mkdir()
    splits = await find_splits(SplitsSpec(files=("*.txt",), max_split_size=6), tmp_path)
    assert [(Path(s.path).name, s.start, s.length) for s in splits] == [
        ("a.txt", 0, 4),
        ("b.txt", 0, 5),
        ("b.txt", 5, 5),
    ]


async def test_without_a_size_each_file_is_one_split_and_two_patterns_name_it_once(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_bytes(b"x" * 4)
    splits = await find_splits(SplitsSpec(files=("**/*.txt", "sub/*")), tmp_path)
    assert [(s.start, s.length) for s in splits] == [(0, 4)]


async def test_files_of_another_file_system_are_found_by_url(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"abc")
    splits = await find_splits(SplitsSpec(files=(f"file://{tmp_path}/*.txt",)), tmp_path)
    assert [(s.path, s.length) for s in splits] == [(f"file://{tmp_path}/a.txt", 3)]


async def test_no_file_at_all_is_a_failure_that_names_the_pattern(tmp_path: Path) -> None:
    with pytest.raises(UserCodeFailed, match=r"no file matches \*\.csv"):
        await find_splits(SplitsSpec(files=("*.csv",)), tmp_path)


@pytest.fixture
def module_dir(tmp_path: Path) -> Path:
    (tmp_path / "enumerators.py").write_text(ENUMERATORS)
    return tmp_path


async def test_an_enumerator_gives_payloads_or_file_ranges(module_dir: Path) -> None:
    numbers = await find_splits(SplitsSpec(python="enumerators:numbers", args={"count": 2}), module_dir)
    assert numbers == (InputSplit(payload={"number": 0}), InputSplit(payload={"number": 1}))
    files = await find_splits(SplitsSpec(python="enumerators:files"), module_dir)
    assert files == (InputSplit("/data/a", 3, 4),)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("enumerators:broken", "ValueError: no such table: words"),
        ("enumerators:no_iterable", "must return the splits as an iterable; it returned int"),
        ("enumerators:dies", "ended with code 3"),
        ("enumerators:absent", "absent"),
        ("nowhere:numbers", "nowhere"),
    ],
)
async def test_an_enumerator_that_fails_says_why(module_dir: Path, function: str, reason: str) -> None:
    with pytest.raises(UserCodeFailed, match=reason):
        await find_splits(SplitsSpec(python=function), module_dir)


async def test_an_entrypoint_gives_the_vertices_that_it_built(module_dir: Path) -> None:
    vertices = await build_vertices("enumerators:build", {"n": 3}, module_dir)
    assert [(v.name, v.parallelism, [i.source for i in v.inputs]) for v in vertices] == [("a", 3, []), ("b", 1, ["a"])]
