"""The certificates of a job: an authority of its own, and one certificate for all JobManagers and one for all TaskManagers.

Nothing here reads a clock or keeps anything: what is there goes in, and what should be there comes out.

An authority is a list of generations, the newest last. A generation is trusted from the moment it exists and signs only
`OVERLAP` later, when every pod's mounted Secret has it; it stays trusted as long as it is valid. So no two processes ever
meet of which one does not know the other's authority, and a rotation needs no restart.

A JobManager's certificate serves both ends of a connection, and names the JobManagers' DNS names; a TaskManager's is for
clients alone (RFC 5280, 4.2.1.12: extended key usage), so that nobody who has it can pose as a JobManager.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE = timedelta(days=365)
"""How long one generation of an authority is valid."""
CERTIFICATE_LIFE = timedelta(days=90)
"""How long a pod's certificate is valid."""
OVERLAP = timedelta(hours=1)
"""How long a new generation is only trusted. The kubelet brings a changed Secret into a running pod within two minutes."""
SKEW = timedelta(minutes=5)
"""By how much a certificate is valid before it is made: another node's clock may be behind."""

_MAX_COMMON_NAME = 64  # RFC 5280, ub-common-name


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key, both as PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Authority:
    """The generations of a job's authority, the oldest first; there is always one."""

    generations: tuple[KeyPair, ...]

    @property
    def bundle(self) -> bytes:
        """The certificates that a pod trusts, as PEM."""
        return b"".join(generation.certificate for generation in self.generations)

    @property
    def keys(self) -> bytes:
        """The private keys, as PEM, in the order of `bundle`."""
        return b"".join(generation.key for generation in self.generations)

    @classmethod
    def parse(cls, bundle: bytes, keys: bytes) -> "Authority | None":
        """The authority that was once written as `bundle` and `keys`; None where they are not that."""
        try:
            certificates = x509.load_pem_x509_certificates(bundle)
            loaded = [_load_key(pem) for pem in _split_keys(keys)]
        except ValueError:
            return None
        if not certificates or [x.public_key() for x in certificates] != [x.public_key() for x in loaded]:
            return None
        pairs = zip(certificates, loaded, strict=True)
        return cls(tuple(KeyPair(certificate.public_bytes(Encoding.PEM), _pem(key)) for certificate, key in pairs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """Whom a certificate is for.

    Attributes:
        common_name: its subject, for people.
        dns_names: the names under which clients call it.
        server: whether it may take the server's end of a connection.
    """

    common_name: str
    dns_names: tuple[str, ...]
    server: bool


def maintain_authority(present: Authority | None, *, name: str, now: datetime) -> Authority:
    """The authority as it should be: made, rotated when two thirds of the newest generation's life are over, and rid of
    what has expired. The very same object where nothing is to be done."""
    generations = present.generations if present else ()
    valid = tuple(x for x in generations if now < _load(x).not_valid_after_utc)
    if not valid or now >= _renewal(_load(valid[-1])):
        valid = (*valid, _new_authority(name, now))
    return present if present and valid == generations else Authority(valid)


def maintain_certificate(present: KeyPair | None, *, authority: Authority, role: Role, now: datetime) -> KeyPair:
    """The certificate as it should be: made anew where it is missing or unreadable, is not for that role, was not signed
    by the generation that signs now, or has two thirds of its life behind it. Else the very same object."""
    signer = _signer(authority, now)
    if present is not None and _serves(present, _load(signer), role, now):
        return present
    return _issue(signer, role, now)


def next_change(authority: Authority, certificates: tuple[KeyPair, ...], now: datetime) -> datetime:
    """When the authority or one of these certificates is to be looked at again."""
    newest = _load(authority.generations[-1])
    moments = [_renewal(newest), *(_renewal(_load(certificate)) for certificate in certificates)]
    moments += [_load(generation).not_valid_after_utc for generation in authority.generations]
    signs_from = newest.not_valid_before_utc + SKEW + OVERLAP
    if len(authority.generations) > 1 and now < signs_from:
        moments.append(signs_from)
    return min(moments)


def jobmanager_role(service: str, rest_service: str, namespace: str) -> Role:
    """The role of the JobManagers behind a headless Service, and one with an address of its own."""
    hosts = (f"{service}.{namespace}.svc", f"*.{service}.{namespace}.svc", f"{rest_service}.{namespace}.svc")
    names = (*hosts, *(f"{host}.cluster.local" for host in hosts))
    return Role(common_name=service, dns_names=names, server=True)


def taskmanager_role(name: str) -> Role:
    """The role of a job's TaskManagers."""
    return Role(common_name=name, dns_names=(name,), server=False)


def _signer(authority: Authority, now: datetime) -> KeyPair:
    """The newest generation that everybody knows; the first of all has nobody before it to wait for."""
    known = [x for x in authority.generations if _load(x).not_valid_before_utc + SKEW + OVERLAP <= now]
    return known[-1] if known else authority.generations[0]


def _serves(pair: KeyPair, issuer: x509.Certificate, role: Role, now: datetime) -> bool:
    try:
        certificate = _load(pair)
        if certificate.public_key() != _load_key(pair.key).public_key():
            return False
        certificate.verify_directly_issued_by(issuer)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except Exception:  # whatever is wrong with it, another one is needed
        return False
    return (
        tuple(names.get_values_for_type(x509.DNSName)) == role.dns_names
        and list(usage) == _usages(role)
        and now < _renewal(certificate)
    )


def _renewal(certificate: x509.Certificate) -> datetime:
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_before_utc + life * 2 / 3


def _new_authority(name: str, now: datetime) -> KeyPair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name)
    usage = x509.KeyUsage(
        **dict.fromkeys(("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"), False),
        **dict.fromkeys(("key_agreement", "encipher_only", "decipher_only"), False),
        **dict.fromkeys(("key_cert_sign", "crl_sign"), True),
    )
    builder = (
        _builder(subject, subject, key.public_key(), now, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return KeyPair(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM), _pem(key))


def _issue(signer: KeyPair, role: Role, now: datetime) -> KeyPair:
    issuer, issuer_key = _load(signer), _load_key(signer.key)
    key = ec.generate_private_key(ec.SECP256R1())
    life = min(CERTIFICATE_LIFE, issuer.not_valid_after_utc - now)
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        _builder(_name(role.common_name), issuer.subject, key.public_key(), now, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_usages(role)), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in role.dns_names]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    return KeyPair(builder.sign(issuer_key, hashes.SHA256()).public_bytes(Encoding.PEM), _pem(key))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usages(role: Role) -> list[x509.ObjectIdentifier]:
    return [ExtendedKeyUsageOID.SERVER_AUTH] * role.server + [ExtendedKeyUsageOID.CLIENT_AUTH]


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:_MAX_COMMON_NAME])])


def _load(pair: KeyPair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate)


def _load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an elliptic curve key")
    return key


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _split_keys(keys: bytes) -> list[bytes]:
    end = b"-----END PRIVATE KEY-----\n"
    return [part + end for part in keys.split(end) if part.strip()]
