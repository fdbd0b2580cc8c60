"""The certificates of an API server and of its users: elliptic curve keys, one authority, valid for a day."""

import base64
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_PKCS8 = serialization.PrivateFormat.PKCS8
_PEM = serialization.Encoding.PEM


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path

    def data(self) -> dict[str, str]:
        """Both as a kubeconfig's user holds them."""
        return {"client-certificate-data": encoded(self.certificate), "client-key-data": encoded(self.key)}


def encoded(path: Path) -> str:
    """A file in base64, as kubeconfigs want it."""
    return base64.b64encode(path.read_bytes()).decode()


class Authority:
    """An authority of its own, whose files go into one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests-authority")])
        certificate = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = directory / "ca.crt"
        self.certificate.write_bytes(certificate.public_bytes(_PEM))

    def issue(
        self,
        name: str,
        *,
        user: str,
        groups: Sequence[str] = (),
        hosts: Sequence[str] = (),
        addresses: Sequence[str] = (),
    ) -> Certificate:
        """A certificate that says who its holder is to Kubernetes (common name and organizations), or where it serves."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = [
            *(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups),
            x509.NameAttribute(NameOID.COMMON_NAME, user),
        ]
        usage = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = self._builder(x509.Name(subject), key.public_key()).add_extension(
            x509.ExtendedKeyUsage(usage), critical=False
        )
        if hosts or addresses:
            names = [*map(x509.DNSName, hosts), *(x509.IPAddress(ipaddress.ip_address(text)) for text in addresses)]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        issued = Certificate(self._directory / f"{name}.crt", self._directory / f"{name}.key")
        issued.certificate.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(_PEM))
        write_key(key, issued.key)
        return issued

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
        )


def write_key(key: ec.EllipticCurvePrivateKey, path: Path) -> None:
    """A private key as a file."""
    path.write_bytes(key.private_bytes(_PEM, _PKCS8, serialization.NoEncryption()))
    path.chmod(0o600)


def write_key_pair(private: Path, public: Path) -> None:
    """A new pair, such as service account tokens are signed with."""
    key = ec.generate_private_key(ec.SECP256R1())
    write_key(key, private)
    public.write_bytes(key.public_key().public_bytes(_PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
