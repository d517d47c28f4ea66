"""Feedback tokens: a predicted row, encrypted, so that a client can post its label later without the row.

    offset  size  field
    0       1     format version, 2
    1       4     key id: the first bytes of SHA-256("softstep token key" ‖ key)
    5       8     number of the model version that issued the token, little-endian
    13      16    id of the event that the token becomes, a UUID of version 7: its first 48 bits are the time of issue,
                  in milliseconds since 1970
    29      N·w   encrypted: the row in the model's dtype, little-endian, w bytes a number
    …       16    tag

Format 1, of earlier releases, has no number of a version, so its id is at offset 5. It is opened but not issued.

The cipher is AES-256-GCM (NIST SP 800-38D) with the id as its nonce, which no two tokens share. It also authenticates
the bytes before the row, the stream's genesis, and "name/version". So a token is valid for one model version only, in
every process and replica that has the key. Its text is base64url (RFC 4648, section 5) without padding; no other
encoding of the same bytes is accepted.

Anyone who has a token may post it any number of times; the log stores the event of its id once.
"""

import binascii
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, Final

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from service.errors import ExpiredTokenError, InvalidTokenError
from service.softmax.arrays import Floats
from service.store.log.ids import ID_BYTES, TIME_BYTES, id_text, random_ids

KEY_ID_BYTES: Final = 4
VERSION_BYTES: Final = 8
VERSION_AT: Final = 1 + KEY_ID_BYTES
TAG_BYTES: Final = 16
FORMAT_1, FORMAT_2 = 1, 2
# The bytes before the row, by format version.
HEAD_BYTES: Final = {FORMAT_1: VERSION_AT + ID_BYTES, FORMAT_2: VERSION_AT + VERSION_BYTES + ID_BYTES}

ALPHABET: Final = bytes.maketrans(b"+/", b"-_")
# The inverse; characters outside the alphabet map to one that base64 does not have.
STANDARD: Final = bytes.maketrans(b"-_+/=", b"+/***")

# These follow the token and its number, as in "Token 3 has expired".
INVALID_MESSAGE: Final = "was altered, or another model or service issued it; post it unchanged to its model."
EXPIRED_MESSAGE: Final = "has expired; post the row itself with its label."


class TokenKeys:
    """The keys of a service, each 32 bytes: the first encrypts, all decrypt.

    Attributes:
        key_id: The id of the first key.
        encrypt: Encrypts with the first key.
        decryptors: The decrypting function of each key, by its id.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        named = [(sha256(b"softstep token key" + key).digest()[:KEY_ID_BYTES], key) for key in keys]
        self.key_id: Final = named[0][0]
        self.encrypt: Final = AESGCM(keys[0]).encrypt
        self.decryptors: Final = {key_id: AESGCM(key).decrypt for key_id, key in named}


class TokenSealer:
    """Makes and opens the tokens of one model version.

    Args:
        keys: The service's keys.
        name: The model's name.
        version: The version's number.
        genesis: The genesis of its stream, 32 bytes.
        n_features: Numbers in a row.
        dtype: The model's dtype.
        seconds: How long a token is valid.
        now_ms: Returns the time in milliseconds since 1970.
    """

    def __init__(  # noqa: PLR0917  # a token is bound to all of them
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
        self._start = bytes([FORMAT_2]) + keys.key_id + version.to_bytes(VERSION_BYTES, "little")
        self._authenticated = genesis + f"{name}/{version}".encode()
        self._little = dtype.newbyteorder("<")
        self._row_bytes = n_features * dtype.itemsize
        self._milliseconds = int(seconds * 1000)
        self._now_ms = now_ms

    def seal_rows(self, X: Floats) -> list[str]:
        """Return a token for each row of X (B, N), in the model's dtype and C-contiguous."""
        rows = X.astype(self._little, copy=False).tobytes()
        size, authenticated = self._row_bytes, self._authenticated
        start, encrypt = self._start, self._keys.encrypt
        tokens = []
        for row, id_ in enumerate(random_ids(len(X), self._now_ms())):
            head = start + id_
            tokens.append(encode_token(head + encrypt(id_, rows[row * size : (row + 1) * size], head + authenticated)))
        return tokens

    def open_token(self, token: bytes) -> tuple[bytes, Floats]:
        """Return the id of a token's event, as text, and its row X (1, N), read-only.

        Args:
            token: The bytes of the token, as `decode_token` returns them.

        Raises:
            InvalidTokenError: The token was altered, or issued by another model version or with another key.
            ExpiredTokenError: The token is too old.
        """
        try:
            head = token[: HEAD_BYTES[token[0]]]
            id_ = head[-ID_BYTES:]
            if len(token) != len(head) + self._row_bytes + TAG_BYTES:
                raise InvalidTokenError(INVALID_MESSAGE)
            decrypt = self._keys.decryptors[head[1:VERSION_AT]]
            row = decrypt(id_, token[len(head) :], head + self._authenticated)
        except (LookupError, InvalidTag):  # raised by the formats and the keys, and by the cipher
            raise InvalidTokenError(INVALID_MESSAGE) from None
        if self._now_ms() - int.from_bytes(id_[:TIME_BYTES]) > self._milliseconds:
            raise ExpiredTokenError(EXPIRED_MESSAGE)
        return id_text(id_), np.frombuffer(row, self._little).reshape(1, -1)


def encode_token(token: bytes) -> str:
    """Encode a token as base64url without padding."""
    return binascii.b2a_base64(token, newline=False).rstrip(b"=").translate(ALPHABET).decode()


def decode_token(text: str) -> bytes:
    """Return the bytes of a token's text.

    Raises:
        InvalidTokenError: The text is not what `encode_token` makes of any bytes.
    """
    try:
        token = binascii.a2b_base64(text.encode().translate(STANDARD) + b"=" * (-len(text) % 4))
    except ValueError:  # binascii.Error and UnicodeEncodeError are two
        raise InvalidTokenError(INVALID_MESSAGE) from None
    if encode_token(token) != text:
        raise InvalidTokenError(INVALID_MESSAGE)
    return token


def issuer_of(token: bytes) -> int | None:
    """Return the number of the version that a token names as its issuer, or None if its format has none."""
    if token[:1] != bytes([FORMAT_2]):
        return None
    return int.from_bytes(token[VERSION_AT : VERSION_AT + VERSION_BYTES], "little")
