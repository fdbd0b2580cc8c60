"""An HDFS for tests: a real NameNode and a real DataNode, from Maven's jars, which are fetched once into the user's cache."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stores.servers import end, free_ports, listens, server, wait_until

ARTIFACTS = (
    "org.apache.hadoop:hadoop-client-api:3.4.2",
    "org.apache.hadoop:hadoop-client-runtime:3.4.2",
    "org.apache.hadoop:hadoop-client-minicluster:3.4.2",
    "org.slf4j:slf4j-api:1.7.36",
    "org.slf4j:slf4j-simple:1.7.36",
    "commons-logging:commons-logging:1.2",
    "ch.qos.reload4j:reload4j:1.2.25",
    "junit:junit:4.13.2",
    "org.mockito:mockito-core:2.28.2",
    "org.bouncycastle:bcprov-jdk18on:1.78.1",
)
_NAMENODE = "org.apache.hadoop.hdfs.server.namenode.NameNode"
_DATANODE = "org.apache.hadoop.hdfs.server.datanode.DataNode"


class HdfsMissing(Exception):
    """HDFS cannot be run here; the text says what is missing."""


def jars() -> Path:
    """The directory with the jars.

    Raises:
        HdfsMissing: there is no Java or no Maven, or Maven could not fetch them.
    """
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            raise HdfsMissing(f"HDFS needs {program}, which is not installed")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flinkjob"
    directory = cache / "hadoop-3.4.2"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "hadoop.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            _fetch(directory)
    return directory


def _fetch(directory: Path) -> None:
    partial = directory.with_suffix(".partial")
    partial.mkdir(exist_ok=True)
    dependencies = "".join(f"<dependency>{_tags(artifact)}</dependency>" for artifact in ARTIFACTS)
    pom = partial / "pom.xml"
    pom.write_text(
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>flinkjob</groupId>'
        f"<artifactId>hdfs</artifactId><version>1</version><dependencies>{dependencies}</dependencies></project>"
    )
    command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", "-DexcludeTransitive=true"]
    done = subprocess.run([*command, f"-DoutputDirectory={partial}"], capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise HdfsMissing(f"Maven could not fetch Hadoop: {(done.stdout + done.stderr)[-300:]}")
    partial.rename(directory)


def _tags(artifact: str) -> str:
    names = ("groupId", "artifactId", "version")
    return "".join(f"<{name}>{text}</{name}>" for name, text in zip(names, artifact.split(":"), strict=True))


@dataclass
class Hdfs:
    """A running HDFS.

    Attributes:
        url: of its root. environment: what a process needs to reach it; this one has it already.
    """

    url: str
    environment: dict[str, str]
    _command: list[str]
    _log: Path
    _datanode: "subprocess.Popen[bytes]"
    _serves: Callable[[], bool]

    def kill_datanode(self) -> None:
        """kill -9 of the only DataNode: what it holds cannot be read or written until it is back."""
        end(self._datanode)

    def start_datanode(self) -> None:
        """Start it again, on what it has on its disk, and wait until it serves."""
        with self._log.open("ab") as log:
            self._datanode = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        wait_until(self._serves, self._datanode, self._log)

    def close(self) -> None:
        """End the DataNode that was started again."""
        end(self._datanode)


@contextmanager
def hdfs_cluster(directory: Path, *, address: str = "127.0.0.1") -> Iterator[Hdfs]:
    """A NameNode and a DataNode.

    Args:
        address: of this machine, that they listen on and are found by.

    Raises:
        HdfsMissing: they cannot be run here.
    """
    library = jars()
    rpc, http, data, data_http, data_ipc = free_ports(5)
    configuration = directory / "conf"
    configuration.mkdir()
    url = f"hdfs://{address}:{rpc}"
    _write(configuration / "core-site.xml", {"fs.defaultFS": url})
    site = {
        "dfs.replication": "1",
        "dfs.permissions.enabled": "false",
        "dfs.namenode.name.dir": f"file://{directory}/name",
        "dfs.datanode.data.dir": f"file://{directory}/data",
        "dfs.namenode.rpc-address": f"{address}:{rpc}",
        "dfs.namenode.http-address": f"{address}:{http}",
        "dfs.datanode.address": f"{address}:{data}",
        "dfs.datanode.http.address": f"{address}:{data_http}",
        "dfs.datanode.ipc.address": f"{address}:{data_ipc}",
        "dfs.datanode.hostname": address,
        "dfs.namenode.datanode.registration.ip-hostname-check": "false",
        "dfs.heartbeat.interval": "1",
        "dfs.namenode.safemode.extension": "0",
        "dfs.namenode.safemode.threshold-pct": "0",
    }
    _write(configuration / "hdfs-site.xml", site)
    java = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", f"{configuration}:{library}/*"]
    with (directory / "format.log").open("wb") as log:
        formatting = [*java, _NAMENODE, "-format", "-nonInteractive"]
        subprocess.run(formatting, stdout=log, stderr=log, stdin=subprocess.DEVNULL, check=True, timeout=120)
    before = os.environ.get("HADOOP_CONF_DIR")
    os.environ["HADOOP_CONF_DIR"] = str(configuration)
    log_file = directory / "datanode.log"
    try:
        with (
            server([*java, _NAMENODE], log=directory / "namenode.log", serves=lambda: listens(rpc, address)),
            server([*java, _DATANODE], log=log_file, serves=lambda: _writable(url)) as datanode,
        ):
            environment = {"HADOOP_CONF_DIR": str(configuration)}
            hdfs = Hdfs(url, environment, [*java, _DATANODE], log_file, datanode, lambda: listens(data, address))
            try:
                yield hdfs
            finally:
                hdfs.close()
    finally:
        if before is None:
            del os.environ["HADOOP_CONF_DIR"]
        else:
            os.environ["HADOOP_CONF_DIR"] = before


def _writable(url: str) -> bool:
    from hdfs_native import Client, WriteOptions

    try:
        with Client(url).create("/first", WriteOptions(overwrite=True)) as file:
            file.write(b"x")
    except (OSError, RuntimeError):
        return False
    return True


def _write(path: Path, properties: dict[str, str]) -> None:
    lines = [f"<property><name>{key}</name><value>{value}</value></property>" for key, value in properties.items()]
    path.write_text(f"<configuration>{''.join(lines)}</configuration>")
