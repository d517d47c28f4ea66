"""Change bytes at random, as a fuzzer does: bits, bytes, numbers, texts, parts of other inputs, and JSON values."""

import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson

BYTES_MAX: Final = 4096
CHANGES_MAX: Final = 4
NUMBER: Final = re.compile(rb"-?[0-9][0-9.eE+-]*")
# Texts at which parsers go wrong: borders of integers and floats, delimiters, and bytes that are not text.
TEXTS: Final = (
    b"0", b"-0", b"-1", b"1e400", b"1e-400", b"9007199254740993", b"18446744073709551616", b"9" * 400, b"0.1e23",
    b"NaN", b"-Infinity", b"null", b"true", b'"', b"\\", b"\\u0000", b"\\ud800", b"[", b"]", b"{", b"}", b",", b":",
    b"[[", b"]]", b"{}", b"[]", b'""', b"\r\n", b"\n", b"\r", b"\t", b" ", b"\0", b"\xff", b"\xef\xbb\xbf", b"\xc0\x80",
    b"\xed\xa0\x80", b"=", b";", b"%00", b"%", b"-", b"+", b".", b"e", b"_", b"chunked", b"Content-Length: 1\r\n",
    b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"\r\n\r\n",
)  # fmt: skip
# JSON values of every kind, and those at the limits of the parsers under test.
VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, 1, 2, 3, -1, 0.25, 0.5, -0.0, 1.5, 100, 101, 1e39, 1e308, float("nan"), 2**31, 2**53 + 1,
    2**63, 2**64, 10**400, "", "a", "b", "0", "1", "features", "x" * 300, "\0", "\u00fc", [], [[]], {}, {"a": 1}, [0],
    [1, 2], [1, 2, 3, 4], [[1, 2, 3, 4]], [0.5, 0.25, 0.25], ["setosa"], ["a"], [True], ["a", "b", "c", "d"],
)  # fmt: skip
# Names of members that some parser knows.
NAMES: Final = (
    "id", "instances", "inputs", "labels", "weights", "tokens", "top", "min_seq", "feedback_tokens", "parameters",
    "outputs", "name", "shape", "datatype", "data", "binary_data_size", "binary_data_output", "classification", "head",
    "logits", "odds", "temperature", "columns", "index", "dataframe_split", "dataframe_records", "stage", "thresholds",
    "delta", "calibration", "training", "learning", "keys", "scopes", "models", "secrets", "limits", "revoked",
)  # fmt: skip
CONTAINERS: Final = (dict, list)
# The probability that a change goes into a list or an object, and does not replace it.
DESCENT: Final = 0.8


class Mutator:
    """Makes inputs of a corpus.

    Args:
        seed: The seed of every choice.
        corpus: The inputs to start from; others may be appended.
    """

    def __init__(self, seed: int, corpus: Sequence[bytes]) -> None:
        self._random: Final = random.Random(seed)
        self.corpus: Final = list(corpus)
        self._operations: Final[tuple[Callable[[bytes], bytes], ...]] = (
            self._flip, self._replace, self._insert_bytes, self._insert_text, self._insert_text, self._remove,
            self._repeat, self._cut, self._splice, self._replace_number, *[self._change_document] * 5,
        )  # fmt: skip

    def next(self) -> bytes:
        """Return an input of the corpus with one to CHANGES_MAX changes."""
        data = self._random.choice(self.corpus)
        for _ in range(self._random.randint(1, CHANGES_MAX)):
            data = self._random.choice(self._operations)(data)
        return data[:BYTES_MAX]

    def _place(self, data: bytes) -> int:
        return self._random.randint(0, len(data))

    def _flip(self, data: bytes) -> bytes:
        """Flip one bit."""
        at = self._place(data)
        return data[:at] + bytes(byte ^ 1 << self._random.randrange(8) for byte in data[at : at + 1]) + data[at + 1 :]

    def _replace(self, data: bytes) -> bytes:
        """Replace one byte by any other."""
        at = self._place(data)
        return data[:at] + self._random.randbytes(1) + data[at + 1 :]

    def _insert_bytes(self, data: bytes) -> bytes:
        """Insert up to eight random bytes."""
        at = self._place(data)
        return data[:at] + self._random.randbytes(self._random.randint(1, 8)) + data[at:]

    def _insert_text(self, data: bytes) -> bytes:
        """Insert a text of the list."""
        at = self._place(data)
        return data[:at] + self._random.choice(TEXTS) + data[at:]

    def _remove(self, data: bytes) -> bytes:
        """Remove a part."""
        at = self._place(data)
        return data[:at] + data[at + self._random.randint(1, 16) :]

    def _repeat(self, data: bytes) -> bytes:
        """Repeat a part up to a hundred times."""
        at, size = self._place(data), self._random.randint(1, 16)
        return data[:at] + data[at : at + size] * self._random.choice((2, 2, 3, 10, 100)) + data[at + size :]

    def _cut(self, data: bytes) -> bytes:
        """Remove the end."""
        return data[: self._place(data)]

    def _splice(self, data: bytes) -> bytes:
        """Continue with the end of another input."""
        other = self._random.choice(self.corpus)
        return data[: self._place(data)] + other[self._place(other) :]

    def _replace_number(self, data: bytes) -> bytes:
        """Replace a number by a text of the list."""
        found = list(NUMBER.finditer(data))
        if not found:
            return self._insert_text(data)
        match = self._random.choice(found)
        return data[: match.start()] + self._random.choice(TEXTS) + data[match.end() :]

    def _change_document(self, data: bytes) -> bytes:
        """Change a value of the JSON in an input, so that it stays JSON."""
        start, stop = data.find(b"{"), data.rfind(b"}") + 1
        try:
            document = orjson.loads(data[start:stop])
        except orjson.JSONDecodeError:
            return self._insert_text(data)
        self._change_value(document)
        return data[:start] + json.dumps(document).encode() + data[stop:]

    def _change_value(self, node: Any) -> None:
        """Replace, remove, repeat or add a value somewhere in a list or an object."""
        keys = list(node) if type(node) is dict else range(len(node))
        value = self._random.choice(VALUES)
        if not keys or self._random.randrange(8) == 0:
            self._add(node, value)
            return
        key = self._random.choice(keys)
        if isinstance(node[key], CONTAINERS) and self._random.random() < DESCENT:
            self._change_value(node[key])
            return
        action = self._random.randrange(4)
        if action == 0:
            del node[key]
        elif action == 1:
            self._add(node, node[key])
        else:
            node[key] = value

    def _add(self, node: Any, value: Any) -> None:
        """Add a value to a list, or to an object under a name that some parser knows."""
        if type(node) is list:
            node.append(value)
        else:
            node[self._random.choice(NAMES)] = value
