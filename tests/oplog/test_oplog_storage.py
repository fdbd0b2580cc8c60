"""A job's directory: its name, its URL, and what is written there once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flinkjob.api.errors import LogUnavailable, UnsupportedStorage
from flinkjob.oplog.append import AppendMedium
from flinkjob.oplog.object import ObjectMedium
from flinkjob.oplog.storage import JobStorage, is_local, local_path, open_directory, open_medium

names = st.text(min_size=0, max_size=300)


def test_the_directory_is_named_by_namespace_name_and_uid() -> None:
    storage = JobStorage.below("/ha", namespace="default", name="wordcount", uid="1-2-3")
    assert storage.url == "/ha/default/wordcount-1-2-3"
    assert storage.partitions_url == "/ha/default/wordcount-1-2-3/partitions"
    assert storage.checkpoints_url == "/ha/default/wordcount-1-2-3/checkpoints"


@given(namespace=names, name=names, uid=names)
def test_any_name_stays_within_the_storage_directory(namespace: str, name: str, uid: str) -> None:
    path = local_path(JobStorage.below("/ha/", namespace=namespace, name=name, uid=uid).url)
    assert len(path.parts) == 4
    assert path.parts[:2] == ("/", "ha")
    assert all(len(part) <= 255 for part in path.parts)


@given(one=names, other=names)
def test_different_names_are_different_directories(one: str, other: str) -> None:
    urls = {JobStorage.below("/ha", namespace="n", name=name, uid="u").url for name in (one, other)}
    assert len(urls) == len({one, other})


@pytest.mark.parametrize("name", [".", "..", "../../etc", "a/b", "a\x00b", "x" * 300, "ü" * 100])
def test_a_nasty_name_can_be_a_directory(tmp_path: Path, name: str) -> None:
    storage = JobStorage.below(str(tmp_path), namespace=name, name=name, uid="u")
    storage.store_job_graph(b"graph")
    assert len(list(tmp_path.glob("*/*/jobgraph"))) == 1


@pytest.mark.parametrize("url", ["/ha/job", "file:///ha/job", "file:/ha/job", "local:///ha/job", "/ha/x/../job/"])
def test_a_path_and_a_file_url_are_local(url: str) -> None:
    assert local_path(url) == Path("/ha/job")
    assert open_medium(url).location == "/ha/job"


def test_the_root_of_the_file_system_can_be_the_storage_directory() -> None:
    for root in ("/", "file:///"):
        assert local_path(JobStorage.below(root, namespace="n", name="a", uid="b").url) == Path("/n/a-b")


def test_a_relative_path_is_taken_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert local_path("ha/job") == tmp_path / "ha/job"


@pytest.mark.parametrize("url", ["hdfs://namenode:8020/ha", "s3://bucket/ha", "memory://ha", "htfs://a/b"])
def test_a_url_that_is_no_path_is_not_local(url: str) -> None:
    assert not is_local(url)
    with pytest.raises(UnsupportedStorage, match="is no path of this machine"):
        local_path(url)


def test_an_object_store_keeps_a_log() -> None:
    assert isinstance(open_medium("memory://ha/job"), ObjectMedium)
    assert open_medium("memory://ha/job").location == "memory://ha/job"


@pytest.mark.parametrize("use", [open_medium, open_directory, lambda url: JobStorage(url).read_job_graph()])
def test_a_scheme_that_does_not_exist_is_refused_as_such(use: Callable[[str], object]) -> None:
    with pytest.raises(UnsupportedStorage, match="htfs:// is no scheme that fsspec knows"):
        use("htfs://namenode/ha")


@pytest.mark.parametrize("url", ["file://host/ha", ""])
def test_a_malformed_url_is_refused(url: str) -> None:
    with pytest.raises(UnsupportedStorage):
        open_medium(url)


def test_looking_makes_nothing(job_url: str) -> None:
    storage = JobStorage(job_url)
    assert storage.read_job_graph() is None
    assert storage.read_result() is None
    assert storage.medium().segments() == []
    assert storage.medium().snapshots() == []
    if is_local(job_url):
        assert not local_path(job_url).exists()


def test_the_first_job_graph_wins(job_url: str) -> None:
    storage = JobStorage(job_url)
    assert storage.store_job_graph(b"first") == b"first"
    assert storage.store_job_graph(b"second") == b"first"
    assert JobStorage(job_url).read_job_graph() == b"first"
    assert storage.read_result() is None


def test_nothing_else_is_left_beside_it(tmp_path: Path) -> None:
    storage = JobStorage(f"file://{tmp_path}/job")
    storage.store_job_graph(b"first")
    storage.store_job_graph(b"second")
    assert [path.name for path in (tmp_path / "job").iterdir()] == ["jobgraph"]


def test_of_many_results_at_once_all_writers_get_the_same(job_url: str) -> None:
    results = [bytes([n]) * 10000 for n in range(8)]
    with ThreadPoolExecutor(4) as threads:
        stored = set(threads.map(lambda data: JobStorage(job_url).store_result(data), results))
    assert len(stored) == 1
    assert stored <= set(results)
    assert JobStorage(job_url).read_result() in stored


def test_a_store_that_fails_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    storage = JobStorage(str(tmp_path / "file/job"))
    with pytest.raises(LogUnavailable, match="file/job/result cannot be written"):
        storage.store_result(b"")
    with pytest.raises(LogUnavailable, match="file/job/jobgraph cannot be read"):
        storage.read_job_graph()


def test_the_log_lies_in_the_jobs_directory(tmp_path: Path) -> None:
    medium = JobStorage(str(tmp_path)).medium()
    assert isinstance(medium, AppendMedium)
    medium.claim()
    assert {path.name for path in tmp_path.iterdir()} == {"oplog", "snapshots"}
