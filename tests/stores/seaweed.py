"""An S3 server for tests: SeaweedFS, which creates objects exclusively where a request asks for it (``If-None-Match``)."""

import json
import shutil
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import fsspec.config

from stores.servers import free_ports, listens, server

BUCKET = "flinkjob"
_KEY, _SECRET = "key", "secret"


def weed() -> str:
    """The server's program."""
    return shutil.which("weed", path=sysconfig.get_path("scripts")) or "weed"


@contextmanager
def s3_server(directory: Path, *, bind: str = "127.0.0.1") -> Iterator[dict[str, str]]:
    """A server with an empty bucket; yields the environment in which fsspec finds it. In this process it does already.

    Args:
        bind: the address it listens on; 0.0.0.0 lets others than this machine reach it.
    """
    names = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc"]
    names += ["s3.port", "s3.port.grpc"]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    identity = {"name": "test", "credentials": [{"accessKey": _KEY, "secretKey": _SECRET}], "actions": ["Admin"]}
    config = directory / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    data = directory / "data"
    data.mkdir()
    command = [
        weed(),
        "server",
        f"-dir={data}",
        "-ip=127.0.0.1",
        f"-ip.bind={bind}",
        "-filer",
        "-s3",
        "-volume.max=50",
    ]
    command += [f"-{name}={port}" for name, port in ports.items()]
    command += [f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"]
    environment = {
        "FSSPEC_S3_ENDPOINT_URL": f"http://127.0.0.1:{ports['s3.port']}",
        "FSSPEC_S3_KEY": _KEY,
        "FSSPEC_S3_SECRET": _SECRET,
    }
    with server(command, log=directory / "weed.log", serves=lambda: listens(ports["s3.port"])):
        fsspec.config.set_conf_env(fsspec.config.conf, environment)
        filesystem = fsspec.filesystem("s3", skip_instance_cache=True)
        filesystem.mkdir(BUCKET)
        filesystem.pipe_file(f"{BUCKET}/first", b"the server makes its volumes now")
        yield environment
