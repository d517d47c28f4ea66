"""Feedback tokens: a predicted row, encrypted, so that a client can post its label later without the row.

    offset  size  field
    0       1     format version, 2 for a dense row, 3 for a sparse row
    1       4     key id: the first bytes of SHA-256("softstep token key" ‖ key)
    5       8     number of the model version that issued the token, little-endian
    13      16    id of the event that the token becomes, a UUID of version 7: its first 48 bits are the time of issue,
                  in milliseconds since 1970
    29      …     encrypted: numbers in the model's dtype, little-endian, w bytes each
                  format 2: N·w        the row
                  format 3: E·(4 + w)  columns (E,) uint32, little-endian, then values (E,)
    …       16    tag

Format 1, of earlier releases, has no number of a version, so its id is at offset 5. It is opened but not issued. All
tokens of a model version have the format of its rows.

The length of a token of format 3 tells how many entries the row has. No row has more than the encoder allows: with
65,536 entries of float32 a token has 699,111 characters. So tokens of long rows fit into bodies alone.

The cipher is AES-256-GCM (NIST SP 800-38D) with the id as its nonce, which no two tokens share. It also authenticates
the bytes before the row, the stream's genesis, and "name/version". So a token is valid for one model version only, in
every process and replica that has the key. Its text is base64url (RFC 4648, section 5) without padding; no other
encoding of the same bytes is accepted.

Anyone who has a token may post it any number of times; the log stores the event of its id once.
"""

import binascii
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from itertools import pairwise
from typing import Any, ClassVar, Final

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from service.errors import ExpiredTokenError, InvalidTokenError
from service.softmax.arrays import Floats
from service.softmax.sparse_rows import Rows, SparseRows
from service.store.log.ids import ID_BYTES, TIME_BYTES, id_text, random_ids

KEY_ID_BYTES: Final = 4
VERSION_BYTES: Final = 8
VERSION_AT: Final = 1 + KEY_ID_BYTES
TAG_BYTES: Final = 16
FORMAT_1, FORMAT_2, FORMAT_3 = 1, 2, 3
# The bytes before the row, by format version.
HEAD_BYTES: Final = {
    FORMAT_1: VERSION_AT + ID_BYTES,
    FORMAT_2: VERSION_AT + VERSION_BYTES + ID_BYTES,
    FORMAT_3: VERSION_AT + VERSION_BYTES + ID_BYTES,
}
COLUMN_DTYPE: Final = np.dtype("<i4")

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


class TokenCipher(ABC):
    """Encrypts and decrypts the tokens of one model version; subclasses know what a row is.

    Args:
        keys: The service's keys.
        name: The model's name.
        version: The version's number.
        genesis: The genesis of its stream, 32 bytes.
        n_features: Numbers in a row, or columns of a sparse row.
        dtype: The model's dtype.
        seconds: How long a token is valid.
        now_ms: Returns the time in milliseconds since 1970.
    """

    issued_format: ClassVar[int]
    opened_formats: ClassVar[frozenset[int]]

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
        self._start = bytes([self.issued_format]) + keys.key_id + version.to_bytes(VERSION_BYTES, "little")
        self._authenticated = genesis + f"{name}/{version}".encode()
        self._n_features = n_features
        self._little = dtype.newbyteorder("<")
        self._milliseconds = int(seconds * 1000)
        self._now_ms = now_ms

    @abstractmethod
    def seal_rows(self, rows: Any, /) -> list[str]:  # noqa: ANN401  # the form of rows that the model takes
        """Return a token for each row."""

    @abstractmethod
    def open_token(self, token: bytes) -> tuple[bytes, Rows]:
        """Return the id of a token's event, as text, and its row.

        Raises:
            InvalidTokenError: The token was altered, or issued by another model version or with another key.
            ExpiredTokenError: The token is too old.
        """

    @abstractmethod
    def _is_row(self, size: int) -> bool:
        """Return whether a row can have this number of bytes."""

    def _seal(self, rows: Iterable[bytes], count: int) -> list[str]:
        """Return a token for each of `count` rows, given the bytes that it encrypts."""
        start, encrypt, authenticated = self._start, self._keys.encrypt, self._authenticated
        tokens = []
        for id_, row in zip(random_ids(count, self._now_ms()), rows, strict=True):
            head = start + id_
            tokens.append(encode_token(head + encrypt(id_, row, head + authenticated)))
        return tokens

    def _open(self, token: bytes) -> tuple[bytes, bytes]:
        """Return the id of a token's event, as text, and the bytes of its row.

        Raises:
            InvalidTokenError: The token was altered, or issued by another model version or with another key.
            ExpiredTokenError: The token is too old.
        """
        try:
            head = token[: HEAD_BYTES[token[0]]]
            id_ = head[-ID_BYTES:]
            if token[0] not in self.opened_formats or not self._is_row(len(token) - len(head) - TAG_BYTES):
                raise InvalidTokenError(INVALID_MESSAGE)
            decrypt = self._keys.decryptors[head[1:VERSION_AT]]
            row = decrypt(id_, token[len(head) :], head + self._authenticated)
        except (LookupError, InvalidTag):  # raised by the formats and the keys, and by the cipher
            raise InvalidTokenError(INVALID_MESSAGE) from None
        if self._now_ms() - int.from_bytes(id_[:TIME_BYTES]) > self._milliseconds:
            raise ExpiredTokenError(EXPIRED_MESSAGE)
        return id_text(id_), row


