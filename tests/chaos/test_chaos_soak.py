"""A short soak: random faults, one after the other, on jobs in a row. ``make soak MINUTES=…`` is the long one."""

from pathlib import Path

import pytest

from .soak import soak


@pytest.mark.timeout(600)
def test_random_faults_lose_nothing_and_leave_nothing(tmp_path: Path) -> None:
    report = soak(seconds=10, seed=20, every=2.5, directory=tmp_path)
    assert not report.problems, str(report)
    assert report.finished_again == report.begun_twice == report.undue_restarts == 0
    assert report.faults.total() > 0
    assert list(tmp_path.iterdir()) == []
