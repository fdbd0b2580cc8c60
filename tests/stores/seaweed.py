"""An S3 server for tests: SeaweedFS, which creates objects exclusively where a request asks for it (``If-None-Match``)."""

import contextlib
import json
import shutil
import socket
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import fsspec
import fsspec.config

from stores.servers import DEADLINE, end, free_ports, listens, server, wait_until

BUCKET = "flinkjob"
_FIRST = f"{BUCKET}/first"
KEY, SECRET = "key", "secret"


def weed() -> str:
    """The server's program."""
    return shutil.which("weed", path=sysconfig.get_path("scripts")) or "weed"


def identities() -> str:
    """The server's configuration: who may do what there."""
    identity = {"name": "test", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
    return json.dumps({"identities": [identity]})


@dataclass
class S3:
    """A running server.

    Attributes:
        environment: in which fsspec finds it; this process has it already.
    """

    environment: dict[str, str]
    _port: int
    _command: list[str]
    _log: Path
    _process: "subprocess.Popen[bytes]"

    def kill(self) -> None:
        """kill -9: nobody answers any more."""
        end(self._process)

    def asked_in_vain(self, times: int) -> None:
        """While it is dead: wait until so many connections to it have been attempted."""
        with socket.create_server(("127.0.0.1", self._port)) as door:
            door.settimeout(DEADLINE)
            for _ in range(times):
                door.accept()[0].close()

    def start(self) -> None:
        """Start it again, on what it has on its disk, and wait until it serves what it served before."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        wait_until(_serves, self._process, self._log)


def _serves() -> bool:
    """Whether it reads and writes: after a start it does the one before the other."""
    with contextlib.suppress(Exception):  # the backend lets errors of its libraries through
        filesystem = fsspec.filesystem("s3", skip_instance_cache=True)
        filesystem.pipe_file(f"{BUCKET}/again", filesystem.cat_file(_FIRST))
        return True
    return False


@contextmanager
def s3_server(directory: Path) -> Iterator[S3]:
    """A server with an empty bucket."""
    names = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc"]
    names += ["s3.port", "s3.port.grpc"]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    config = directory / "s3.json"
    config.write_text(identities())
    data = directory / "data"
    data.mkdir()
    command = [
        weed(),
        "server",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-filer",
        "-s3",
        "-volume.max=50",
    ]
    command += [f"-{name}={port}" for name, port in ports.items()]
    command += [f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
    environment = {
        "FSSPEC_S3_ENDPOINT_URL": f"http://127.0.0.1:{ports['s3.port']}",
        "FSSPEC_S3_KEY": KEY,
        "FSSPEC_S3_SECRET": SECRET,
    }
    log = directory / "weed.log"
    with server(command, log=log, serves=lambda: listens(ports["s3.port"])) as process:
        fsspec.config.set_conf_env(fsspec.config.conf, environment)
        filesystem = fsspec.filesystem("s3", skip_instance_cache=True)
        filesystem.mkdir(BUCKET)
        filesystem.pipe_file(_FIRST, b"the server makes its volumes now")
        s3 = S3(environment, ports["s3.port"], command, log, process)
        try:
            yield s3
        finally:
            s3.kill()
