"""Mutual TLS: both sides show a certificate of the job's own authority, and neither trusts any other.

TLS 1.3 only, since both ends are this program. A client checks that the server's certificate is made for the host name that
it called, and OpenSSL on either side that a certificate is meant for the part which its owner plays: the one of a
TaskManager, which is for clients only, cannot pose as a JobManager.

Certificates are renewed while a job runs: the files are read again once they have changed. Connections that are open stay;
the next handshake uses what is in the files then, a new authority included. Files that cannot be used, since they are just
being replaced perhaps, leave things as they were.
"""

import logging
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flinkjob.api.errors import InvalidInput

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Paths of PEM files: one's own certificate and key, and the authority that signed all of the job's."""

    certificate: str
    key: str
    authority: str

    @classmethod
    def below(cls, directory: Path) -> "TlsFiles":
        """As a Secret of the type ``kubernetes.io/tls`` with a ``ca.crt`` is mounted."""
        return cls(
            certificate=str(directory / "tls.crt"), key=str(directory / "tls.key"), authority=str(directory / "ca.crt")
        )


class ServerTls:
    """What a JobManager's server accepts connections with: only clients that the authority signed.

    Attributes:
        context: for the server; it lasts, whatever becomes of the files.

    Raises:
        InvalidInput: a file is missing or is not what it should be.
    """

    def __init__(self, files: TlsFiles) -> None:
        current = _Reloaded(files, server_context)
        self.context = server_context(files)

        def switch(connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
            # OpenSSL calls this at the beginning of each handshake, also where the client names no host.
            connection.context = current.context()

        self.context.sni_callback = switch


class ClientTls:
    """What a TaskManager connects with: only to servers that the authority signed, under their right names.

    Raises:
        InvalidInput: a file is missing or is not what it should be.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._current = _Reloaded(files, client_context)

    def context(self) -> ssl.SSLContext:
        """For the next connection."""
        return self._current.context()


class _Reloaded:
    """A context made of files, and made anew once they have changed."""

    def __init__(self, files: TlsFiles, make: Callable[[TlsFiles], ssl.SSLContext]) -> None:
        self._files = files
        self._make = make
        self._seen = _state(files)
        self._context = make(files)

    def context(self) -> ssl.SSLContext:
        state = _state(self._files)
        if state != self._seen:
            self._seen = state
            try:
                self._context = self._make(self._files)
            except InvalidInput as error:
                logger.warning("%s; the certificates from before are used on", error)
            else:
                logger.info("new TLS certificates: %s", self._files.certificate)
        return self._context


def _state(files: TlsFiles) -> list[tuple[int, int, int] | None]:
    found: list[tuple[int, int, int] | None] = []
    for path in (files.certificate, files.key, files.authority):
        try:
            status = os.stat(path)
        except OSError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_mtime_ns, status.st_size))
    return found


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """A server's context of the files as they are now.

    Raises:
        InvalidInput: a file is missing or is not what it should be.
    """
    return _context(ssl.PROTOCOL_TLS_SERVER, files)


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """A client's context of the files as they are now.

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
