"""Mutual TLS: both sides show a certificate of the cluster's own authority, and neither trusts any other.

TLS 1.3 only, since both ends are this program. The client also checks that the server's certificate is made for the host
name that it called.
"""

import ssl
from dataclasses import dataclass

from flinkjob.api.errors import InvalidInput


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Paths of PEM files: one's own certificate and key, and the authority that signed all of the cluster's."""

    certificate: str
    key: str
    authority: str


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """What a JobManager's server accepts connections with: only clients that the authority signed.

    Raises:
        InvalidInput: a file is missing or is not what it should be.
    """
    return _context(ssl.PROTOCOL_TLS_SERVER, files)


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """What a TaskManager connects with: only to servers that the authority signed, under their right names.

    Raises:
        InvalidInput: a file is missing or is not what it should be.
    """
    return _context(ssl.PROTOCOL_TLS_CLIENT, files)


def _context(protocol: int, files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        # A password is given, so that an encrypted key is an error and never a prompt.
        context.load_cert_chain(files.certificate, files.key, password="")
    except OSError as error:
        raise InvalidInput(
            f"TLS certificate {files.certificate} and key {files.key} cannot be used: {_reason(error)}"
        ) from None
    try:
        context.load_verify_locations(files.authority)
    except OSError as error:
        raise InvalidInput(f"TLS authority {files.authority} cannot be used: {_reason(error)}") from None
    return context


def _reason(error: OSError) -> str:
    # ssl.SSLError is an OSError whose reason is a constant such as KEY_VALUES_MISMATCH.
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not a PEM file").replace("_", " ").lower()
    return error.strerror or str(error)
