"""An API key: its text, how it is made, and how a text is compared with what is stored.

    softstep_k7m2q9xd_<43 characters><6 characters>

    softstep_   the prefix, by which people and scanners of source code recognize a key
    k7m2q9xd    the id: 8 characters of base 32 in lower case; it names the key in lists, events and the audit log
    43          256 random bits in base 62, most significant digit first
    6           CRC-32 of everything before it in base 62, so that a mistyped key is refused without a look at the file

Only the SHA-256 of the text is stored. A secret of 256 random bits needs no slow hash, and no dictionary has it.
"""

import hmac
import re
import secrets
from binascii import crc32
from hashlib import sha256
from typing import Final, NamedTuple

PREFIX: Final = "softstep_"
# Digits and lower-case letters without those that look alike: 0 and o, 1 and l.
ID_ALPHABET: Final = "23456789abcdefghijkmnpqrstuvwxyz"
ID_SIZE: Final = 8
DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SECRET_BITS: Final = 256
SECRET_SIZE: Final = 43  # 62**43 > 2**256
CHECKSUM_SIZE: Final = 6  # 62**6 > 2**32
KEY: Final = re.compile(
    rf"{PREFIX}([{ID_ALPHABET}]{{{ID_SIZE}}})_[0-9A-Za-z]{{{SECRET_SIZE}}}([0-9A-Za-z]{{{CHECKSUM_SIZE}}})".encode()
)


class ApiKey(NamedTuple):
    """A key: its id and its whole text, which is shown once."""

    id: str
    text: str


def make_key(key_id: str | None = None) -> ApiKey:
    """Return a new random key, of a new id or of an existing one."""
    key_id = key_id or "".join(secrets.choice(ID_ALPHABET) for _ in range(ID_SIZE))
    body = f"{PREFIX}{key_id}_{_base62(secrets.randbits(SECRET_BITS), SECRET_SIZE)}"
    return ApiKey(key_id, body + checksum_of(body))


def checksum_of(body: str) -> str:
    """Return the end of the text of a key, from everything before it."""
    return _base62(crc32(body.encode()), CHECKSUM_SIZE)


def key_id_of(text: bytes) -> str | None:
    """Return the id in the text of a key, or None if it is no text of a key."""
    match = KEY.fullmatch(text)
    if match is None or match[2].decode() != checksum_of(text[:-CHECKSUM_SIZE].decode()):
        return None
    return match[1].decode()


def digest_of(text: bytes) -> bytes:
    """Return what is stored of the text of a key: 32 bytes."""
    return sha256(text).digest()


def is_same(digest: bytes, stored: bytes) -> bool:
    """Whether two digests are equal; it takes the same time wherever they differ."""
    return hmac.compare_digest(digest, stored)


def _base62(number: int, size: int) -> str:
    """Return a number in base 62, with leading zeros up to a size."""
    digits = []
    for _ in range(size):
        number, digit = divmod(number, len(DIGITS))
        digits.append(DIGITS[digit])
    return "".join(reversed(digits))
