"""The scanner accepts exactly its subset of JSON, returns correctly rounded numbers, and stays in its bounds.

The reference is Python's own parser, made strict and keeping the spelling of numbers.
"""

import json
import re
from decimal import Decimal

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.serve.wire.row_scanner import FALLBACK, scan_instances
from tests.support.budgets import examples
from tests.support.guarded_bytes import LastBytes
from tests.support.json_reference import reject_constant, unique_keys
from tests.support.reference import DTYPES, Array

GUARD = 0xA5
SPELLING = re.compile(r"-?(?P<whole>0|[1-9]\d*)(?:\.(?P<fraction>\d+))?(?:[eE](?P<power>[+-]?\d+))?", re.ASCII)
both_dtypes = pytest.mark.parametrize("dtype", DTYPES)
unhurried = settings(deadline=None, max_examples=examples(300))


class Spelled(str):
    """A number as written in the text; strings of the document are plain str."""

    __slots__ = ()


def is_short(text: str) -> bool:
    """Whether a text is a JSON number whose digits are at most 2**53 and whose exponent is small."""
    found = SPELLING.fullmatch(text)
    if found is None:
        return False
    fraction = found["fraction"] or ""
    exponent = Decimal(found["power"] or "0") - len(fraction)
    return Decimal(found["whole"] + fraction) <= 2**53 and -22 <= exponent <= 22


def reference(body: bytes, shape: tuple[int, int], dtype: type) -> Array | None:
    """The rows that the scanner must return for an `out` of that shape, or None if it must fall back."""
    try:
        document = json.loads(
            body.decode(),
            parse_int=Spelled,
            parse_float=Spelled,
            parse_constant=reject_constant,
            object_pairs_hook=unique_keys,
        )
    except (ValueError, RecursionError):
        return None
    if type(document) is not dict or document.keys() != {"instances"} or b'"instances"' not in body:
        return None
    rows = document["instances"]
    if type(rows) is not list or not 0 < len(rows) <= shape[0]:
        return None
    if any(type(row) is not list or len(row) != shape[1] for row in rows):
        return None
    if any(type(text) is not Spelled or not is_short(text) for row in rows for text in row):
        return None
    return np.array([[json.loads(text) for text in row] for row in rows], np.float64).astype(dtype)


def scanned(body: bytes, shape: tuple[int, int], dtype: type) -> Array | None:
    """The rows that the scanner returns, or None for FALLBACK; it must not write outside them."""
    rows, columns = shape
    surroundings = np.full((rows + 2, columns), 0, dtype)
    surroundings.view(np.uint8)[:] = GUARD
    count = scan_instances(body, surroundings[1 : rows + 1])
    assert 0 <= count <= rows
    assert (surroundings[0].view(np.uint8) == GUARD).all()
    assert (surroundings[-1].view(np.uint8) == GUARD).all()
    if count == FALLBACK:
        return None
    assert (surroundings[count + 1 :].view(np.uint8) == GUARD).all()
    return surroundings[1 : count + 1]


def check(body: bytes, shape: tuple[int, int], dtype: type) -> bool:
    """Compare the scanner with the reference, bit for bit; return whether it accepts."""
    expected, found = reference(body, shape, dtype), scanned(body, shape, dtype)
    assert (found is None) == (expected is None)
    if found is None or expected is None:
        return False
    assert (found.shape, found.tobytes()) == (expected.shape, expected.tobytes())
    general = np.array(orjson.loads(body)["instances"], np.float64).astype(dtype)
    assert found.tobytes() == general.tobytes()
    return True


def one(text: str) -> bytes:
    """A body of one number."""
    return b'{"instances":[[%b]]}' % text.encode()


# Numbers


