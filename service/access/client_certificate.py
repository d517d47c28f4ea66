"""The names of a client's certificate, which stand for the client once the certificate is verified.

A name has a type and a value: those of the subject, such as CN and O, and those of the alternative names, which are
DNS, URI, IP and email.
"""

import ssl
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from service.access.actor_names import hashed_actor

# The short names of a subject's usual attributes (RFC 4514, section 3, and RFC 5280); others keep OpenSSL's names.
ATTRIBUTES: Final = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "userId": "UID",
}
ALTERNATIVES: Final = {"IP Address": "IP"}


class ClientCertificate(NamedTuple):
    """A certificate that the client CA has verified.

    Attributes:
        names: The type and the value of each name.
        expires: When it ends, in seconds since 1970.
    """

    names: frozenset[tuple[str, str]]
    expires: float

    def actor(self, key: bytes) -> str:
        """Return the name of the client in events and in the audit log; a renewed certificate has the same.

        Args:
            key: The key of such names (actor_names.py).
        """
        return hashed_actor("tls", key, *(part for name in sorted(self.names) for part in name))


def read_certificate(peer: Mapping[str, Any] | None) -> ClientCertificate | None:
    """Return the certificate that a handshake has verified, in the form of `SSLObject.getpeercert`; None if none."""
    if not peer:
        return None
    subject = [(ATTRIBUTES.get(kind, kind), value) for part in peer.get("subject", ()) for kind, value in part]
    others = [
        (ALTERNATIVES.get(kind, kind), value)
        for kind, value in peer.get("subjectAltName", ())
        if isinstance(value, str)  # a directory name is a structure of its own
    ]
    return ClientCertificate(frozenset((*subject, *others)), float(ssl.cert_time_to_seconds(peer["notAfter"])))
