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


def make_certificate(authority: Path, name: str) -> TlsFiles:
    """A certificate of the authority for this host name."""
    key, request, certificate = (authority / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
    extensions = authority / f"{name}.ext"
    extensions.write_text(f"subjectAltName=DNS:{name}\n")
    openssl(
        *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-subj", f"/CN={name}", "-keyout", key, "-out", request),
    )
    openssl(
        *("x509", "-req", "-in", request, "-CA", authority / "ca.pem", "-CAkey", authority / "ca.key"),
        *("-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", certificate),
    )
    return TlsFiles(certificate=str(certificate), key=str(key), authority=str(authority / "ca.pem"))
