"""Feedback tokens: a predicted row, encrypted, so that a client can post its label later without the row.

    offset  size  field
    0       1     format version, 1
    1       4     key id: the first bytes of SHA-256("softstep token key" ‖ key)
    5       16    id of the event that the token becomes, a UUID of version 7: its first 48 bits are the time of issue,
                  in milliseconds since 1970
    21      N·w   encrypted: the row in the model's dtype, little-endian, w bytes a number
    …       16    tag

The cipher is AES-256-GCM (NIST SP 800-38D) with the id as its nonce, which no two tokens share. It also authenticates
the first 21 bytes, the stream's genesis, and "name/version". So a token is valid for one model version only, in every
process and replica that has the key. Its text is base64url (RFC 4648, section 5) without padding; no other encoding of
the same bytes is accepted.

Anyone who has a token may post it any number of times; the log stores the event of its id once. Every invalid token
causes the same error, except a genuine token that is too old.
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

FORMAT_VERSION: Final = b"\x01"
KEY_ID_BYTES: Final = 4
TAG_BYTES: Final = 16
HEAD_BYTES: Final = 1 + KEY_ID_BYTES + ID_BYTES

ALPHABET: Final = bytes.maketrans(b"+/", b"-_")
# The inverse; characters outside the alphabet map to one that base64 rejects.
STANDARD: Final = bytes.maketrans(b"-_+/=", b"+/***")
CHARACTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

# These follow the token and its number, as in "Token 3 has expired".
INVALID_MESSAGE: Final = (
    "was altered, or another model version issued it; post it unchanged to the version that issued it."
)
EXPIRED_MESSAGE: Final = "has expired; post the row itself with its label."


class TokenKeys:
    """The keys of a service, each 32 bytes: the first encrypts, all decrypt.

    Attributes:
        prefix: The format version and the id of the first key, with which tokens begin.
        encrypt: Encrypts with the first key.
        decryptors: The decrypting function of each key, by its prefix.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        prefixed = [(FORMAT_VERSION + sha256(b"softstep token key" + key).digest()[:KEY_ID_BYTES], key) for key in keys]
        self.prefix: Final = prefixed[0][0]
        self.encrypt: Final = AESGCM(keys[0]).encrypt
        self.decryptors: Final = {prefix: AESGCM(key).decrypt for prefix, key in prefixed}


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
        self._authenticated = genesis + f"{name}/{version}".encode()
        self._little = dtype.newbyteorder("<")
        self._row_bytes = n_features * dtype.itemsize
        size = HEAD_BYTES + self._row_bytes + TAG_BYTES
        self._characters = -(-size * 4 // 3)
        self._padding = b"=" * (-size % 3)
        # Valid last characters: their unused bits are 0.
        self._last_characters = CHARACTERS[:: (1, 16, 4)[size % 3]]
        self._milliseconds = int(seconds * 1000)
        self._now_ms = now_ms

    def seal_rows(self, X: Floats) -> list[str]:
        """Return a token for each row of X (B, N), in the model's dtype and C-contiguous."""
        rows = X.astype(self._little, copy=False).tobytes()
        size, authenticated = self._row_bytes, self._authenticated
        prefix, encrypt = self._keys.prefix, self._keys.encrypt
        tokens = []
        for row, id_ in enumerate(random_ids(len(X), self._now_ms())):
            head = prefix + id_
            tokens.append(_encode_text(head + encrypt(id_, rows[row * size : (row + 1) * size], head + authenticated)))
        return tokens

    def open_token(self, token: str) -> tuple[bytes, Floats]:
        """Return the id of a token's event, as text, and its row X (1, N), read-only.

        The message of an error is a predicate; the caller puts the token's number before it.

        Raises:
            InvalidTokenError: The token was altered, or issued by another model version or with another key.
            ExpiredTokenError: The token is too old.
        """
        if len(token) != self._characters or token[-1] not in self._last_characters:
            raise InvalidTokenError(INVALID_MESSAGE)
        try:
            token_bytes = binascii.a2b_base64(token.encode().translate(STANDARD) + self._padding)
            head, id_ = token_bytes[:HEAD_BYTES], token_bytes[HEAD_BYTES - ID_BYTES : HEAD_BYTES]
            decrypt = self._keys.decryptors[token_bytes[: HEAD_BYTES - ID_BYTES]]
            row = decrypt(id_, token_bytes[HEAD_BYTES:], head + self._authenticated)
        except (LookupError, ValueError, InvalidTag):  # raised by the keys, by the encodings, and by the cipher
            raise InvalidTokenError(INVALID_MESSAGE) from None
        if self._now_ms() - int.from_bytes(id_[:TIME_BYTES]) > self._milliseconds:
            raise ExpiredTokenError(EXPIRED_MESSAGE)
        return id_text(id_), np.frombuffer(row, self._little).reshape(1, -1)


def _encode_text(token: bytes) -> str:
    """Encode a token as base64url without padding."""
    return binascii.b2a_base64(token, newline=False).rstrip(b"=").translate(ALPHABET).decode()
