"""The house itself: where the package lies, and that it stands alone."""

import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_operator_is_a_source_root_and_no_package() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert list((ROOT / "operator").glob("*.py")) == []


def test_the_standard_librarys_operator_is_found_from_the_root() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", "import operator; print(operator.__file__)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(shown.stdout.strip()) == Path(sysconfig.get_path("stdlib")) / "operator.py"


def test_the_names_for_authors_of_jobs_can_be_imported_from_the_package() -> None:
    import flinkjob

    for name in flinkjob.__all__:
        assert getattr(flinkjob, name).__name__ == name