class TokenSealer(TokenCipher):
    """Makes and opens the tokens of a model version with dense rows."""

    issued_format = FORMAT_2
    opened_formats = frozenset((FORMAT_1, FORMAT_2))

    def _is_row(self, size: int) -> bool:
        return size == self._n_features * self._little.itemsize

    def seal_rows(self, X: Floats) -> list[str]:
        """Return a token for each row of X (B, N), in the model's dtype and C-contiguous."""
        rows, size = X.astype(self._little, copy=False).tobytes(), self._n_features * self._little.itemsize
        return self._seal((rows[at : at + size] for at in range(0, len(rows), size)), len(X))

    def open_token(self, token: bytes) -> tuple[bytes, Floats]:
        """Return the id of a token's event, as text, and its row X (1, N), read-only.

        Args:
            token: The bytes of the token, as `decode_token` returns them.

        Raises:
            InvalidTokenError: The token was altered, or issued by another model version or with another key.
            ExpiredTokenError: The token is too old.
        """
        id_, row = self._open(token)
        return id_, np.frombuffer(row, self._little).reshape(1, -1)


class SparseTokenSealer(TokenCipher):
    """Makes and opens the tokens of a model version with sparse rows."""

    issued_format = FORMAT_3
    opened_formats = frozenset((FORMAT_3,))

    @property
    def _entry_bytes(self) -> int:
        return COLUMN_DTYPE.itemsize + self._little.itemsize

    def _is_row(self, size: int) -> bool:
        # Columns ascend, so there are at most as many entries as columns.
        entries, rest = divmod(size, self._entry_bytes)
        return not rest and 0 <= entries <= self._n_features

    def seal_rows(self, rows: SparseRows) -> list[str]:
        """Return a token for each row, with values in the model's dtype."""
        columns = rows.columns.astype(COLUMN_DTYPE, copy=False).tobytes()
        values = rows.values.astype(self._little, copy=False).tobytes()
        c, w = COLUMN_DTYPE.itemsize, self._little.itemsize
        ends = rows.ends.tolist()
        spans = pairwise([0, *ends])
        return self._seal((columns[c * at : c * end] + values[w * at : w * end] for at, end in spans), len(ends))

    def open_token(self, token: bytes) -> tuple[bytes, SparseRows]:
        """Return the id of a token's event, as text, and its row as one sparse row.

        Args:
            token: The bytes of the token, as `decode_token` returns them.

        Raises:
            InvalidTokenError: The token was altered, or issued by another model version or with another key.
            ExpiredTokenError: The token is too old.
        """
        id_, row = self._open(token)
        entries = len(row) // self._entry_bytes
        columns = np.frombuffer(row, COLUMN_DTYPE, entries).astype(np.int32)
        values = np.frombuffer(row, self._little, entries, COLUMN_DTYPE.itemsize * entries)
        return id_, SparseRows(np.array([entries]), columns, values.astype(self._little.newbyteorder("=")))


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
    if not token or token[0] not in {FORMAT_2, FORMAT_3}:
        return None
    return int.from_bytes(token[VERSION_AT : VERSION_AT + VERSION_BYTES], "little")