SHORT = [
    "0", "1", "-1", "-0", "-0.0", "0.0", "0e0", "-0e0", "-0E-5", "1e5", "1E5", "1e+5", "1E-5", "1e00000005", "1e-0",
    "0.1", "0.3", "5.1", "-7.25", "123456789012345", "1234567890123456", "9007199254740991", "9007199254740992",
    "-9007199254740992", "900719925474099.2", "9.007199254740992", "8.999999999999999", "9007199254740992e22",
    "9007199254740992e-22", "1e22", "1e-22", "0.1e23", "1.0e-21", "123.456e-19",
    "0." + "0" * 21 + "1", "0.000001", "16777217", "16777217.000001", "3e-22", "0." + "0" * 22,
]  # fmt: skip
FALLBACKS = [
    "", "-", "+1", "01", "-01", "00", "00.5", "1.", ".5", "-.5", "1e", "1e+", "1e-", "1.e5", "1.5.5", "1e5.5", "1ee5",
    "--1", "- 1", "1 2", "1_0", "0x10", "1f", "\u0661", "1\x00", "NaN", "nan", "Infinity", "-Infinity", "inf", "true",
    "null", '"1"', "[]", "[1]", "{}", "9007199254740993", "9007199254740992.0", "900719925474099.21",
    "1234567890123456789", "12345678901234567890123", "0.12345678901234567", "1e23", "1e-23", "9007199254740992e23",
    "9007199254740992e-23", "0.1e24", "0e23", "0e-23", "1e101", "1e-101", "1e999", "1e9007199254740993",
    "1e18446744073709551621", "1e-18446744073709551615", "0." + "0" * 22 + "1", "1" + "0" * 16, "9" * 5000,
    "1e" + "9" * 5000, "0." + "1" * 5000,
]  # fmt: skip


@both_dtypes
@pytest.mark.parametrize("text", SHORT)
def test_short_numbers_are_accepted(text: str, dtype: type) -> None:
    """Every JSON number is accepted whose digits and exponent are exact in float64."""
    assert check(one(text), (1, 1), dtype)


@both_dtypes
@pytest.mark.parametrize("text", FALLBACKS, ids=lambda text: text[:25])
def test_other_numbers_fall_back(text: str, dtype: type) -> None:
    """Texts that are not JSON numbers fall back, and numbers whose digits or exponent are not exact."""
    assert not check(one(text), (1, 1), dtype)


digits = st.text("0123456789", min_size=1, max_size=20)
spellings = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "", "-", "+", "--"]),
        st.one_of(st.integers(0, 2**54).map(str), st.just("0"), digits, st.just("")),
        st.one_of(
            st.just(""), digits.map(".{}".format), st.integers(0, 30).map(lambda n: f".{'0' * n}1"), st.just(".")
        ),
        st.one_of(
            st.just(""),
            st.builds("{}{}{}".format, st.sampled_from("eE"), st.sampled_from(["", "+", "-"]), st.integers(0, 26)),
            st.sampled_from(["e", "E+", "e-", "e0000022", "e-0023", "e101"]),
        ),
    ),
)
numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(2**54), 2**54).map(str),
    st.builds("{}{}e{}".format, st.sampled_from(["", "-"]), st.integers(0, 2**53), st.integers(-24, 24)),
    st.builds(
        lambda whole, places: f"{whole[:-places]}.{whole[-places:]}",
        st.integers(10**15, 10**17).map(str),
        st.integers(1, 15),
    ),
)


@unhurried
@given(st.lists(st.one_of(spellings, numbers), min_size=1, max_size=4), st.sampled_from(DTYPES))
def test_numbers_match_the_reference(texts: list[str], dtype: type) -> None:
    """Integers, decimals, exponents and similar texts are accepted exactly if they are short numbers."""
    check(b'{"instances":[[%b]]}' % ",".join(texts).encode(), (1, len(texts)), dtype)


# Documents


spaces = st.text(" \t\n\r", max_size=3)


@st.composite
def documents(draw: st.DrawFn) -> tuple[bytes, tuple[int, int]]:
    """A body with white space wherever JSON allows it, and the shape of `out`, which mostly fits."""
    columns = draw(st.integers(1, 4))
    widths = draw(st.lists(st.sampled_from([columns] * 8 + [columns - 1, columns + 1]), min_size=1, max_size=4))
    tokens = ["{", '"instances"', ":", "["]
    for i, width in enumerate(widths):
        tokens += [","] * (i > 0) + ["["]
        for column in range(width):
            tokens += [","] * (column > 0) + [draw(numbers)]
        tokens.append("]")
    text = draw(spaces) + "".join(token + draw(spaces) for token in [*tokens, "]", "}"])
    return text.encode(), (max(1, len(widths) + draw(st.sampled_from([0, 0, 1, 3, -1]))), columns)


@unhurried
@given(documents(), st.sampled_from(DTYPES))
def test_white_space_and_shapes_match_the_reference(document: tuple[bytes, tuple[int, int]], dtype: type) -> None:
    """White space has no effect; ragged rows and more rows than `out` has fall back."""
    body, shape = document
    check(body, shape, dtype)


BODY = b' {"instances" :\t[[1, -2.5],\r\n[0.1e-3,40 ] ]}\n'
SHAPE = (3, 2)


@both_dtypes
def test_the_undamaged_body_is_accepted(dtype: type) -> None:
    """The tests below damage this body, so the scanner falls back because of the damage."""
    assert check(BODY, SHAPE, dtype)


