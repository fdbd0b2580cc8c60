"""An image of files is a layout whose digests hold, and which unpacks to these files."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

from cluster.ociimage import write_image


def blob(tar: tarfile.TarFile, digest: str) -> bytes:
    file = tar.extractfile(f"blobs/sha256/{digest.removeprefix('sha256:')}")
    assert file is not None
    content = file.read()
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == digest
    return content


def test_an_image_holds_its_files_and_names_itself(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("hello")
    program.chmod(0o755)
    (tmp_path / "link").symlink_to(program)
    files = {"usr/bin/program": program, "usr/bin/other": tmp_path / "link"}
    write_image(tmp_path / "image.tar", name="example.org/program:v1", files=files, entrypoint=["/usr/bin/program"])
    with tarfile.open(tmp_path / "image.tar") as tar:
        index = tar.extractfile("index.json")
        assert index is not None
        described = json.loads(index.read())["manifests"][0]
        assert described["annotations"] == {"io.containerd.image.name": "example.org/program:v1"}
        manifest = json.loads(blob(tar, described["digest"]))
        config = json.loads(blob(tar, manifest["config"]["digest"]))
        assert config["config"]["Entrypoint"] == ["/usr/bin/program"]
        assert config["rootfs"]["diff_ids"] == [manifest["layers"][0]["digest"]]
        with tarfile.open(fileobj=io.BytesIO(blob(tar, manifest["layers"][0]["digest"]))) as layer:
            for name in files:
                member = layer.getmember(name)
                assert member.isreg()
                assert (member.mode & 0o777, member.uid) == (0o755, 0)
                content = layer.extractfile(member)
                assert content is not None
                assert content.read() == b"hello"


def test_the_same_files_make_the_same_image(tmp_path: Path) -> None:
    (tmp_path / "program").write_text("hello")
    for name in ("one.tar", "two.tar"):
        write_image(tmp_path / name, name="program:v1", files={"program": tmp_path / "program"})
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
