"""The Secrets of a job: its authority, a certificate for each kind of pod, and the token for changes by REST.

Present Secrets go in, desired ones come out. What is in order is written again as it is, byte by byte, so that applying it
changes nothing.
"""

import secrets
from base64 import b64decode, b64encode
from binascii import Error
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from flinkjob.controller import names
from flinkjob.controller.certificates import (
    Authority,
    KeyPair,
    jobmanager_role,
    maintain_authority,
    maintain_certificate,
    next_change,
    taskmanager_role,
)
from flinkjob.controller.observed import Manifest, format_time

TLS_TYPE = "kubernetes.io/tls"
OPAQUE_TYPE = "Opaque"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Everything secret that a job has."""

    authority: Authority
    jobmanager: KeyPair
    taskmanager: KeyPair
    token: bytes

    def renew_at(self, now: datetime) -> datetime:
        """When they are to be looked at again."""
        return next_change(self.authority, (self.jobmanager, self.taskmanager), now)


def maintain(
    present: Mapping[str, Manifest],
    *,
    job: str,
    namespace: str,
    now: datetime,
    new_token: Callable[[], str] = lambda: secrets.token_urlsafe(32),
) -> Credentials:
    """The job's credentials as they should be; what is in order of the present ones stays.

    Args:
        present: the job's Secrets, by name.
        new_token: makes a token that cannot be guessed.
    """
    data = {name: _data(secret) for name, secret in present.items()}
    kept = data.get(names.authority(job), {})
    authority = maintain_authority(
        Authority.parse(kept.get("ca.crt", b""), kept.get("ca.key", b"")), name=f"{namespace}/{job}", now=now
    )
    roles = {
        names.jobmanager_tls(job): jobmanager_role(names.jobmanagers(job), names.rest_service(job), namespace),
        names.taskmanager_tls(job): taskmanager_role(names.taskmanagers(job)),
    }
    pairs = {}
    for name, role in roles.items():
        old = data.get(name, {})
        pair = KeyPair(old["tls.crt"], old["tls.key"]) if {"tls.crt", "tls.key"} <= old.keys() else None
        pairs[name] = maintain_certificate(pair, authority=authority, role=role, now=now)
    return Credentials(
        authority=authority,
        jobmanager=pairs[names.jobmanager_tls(job)],
        taskmanager=pairs[names.taskmanager_tls(job)],
        token=data.get(names.rest_token(job), {}).get("token") or new_token().encode(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What is in a Secret.

    Attributes:
        name: its name.
        type: its type.
        data: its values, base64.
        renew_at: when it is to be looked at again, RFC 3339.
    """

    name: str
    type: str
    data: dict[str, str]
    renew_at: str


def contents(credentials: Credentials, *, job: str, now: datetime) -> list[Content]:
    """The Secrets that hold them, in the order in which they are to be written: what is trusted before what relies on it."""
    bundle = credentials.authority.bundle
    renew_at = format_time(credentials.renew_at(now).timestamp() + 1)

    def content(name: str, type: str, data: Mapping[str, bytes]) -> Content:
        encoded = {key: b64encode(value).decode() for key, value in data.items()}
        return Content(name=name, type=type, data=encoded, renew_at=renew_at)

    def tls(pair: KeyPair) -> dict[str, bytes]:
        return {"ca.crt": bundle, "tls.crt": pair.certificate, "tls.key": pair.key}

    return [
        content(names.authority(job), OPAQUE_TYPE, {"ca.crt": bundle, "ca.key": credentials.authority.keys}),
        content(names.jobmanager_tls(job), TLS_TYPE, tls(credentials.jobmanager)),
        content(names.taskmanager_tls(job), TLS_TYPE, tls(credentials.taskmanager)),
        content(names.rest_token(job), OPAQUE_TYPE, {"token": credentials.token}),
    ]


def _data(secret: Manifest) -> dict[str, bytes]:
    try:
        return {key: b64decode(value or "") for key, value in (secret.get("data") or {}).items()}
    except Error:
        return {}
