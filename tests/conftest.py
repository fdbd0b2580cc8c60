"""What tests of several rooms share: the servers of the stores that are no file systems, one of each for a session."""

from collections.abc import Iterator

import pytest

from stores.hadoop import Hdfs, HdfsMissing, hdfs_cluster
from stores.seaweed import BUCKET, s3_server


@pytest.fixture(scope="session")
def s3_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An S3 server, and the environment variables with which a process finds it; this one does already."""
    with s3_server(tmp_path_factory.mktemp("s3")) as environment:
        yield environment


@pytest.fixture
def s3_url(s3_environment: dict[str, str], request: pytest.FixtureRequest) -> str:
    """A place of the test's own on the S3 server."""
    return f"s3://{BUCKET}/{abs(hash(request.node.nodeid)):x}"


@pytest.fixture(scope="session")
def hdfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hdfs]:
    """A NameNode and a DataNode; skipped where there is no Java to run them."""
    try:
        with hdfs_cluster(tmp_path_factory.mktemp("hdfs")) as cluster:
            yield cluster
    except HdfsMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def hdfs_url(hdfs: Hdfs, request: pytest.FixtureRequest) -> str:
    """A place of the test's own in HDFS."""
    return f"{hdfs.url}/{abs(hash(request.node.nodeid)):x}"
