"""From a name to a function, and from an exception to words."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flinkjob.api.errors import InvalidInput, PartitionUnavailable, StorageError, TaskCancelled
from flinkjob.taskmanager.failures import MAX_CAUSE_BYTES, cut, describe_failure
from flinkjob.taskmanager.loading import load_function


@pytest.fixture(autouse=True)
def untouched_interpreter() -> Iterator[None]:
    """Modules and search path are put back."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.fixture
def modules(tmp_path: Path, write_module: Callable[[str, str], None]) -> Path:
    """A directory with modules of all kinds."""
    write_module("good_tasks", "class C:\n    @staticmethod\n    def f(): return 1\ndef f(): return 2\nvalue = 3\n")
    write_module("bad_syntax", "def f(:\n")
    write_module("bad_import", "import surely_not_installed\n")
    write_module("bad_value", "def helper():\n    raise ValueError('no\\nluck')\nhelper()\n")
    write_module("bad_exit", "raise SystemExit(3)\n")
    return tmp_path / "modules"


def test_functions_are_found_beside_the_manifest(modules: Path) -> None:
    assert load_function("good_tasks:f", modules)() == 2
    assert load_function("good_tasks:C.f", str(modules))() == 1
    assert sys.path.count(str(modules)) == 1


def test_installed_functions_need_no_directory() -> None:
    assert load_function("json:dumps", "")([1]) == "[1]"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("absent:f", "absent:f: there is no module 'absent' in {}"),
        ("absent.inner:f", "absent.inner:f: there is no module 'absent' in {}"),
        ("good_tasks:g", "good_tasks:g: module 'good_tasks' has no 'g'"),
        ("good_tasks:value", "good_tasks:value is a int, not a function"),
        ("bad_syntax:f", "bad_syntax:f: module 'bad_syntax' cannot be imported: SyntaxError: invalid syntax"),
        ("bad_import:f", "module 'bad_import' cannot be imported: ModuleNotFoundError: No module named 'surely_not"),
        ("bad_value:f", "bad_value:f: module 'bad_value' cannot be imported: ValueError: no"),
        ("bad_exit:f", "bad_exit:f: module 'bad_exit' exits when it is imported"),
    ],
)
def test_what_cannot_be_loaded_is_told_in_one_line(modules: Path, reference: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_function(reference, modules)
    assert message.format(modules) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_task_that_is_told_to_stop_while_its_module_is_imported_is_cancelled(
    modules: Path, write_module: Callable[[str, str], None]
) -> None:
    write_module("cancelled", "from flinkjob.api.errors import TaskCancelled\nraise TaskCancelled('stop')\n")
    with pytest.raises(TaskCancelled):
        load_function("cancelled:f", modules)


def test_a_failure_is_one_line_and_the_calls_that_led_there(modules: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_function("bad_value:f", modules)
    lines = describe_failure(caught.value).splitlines()
    assert lines[0] == str(caught.value)
    assert lines[1:] == [
        f"  {modules}/bad_value.py:3 in <module>: helper()",
        f"  {modules}/bad_value.py:2 in helper: raise ValueError('no\\nluck')",
    ]


def deep(level: int) -> None:
    if not level:
        raise KeyError("x" * 10_000)
    deep(level - 1)


def test_a_description_is_bounded_and_keeps_the_innermost_calls() -> None:
    with pytest.raises(KeyError) as caught:
        deep(200)
    text = describe_failure(caught.value)
    assert len(text.encode()) <= MAX_CAUSE_BYTES
    assert text.startswith("KeyError: 'xxx")
    assert 'raise KeyError("x" * 10_000)' in text.splitlines()[-1]


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_errors_of_the_project_need_no_calls() -> None:
    lost = PartitionUnavailable("partition x is missing", vertex=0, subtask=0)
    assert describe_failure(raised(lost)) == "partition x is missing"


def test_odd_exceptions_have_a_description_too() -> None:
    assert describe_failure(raised(SystemExit(3))).startswith("the task called sys.exit(3)")
    assert describe_failure(raised(ValueError())).startswith("ValueError")
    assert describe_failure(StorageError("disk\nfull")) == "disk"
    assert describe_failure(raised(ValueError("\ud800"))).startswith("ValueError: ?")


def test_cut_text_fits_and_shows_that_it_was_cut() -> None:
    assert cut("short", 5) == "short"
    assert cut("ééééé", 8) == "éé…"
    assert len(cut("é" * 100, 9).encode()) <= 9
