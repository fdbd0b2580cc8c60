"""The removal of a job's data takes all of its runs, and nothing else."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from flinkjob.api.errors import UnsupportedStorage
from flinkjob.cli.storage import storage
from flinkjob.oplog.removal import remove_job_data
from flinkjob.oplog.storage import JobStorage

UID = "b2a1f0de-1111-4222-8333-444455556666"


def fill(storage_dir: str, *uids: str, name: str = "wordcount") -> None:
    for uid in uids:
        JobStorage.below(storage_dir, namespace="jobs", name=name, uid=uid).store_result(b"{}")


def results(storage_dir: str, *uids: str) -> list[bool]:
    found = (JobStorage.below(storage_dir, namespace="jobs", name="wordcount", uid=uid).read_result() for uid in uids)
    return [result is not None for result in found]


def remove(storage_dir: str) -> list[str]:
    return remove_job_data(storage_dir, namespace="jobs", name="wordcount", uid=UID)


def check_removal(storage_dir: str) -> None:
    own, others = (UID, f"{UID}-r1", f"{UID}-r12"), ("another-uid", f"{UID}0", f"{UID}-rx", f"x{UID}")
    fill(storage_dir, *own, *others)
    assert len(remove(storage_dir)) == 3
    assert results(storage_dir, *own) == [False] * 3
    assert results(storage_dir, *others) == [True] * 4
    assert remove(storage_dir) == []


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_on_a_file_system(tmp_path: Path, form: str) -> None:
    check_removal(form.format(tmp_path))


def test_on_an_object_store(s3_url: str) -> None:
    check_removal(s3_url)


def test_data_that_never_was_needs_no_removal(tmp_path: Path) -> None:
    assert remove(str(tmp_path / "nowhere")) == []


def test_a_store_that_cannot_be_had_is_named() -> None:
    with pytest.raises(UnsupportedStorage, match="nosuch"):
        remove("nosuch://bucket/jobs")


def test_the_command_says_what_it_has_removed(tmp_path: Path) -> None:
    fill(str(tmp_path), UID)
    arguments = ["delete", "--storage-dir", str(tmp_path), "--namespace", "jobs", "--name", "wordcount", "--uid", UID]
    first, second = (CliRunner().invoke(storage, arguments) for _ in range(2))
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert first.output == f"removed {tmp_path}/jobs/wordcount-{UID}\n"
    assert second.output.startswith("nothing is left of jobs/wordcount")
