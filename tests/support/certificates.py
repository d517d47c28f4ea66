"""Certificates for tests: an authority, and what it signs."""

import ssl
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)


class Authority:
    """A certificate authority that writes its files to a folder.

    Args:
        folder: The folder.
        name: The name of the authority and of its file.
    """

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self.folder = folder
        self.path = folder / f"{name}.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder(self._name, self._name, self._key.public_key(), x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def sign(
        self,
        file: str,
        *,
        name: Iterable[tuple[x509.ObjectIdentifier, str]] = (),
        alternatives: Iterable[x509.GeneralName] = (x509.IPAddress(IPv4Address("127.0.0.1")),),
        seconds: float = 86_400.0,
    ) -> Path:
        """Write a new certificate and its key into one file of the folder, replace an older one, and return its path.

        Args:
            file: The name of the file.
            name: The subject; none has the file's name as CN.
            alternatives: The alternative names.
            seconds: The time until the certificate ends.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = [x509.NameAttribute(oid, value) for oid, value in name]
        subject = subject or [x509.NameAttribute(NameOID.COMMON_NAME, file)]
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder(self._name, x509.Name(subject), key.public_key(), x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + timedelta(seconds=seconds))
        )
        if names := list(alternatives):
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        text = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        temporary = self.folder / f".{file}"
        temporary.write_bytes(text)
        return temporary.rename(self.folder / file)

    def client(self, certificate: Path | None = None) -> ssl.SSLContext:
        """Return the context of a client that trusts this authority, and has a certificate of its own or none."""
        context = ssl.create_default_context(cafile=self.path)
        if certificate is not None:
            context.load_cert_chain(certificate)
        return context
