"""Decode rows in base64: `{"b64": "zczMPQAAIEA="}` has the numbers of one row as little-endian float32 or float16.

The number of bytes tells the two types apart: 4 N are float32, and 2 N are float16. The text is standard base64 (RFC
4648, section 4) with padding, without white space, and with zeros in the bits that padding leaves over. So a row has
one text in each type, and a damaged text is rejected.

A feature may have the name "b64" too. Its value is a number and never a text, so no row has two meanings.
"""

import string
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pybase64

from service.errors import UnacceptableError

KEY: Final = "b64"
QUOTED_KEY: Final = b'"b64"'
# The first key of a usual body starts within so many bytes.
START_BYTES: Final = 64
WHITE_SPACE: Final = b" \t\n\r"
# What is around the strings of a usual body with one row, and of one with several that are alike.
PUNCTUATION: Final = ([b"{", b":[{", b"}]}", b":"], [b"{", b":[{", b"}]}", b":", b"},{"])
# Bytes of a number, by its type.
ITEM_SIZES: Final = {"<f4": 4, "<f2": 2}
ALPHABET: Final = (string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/").encode()
# How a text may end, by its number of padding characters: two of them leave over four bits, one leaves over two.
ENDS: Final = tuple(
    frozenset(bytes([character]) + b"=" * padding for character in ALPHABET[:: 4**padding]) for padding in range(3)
)


def parse_base64(body: bytes, n_features: int, rows_max: int) -> tuple[bytes, str, int] | None:
    """Parse a body with nothing but instances, each of them base64; without JSON, which took three times as long.

    Returns:
        The bytes of the numbers, their type and the number of rows; None if unsure.
    """
    if body.find(QUOTED_KEY, 0, START_BYTES) < 0:
        return None
    # {"instances": [{"b64": "…"}, {"b64": "…"}]} has four parts for each row, and three around them.
    parts = body.split(b'"', 4 * rows_max + 2)
    if len(parts) % 4 != 3 or parts[1] != b"instances" or set(parts[3::4]) != {KEY.encode()}:  # noqa: PLR2004
        return None
    punctuation = (parts[0], parts[2], parts[-1], *set(parts[4::4]), *set(parts[6:-1:4]))
    if [part.translate(None, WHITE_SPACE) for part in punctuation] not in PUNCTUATION:
        return None
    texts = parts[5::4]
    decoded = decode_rows(texts, n_features)
    return None if decoded is None else (*decoded, len(texts))


def find_texts(records: Sequence[dict[str, Any]]) -> list[bytes] | None:
    """Return the texts of objects that have nothing but a text in base64, or None if one of them is another object."""
    if set(map(len, records)) != {1}:
        return None
    texts = [record.get(KEY) for record in records]
    return [text.encode() for text in texts] if set(map(type, texts)) == {str} else None  # type: ignore[union-attr]


def decode_rows(texts: Sequence[bytes], n_features: int) -> tuple[bytes, str] | None:
    """Decode the texts of rows.

    Args:
        texts: At least one text in base64.
        n_features: Numbers in a row, N.

    Returns:
        The bytes of all numbers and their type; None if a text is not a row of N numbers, or if the texts differ in
        type.
    """
    lengths = set(map(len, texts))
    for datatype, itemsize in ITEM_SIZES.items():
        size = itemsize * n_features
        padding = -size % 3
        if lengths == {(size + padding) // 3 * 4}:
            # Texts of this length that end so are rows, if they are base64 at all.
            ends = {text[-1 - padding :] for text in texts}
            return _decode(texts, datatype) if ENDS[padding].issuperset(ends) else None
    return None


def decode_row(text: bytes, i: int, n_features: int) -> list[float]:
    """Return the numbers of row `i`.

    Raises:
        UnacceptableError: The text is not a row of N numbers.
    """
    decoded = decode_rows([text], n_features)
    if decoded is None:
        raise _explain(text, i, n_features)
    row: list[float] = np.frombuffer(*decoded).tolist()
    return row


def _decode(texts: Sequence[bytes], datatype: str) -> tuple[bytes, str] | None:
    """Return the bytes of texts and their type, or None if a text is not base64."""
    try:
        return b"".join([pybase64.b64decode(text, validate=True) for text in texts]), datatype
    except ValueError:
        return None


def _explain(text: bytes, i: int, n_features: int) -> UnacceptableError:
    """Return the error of the text of row `i`, which is not a row."""
    try:
        data = pybase64.b64decode(text, validate=True)
    except ValueError:
        data = b""
    if pybase64.b64encode(data) != text:
        return UnacceptableError(
            f'The "{KEY}" of row {i} is not standard base64 with padding (RFC 4648, section 4: "+" and "/").'
        )
    single, half = (itemsize * n_features for itemsize in ITEM_SIZES.values())
    return UnacceptableError(
        f'The "{KEY}" of row {i} has {len(data)} bytes; this model takes {single} (float32) or {half} (float16).'
    )
