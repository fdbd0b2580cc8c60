"""Certificates for tests, made by the openssl command."""

import subprocess
from pathlib import Path

from flinkjob.rpc.tls import TlsFiles


def openssl(*arguments: str | Path) -> None:
    """Run the openssl command."""
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def make_authority(directory: Path) -> Path:
    """An authority of its own, in a new directory."""
    directory.mkdir()
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
        *("-subj", "/CN=authority", "-keyout", directory / "ca.key", "-out", directory / "ca.pem"),
    )
    return directory


def make_certificate(authority: Path, name: str, *, usage: str = "") -> TlsFiles:
    """A certificate of the authority for this host name; ``usage`` is ``clientAuth``, ``serverAuth``, both or unlimited."""
    key, request, certificate = (authority / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
    extensions = authority / f"{name}.ext"
    extensions.write_text(f"subjectAltName=DNS:{name}\n" + (f"extendedKeyUsage={usage}\n" if usage else ""))
    openssl(
        *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-subj", f"/CN={name}", "-keyout", key, "-out", request),
    )
    openssl(
        *("x509", "-req", "-in", request, "-CA", authority / "ca.pem", "-CAkey", authority / "ca.key"),
        *("-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", certificate),
    )
    return TlsFiles(certificate=str(certificate), key=str(key), authority=str(authority / "ca.pem"))


def place(files: TlsFiles, directory: Path) -> TlsFiles:
    """Put a certificate, its key and its authority where a Secret is mounted, in the place of what is there."""
    directory.mkdir(exist_ok=True)
    mounted = TlsFiles.below(directory)
    for source, target in (
        (files.authority, mounted.authority),
        (files.key, mounted.key),
        (files.certificate, mounted.certificate),
    ):
        beside = Path(f"{target}.new")
        beside.write_bytes(Path(source).read_bytes())
        beside.replace(target)
    return mounted
