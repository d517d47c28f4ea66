"""Feedback tokens: a row that was predicted, sealed, so that a client can send its label without the row.

    offset  size  field
    0       1     format version, 1
    1       4     key id: the first bytes of SHA-256("softstep token key" ‖ key)
    5       16    id of the event that the token becomes, a UUID of version 7: its first 48 bits are the time of issue,
                  in milliseconds since 1970
    21      N·w   sealed: the row in the model's dtype, little-endian, w bytes a number
    …       16    tag

AES-256-GCM (NIST SP 800-38D) with the id as its nonce, which no two tokens share. Authenticated with it are the first
21 bytes, the stream's genesis, and "name/version": a token fits one model version alone, in every process and replica
that has the key. Its text is base64url (RFC 4648, section 5) without padding, in the one form in which it was written.

A token is opened by anyone who has it, any number of times; its id makes the log count it once. Whatever is wrong with
a token, the answer is the same, but for one that is genuine and too old.
"""

import binascii
import os
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, Final

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from service.errors import ExpiredTokenError, InvalidTokenError

FORMAT_VERSION: Final = b"\x01"
KEY_ID_BYTES: Final = 4
ID_BYTES: Final = 16
TIME_BYTES: Final = 6
TAG_BYTES: Final = 16
HEAD_BYTES: Final = 1 + KEY_ID_BYTES + ID_BYTES
RANDOM_BYTES: Final = ID_BYTES - TIME_BYTES

ALPHABET: Final = bytes.maketrans(b"+/", b"-_")
# Back, and what is not of this alphabet to what is of none.
STANDARD: Final = bytes.maketrans(b"-_+/=", b"+/***")
CHARACTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

INVALID_MESSAGE: Final = (
    "A token is none of this model version's; send it as :predict gave it, to the version that gave it."
)
EXPIRED_MESSAGE: Final = "A token has expired; send the row itself with its label."

Floats = NDArray[np.floating[Any]]


class TokenKeys:
    """The keys of a service, each 32 bytes: the first one seals, and all of them open."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        named = [(FORMAT_VERSION + sha256(b"softstep token key" + key).digest()[:KEY_ID_BYTES], key) for key in keys]
        self.prefix: Final = named[0][0]
        self.seal: Final = AESGCM(keys[0]).encrypt
        self.openers: Final = {prefix: AESGCM(key).decrypt for prefix, key in named}


class TokenSealer:
    """Seals and opens the rows of one model version.

    Args:
        keys: The service's keys.
        name: The model's name.
        version: The version's number.
        genesis: Its stream's genesis, 32 bytes.
        n_features: Numbers of a row.
        dtype: The model's dtype.
        seconds: How long a token is taken.
        now_ms: Milliseconds since 1970.
    """

    def __init__(  # noqa: PLR0917  # what a token is bound to
        self,
        keys: TokenKeys,
        name: str,
        version: int,
        genesis: bytes,
        n_features: int,
        dtype: np.dtype[Any],
        seconds: float,
        now_ms: Callable[[], int],
    ) -> None:
        self._keys = keys
        self._bound = genesis + f"{name}/{version}".encode()
        self._little = dtype.newbyteorder("<")
        self._row_bytes = n_features * dtype.itemsize
        size = HEAD_BYTES + self._row_bytes + TAG_BYTES
        self._characters = -(-size * 4 // 3)
        self._padding = b"=" * (-size % 3)
        # What the last character can be: the bits in it that stand for no byte are 0.
        self._last = CHARACTERS[:: (1, 16, 4)[size % 3]]
        self._milliseconds = int(seconds * 1000)
        self._now_ms = now_ms

    def seal_rows(self, X: Floats) -> list[str]:
        """One token for each row of X (B, N) of the model's dtype, C-contiguous."""
        rows = X.astype(self._little, copy=False).tobytes()
        size, prefix, seal, bound = self._row_bytes, self._keys.prefix, self._keys.seal, self._bound
        tokens = []
        for row, id_ in enumerate(_new_ids(len(X), self._now_ms())):
            head = prefix + id_
            tokens.append(_text(head + seal(id_, rows[row * size : (row + 1) * size], head + bound)))
        return tokens

    def open_token(self, token: str) -> tuple[bytes, Floats]:
        """The id of the event that a token becomes, as text, and its row X (1, N), read-only.

        Raises:
            InvalidTokenError: It was not sealed with one of the keys for this model version, or is too old.
        """
        if len(token) != self._characters or token[-1] not in self._last:
            raise InvalidTokenError(INVALID_MESSAGE)
        try:
            sealed = binascii.a2b_base64(token.encode().translate(STANDARD) + self._padding)
            head, id_ = sealed[:HEAD_BYTES], sealed[HEAD_BYTES - ID_BYTES : HEAD_BYTES]
            row = self._keys.openers[sealed[: HEAD_BYTES - ID_BYTES]](id_, sealed[HEAD_BYTES:], head + self._bound)
        except (LookupError, ValueError, InvalidTag):  # of base64, of the text, of the key, of the seal
            raise InvalidTokenError(INVALID_MESSAGE) from None
        if self._now_ms() - int.from_bytes(id_[:TIME_BYTES]) > self._milliseconds:
            raise ExpiredTokenError(EXPIRED_MESSAGE)
        return _uuid_text(id_), np.frombuffer(row, self._little).reshape(1, -1)


def _text(sealed: bytes) -> str:
    """Base64url without padding."""
    return binascii.b2a_base64(sealed, newline=False).rstrip(b"=").translate(ALPHABET).decode()


def _new_ids(count: int, now_ms: int) -> list[bytes]:
    """UUIDs of version 7 of one moment, 74 random bits each (RFC 9562, section 5.7)."""
    fixed, random = now_ms << 80 | 0x7 << 76 | 0b10 << 62, os.urandom(RANDOM_BYTES * count)
    numbers = [int.from_bytes(random[at : at + RANDOM_BYTES]) for at in range(0, len(random), RANDOM_BYTES)]
    return [(fixed | (bits >> 68) << 64 | bits & (1 << 62) - 1).to_bytes(ID_BYTES) for bits in numbers]


def _uuid_text(id_: bytes) -> bytes:
    digits = id_.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}".encode()
