"""Container images out of single files, written as OCI image layouts (image-spec 1.1), which containerd imports.

Kubernetes' components are static programs, so an image of one is a layer with that file and a few lines of JSON.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.tools import architecture

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def write_image(target: Path, *, name: str, files: Mapping[str, Path], entrypoint: Sequence[str] = ()) -> None:
    """Write an image of these files as a tar file.

    Args:
        name: with its tag, as containerd is to know it.
        files: where each is to be in the image (without the leading slash), and where it is now. Links are followed.
    """
    layer = _layer(files)
    digest = _digest(layer)
    system = {"architecture": architecture(), "os": "linux"}
    config = _json(
        {
            **system,
            "config": {"Env": [f"PATH={PATH}"], "Entrypoint": list(entrypoint)},
            "rootfs": {"type": "layers", "diff_ids": [digest]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
        }
    )
    described = _descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
    index = {
        "schemaVersion": 2,
        "manifests": [{**described, "platform": system, "annotations": {"io.containerd.image.name": name}}],
    }
    with tarfile.open(target, "w") as tar:
        _add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(tar, "index.json", _json(index))
        for blob in (layer, config, manifest):
            _add(tar, f"blobs/sha256/{_digest(blob).removeprefix('sha256:')}", blob)


def _layer(files: Mapping[str, Path]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as tar:
        directory = tarfile.TarInfo("tmp")
        directory.type, directory.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(directory)
        for place, path in files.items():
            info = tar.gettarinfo(path, place)
            info.uid, info.gid, info.uname, info.gname, info.mtime = 0, 0, "", "", 0
            with path.open("rb") as file:
                tar.addfile(info, file)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