@both_dtypes
def test_damage_of_one_byte_matches_the_reference(dtype: type) -> None:
    """Each byte is removed, doubled, replaced by every other, and preceded by every other."""
    for place in range(len(BODY) + 1):
        before, after = BODY[:place], BODY[place:]
        check(before + after[1:], SHAPE, dtype)
        check(before + after[:1] + after, SHAPE, dtype)
        for value in range(256):
            check(before + bytes([value]) + after, SHAPE, dtype)
            check(before + bytes([value]) + after[1:], SHAPE, dtype)


@unhurried
@given(st.integers(0, len(BODY)), st.integers(0, 12), st.binary(max_size=12), st.sampled_from(DTYPES))
def test_larger_damage_matches_the_reference(place: int, cut: int, damage: bytes, dtype: type) -> None:
    """Any bytes replace any part of the body."""
    check(BODY[:place] + damage + BODY[place + cut :], SHAPE, dtype)


@unhurried
@given(st.lists(st.tuples(st.integers(0, len(BODY)), st.integers(0, len(BODY))), max_size=3), st.sampled_from(DTYPES))
def test_moved_parts_match_the_reference(cuts: list[tuple[int, int]], dtype: type) -> None:
    """Parts of the body are repeated and left out."""
    body = BODY
    for start, end in cuts:
        body = body[:end] + body[start:]
    check(body, SHAPE, dtype)


OTHER = {
    "empty": b"", "space": b" ", "no object": b"[[1,2]]", "no key": b"{}", "no rows": b'{"instances":[]}',
    "empty row": b'{"instances":[[]]}', "flat": b'{"instances":[1,2]}', "nested": b'{"instances":[[[1,2]]]}',
    "null": b'{"instances":null}', "another key": b'{"instancee":[[1,2]]}', "longer key": b'{"instances ":[[1,2]]}',
    "escaped key": b'{"\\u0069nstances":[[1,2]]}', "repeated key": b'{"instances":[[1,2]],"instances":[[1,2]]}',
    "escaped repeated key": b'{"instances":[[1,2]],"\\u0069nstances":[[1,2]]}',
    "two objects": b'{"instances":[[1,2]]}{}', "second key": b'{"instances":[[1,2]],"parameters":{}}',
    "first key": b'{"parameters":{},"instances":[[1,2]]}', "byte order mark": b'\xef\xbb\xbf{"instances":[[1,2]]}',
    "UTF-16": '{"instances":[[1,2]]}'.encode("utf-16"), "zero byte behind": b'{"instances":[[1,2]]}\0',
    "zero byte, text": b'{"instances":[[1,2]]}\0x', "comma": b'{"instances":[[1,2],]}',
    "comma in row": b'{"instances":[[1,2,]]}', "comma first": b'{"instances":[,[1,2]]}',
    "wide": b'{"instances":[[1,2,3]]}', "narrow": b'{"instances":[[1]]}',
    "ragged to fit": b'{"instances":[[1],[2,3,4]]}', "form feed": b'{"instances":[[1,\x0c2]]}',
    "too many rows": b'{"instances":[[1,2],[1,2],[1,2],[1,2]]}', "unclosed": b'{"instances":[[1,2]]',
    "deep": b"[" * 100_000,
}  # fmt: skip


@both_dtypes
@pytest.mark.parametrize("name", OTHER)
def test_other_documents_fall_back(name: str, dtype: type) -> None:
    """A body in another form is left to the general parsers."""
    assert not check(OTHER[name], SHAPE, dtype)


@both_dtypes
def test_rows_after_those_of_the_body_are_not_written(dtype: type) -> None:
    """If `out` has more rows than the body, the scanner writes only the rows that it reports."""
    for rows in range(1, 6):
        body = b'{"instances":[%b]}' % b",".join([b"[1,2]"] * rows)
        for capacity in range(1, 7):
            assert check(body, (capacity, 2), dtype) == (rows <= capacity)


# Bounds


def test_nothing_is_read_after_the_body() -> None:
    """A body may end within a number, a key or white space."""
    last, out = LastBytes(), np.empty(SHAPE, np.float32)
    tails = [b"", b"1", b"-", b"1.", b"1e", b"1e-", b" ", b'"instances', b"0", b"9007199254740993", b"\0"]
    for end in range(len(BODY) + 1):
        for tail in tails:
            body = BODY[:end] + tail
            assert (scan_instances(last(body), out) == FALLBACK) == (reference(body, SHAPE, np.float32) is None)
