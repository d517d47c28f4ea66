"""Feedback tokens of format 1, as earlier releases issued them."""

import base64
import secrets
from hashlib import sha256

from cryptography.hazmat.primitives.ciphers.aead import AESGCM


def seal_format_1(  # noqa: PLR0917  # the parts of a token
    key: bytes, genesis: bytes, name: str, version: int, row: bytes, time_ms: int, id_: bytes | None = None
) -> str:
    """Return a token of format 1.

    Args:
        key: The key of the service.
        genesis: The genesis of the version's stream.
        name: The model's name.
        version: The version's number.
        row: The bytes of the row.
        time_ms: The time of issue, in milliseconds since 1970.
        id_: The 16 bytes of the id, or None for a random one.
    """
    if id_ is None:
        random = secrets.token_bytes(10)
        id_ = time_ms.to_bytes(6) + bytes([0x70 | random[0] & 15, random[1], 0x80 | random[2] & 63]) + random[3:]
    head = b"\x01" + sha256(b"softstep token key" + key).digest()[:4] + id_
    sealed = head + AESGCM(key).encrypt(id_, row, head + genesis + f"{name}/{version}".encode())
    return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()
