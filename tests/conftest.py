"""What tests of several rooms share: Kubernetes' API server and those of object stores and HDFS, one each for a session."""

import os
import re
import secrets
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from kube.apiserver import ApiServer, ApiServerMissing, api_server
from stores.hadoop import Hdfs, HdfsMissing, hdfs_cluster
from stores.seaweed import BUCKET, S3, s3_server

# `make fuzz` and `make simulate` look for new examples. How long one takes says more of the machine than of the code.
settings.register_profile(
    "same examples every time", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same examples every time")


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """An S3 server."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_environment(s3: S3, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment variables with which processes started from now on find the S3 server; this one does already."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return s3.environment


@pytest.fixture
def s3_url(s3: S3, request: pytest.FixtureRequest) -> str:
    """A place of the test's own on the S3 server."""
    return f"s3://{BUCKET}/{abs(hash(request.node.nodeid)):x}"


@pytest.fixture(scope="session")
def hdfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hdfs]:
    """A NameNode and a DataNode; skipped where they cannot be run, unless HDFS_REQUIRED says that they have to be."""
    try:
        with hdfs_cluster(tmp_path_factory.mktemp("hdfs")) as cluster:
            yield cluster
    except HdfsMissing as missing:
        if os.environ.get("HDFS_REQUIRED"):
            raise
        pytest.skip(str(missing))


@pytest.fixture
def hdfs_url(hdfs: Hdfs, request: pytest.FixtureRequest) -> str:
    """A place of the test's own in HDFS."""
    return f"{hdfs.url}/{abs(hash(request.node.nodeid)):x}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever uses the API server or helm is marked so, before tests are selected by their marks."""
    for item in items:
        if {"apiserver", "helms"}.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.kube)


@pytest.fixture(scope="session")
def apiserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A real API server; skipped where its programs are not, unless KUBE_REQUIRED says that they have to be."""
    try:
        with api_server(tmp_path_factory.mktemp("kube")) as server:
            yield server
    except ApiServerMissing as missing:
        if os.environ.get("KUBE_REQUIRED"):
            raise
        pytest.skip(str(missing))


@pytest.fixture
def namespace(apiserver: ApiServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own on an API server that runs, whatever tests before it did."""
    apiserver.start_api()
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())
    name = f"{words[:40].strip('-')}-{secrets.token_hex(4)}"
    apiserver.make_namespace(name)
    yield name
    apiserver.start_api()
    apiserver.call("DELETE", f"/api/v1/namespaces/{name}")
