"""Which backend a URL wants."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from flinkjob.api.errors import UnsupportedStorage
from flinkjob.oplog.filesystem import open_filesystem, scheme_of
from flinkjob.oplog.storage import open_directory, open_medium


@pytest.mark.parametrize(
    ("url", "scheme"),
    [
        ("/a/b", None),
        ("a", None),
        ("file:/a", "file"),
        ("file:///a", "file"),
        ("s3://b/c", "s3"),
        ("hdfs://n:1/c", "hdfs"),
    ],
)
def test_the_scheme_of_a_url(url: str, scheme: str | None) -> None:
    assert scheme_of(url) == scheme


def test_one_instance_serves_a_store() -> None:
    one, path = open_filesystem("memory://a/b")
    other, _ = open_filesystem("memory://c")
    assert one is other
    assert path == "/a/b"


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        ("s3://bucket/ha", "s3fs", "flinkjob-operator[s3]"),
        ("s3a://bucket/ha", "s3fs", "flinkjob-operator[s3]"),
        ("gs://bucket/ha", "gcsfs", "flinkjob-operator[gcs]"),
        ("abfs://container/ha", "adlfs", "flinkjob-operator[azure]"),
        ("hdfs://namenode:8020/ha", "hdfs_native", "flinkjob-operator[hdfs]"),
        ("oss://bucket/ha", "ossfs", "ossfs"),
    ],
)
def test_a_backend_that_is_not_installed_is_named_by_its_extra(url: str, module: str, extra: str) -> None:
    program = f"""
import sys
sys.modules[{module!r}] = None
from flinkjob.api.errors import UnsupportedStorage
from flinkjob.oplog.storage import JobStorage
from flinkjob.taskmanager.storage import open_storage
for use in (lambda: JobStorage({url!r}).medium(), JobStorage({url!r}).read_result, lambda: open_storage({url!r})):
    try:
        use()
    except UnsupportedStorage as error:
        print(error)
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert len(told.splitlines()) == 3
    for line in told.splitlines():
        assert "is not installed" in line
        assert extra in line


def test_a_scheme_that_does_not_exist_is_refused_as_such() -> None:
    with pytest.raises(UnsupportedStorage, match=r"htfs:// is no scheme that fsspec knows; supported are a local path"):
        open_filesystem("htfs://namenode/ha")


@pytest.mark.parametrize("use", [open_filesystem, open_medium, open_directory])
def test_a_url_that_the_backend_does_not_take_is_refused(use: Callable[[str], object]) -> None:
    with pytest.raises(UnsupportedStorage, match=r"'hdfs://namenode:port/ha' cannot be used as a storage"):
        use("hdfs://namenode:port/ha")
