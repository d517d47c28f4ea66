"""The encoder in machine code gives the bits and counts of the general one, or hands the row over."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from service.errors import InputError
from service.fields.column_blocks import FieldLimits
from service.fields.object_plan import CHARACTERS, CrowdedNamesError, ObjectPlan, _make_buffers
from service.fields.row_encoder import EncodedRows, RowEncoder
from service.softmax.kernels.single_sparse import ENTRIES
from tests.support.budgets import examples
from tests.support.field_artifacts import SPARSE_FIELDS, field_tensors
from tests.support.field_lists import parse_fields
from tests.support.field_options import OPTIONS, field_lists, rows_of
from tests.support.field_rows import ROWS, valid_rows

LIMITS = FieldLimits()
# What no kernel writes.
GUARD = 93


def encode_text(plan: ObjectPlan, text: bytes) -> EncodedRows | None:
    """Encode the row of a text in machine code; what follows it must not matter."""
    encoded = plan.encode(text, 0)
    padded = plan.encode(b"12" + text + b" }{1", 2)
    assert (encoded is None) == (padded is None)
    if encoded is not None and padded is not None:
        assert_equal(encoded, padded)
        assert plan.after == 2 + len(text.rstrip())
    return encoded


def assert_equal(ours: EncodedRows, other: EncodedRows) -> None:
    """Assert that rows have the same bits, and the same counts."""
    for one, two in zip((*ours.rows, *ours[1:]), (*other.rows, *other[1:]), strict=True):
        assert one.dtype == two.dtype
        assert one.tobytes() == two.tobytes()


def assert_row(encoder: RowEncoder, plan: ObjectPlan, row: dict[str, Any], text: bytes) -> bool:
    """Assert that a row is encoded as by the general encoder, or handed over; return whether it was encoded."""
    encoded = encode_text(plan, text)
    try:
        general = encoder.encode_objects([row])
    except InputError:
        assert encoded is None
        return False
    if encoded is None:
        return False
    assert_equal(encoded, general)
    return True


@given(data=st.data())
@settings(max_examples=examples(1500))
def test_rows_of_any_fields_have_the_bits_of_the_general_encoder(data: st.DataObject) -> None:
    """Every kind and option, with values that are accepted, refused, missing and unknown, in any order and spacing."""
    fields = data.draw(field_lists())
    encoder = RowEncoder(parse_fields(*fields), {}, LIMITS)
    plan = ObjectPlan(encoder)
    for row in data.draw(st.lists(rows_of(fields), min_size=1, max_size=4)):
        separators = data.draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " :\t")]))
        ascii_only = data.draw(st.booleans())
        text = json.dumps([row], separators=separators, ensure_ascii=ascii_only)
        assume("\\ud" not in text)  # half a surrogate pair is no UTF-8
        assert_row(encoder, plan, row, text.encode())


@given(rows=valid_rows)
@settings(max_examples=examples(300))
def test_rows_with_tensors_have_the_bits_of_the_general_encoder(rows: list[dict[str, Any]]) -> None:
    """Terms, idf, means and scales may be tensors."""
    for row in rows:
        assert_row(SPARSE, SPARSE_PLAN, row, json.dumps([row], ensure_ascii=False).encode())


SPARSE = RowEncoder(parse_fields(*SPARSE_FIELDS), field_tensors(), LIMITS)
SPARSE_PLAN = ObjectPlan(SPARSE)


@pytest.mark.parametrize("kind", [kind for kind in OPTIONS if kind != "cross"])
def test_usual_rows_are_not_handed_over(kind: str) -> None:
    """ASCII values that a field accepts, null, and an absent name are read by machine code, whatever the options."""
    accepted = {
        "number": [0, -12.5, 1e10],
        "boolean": [True, False],
        "category": ["DE", "PT", 7, 1.0, True],
        "text": ["A late REFUND, now", "", " x "],
        "bag": [{"late": 2, "x": -1.5}, ["late", "late"], {}, []],
        "vector": [[1, 2.5, 3], [1], [0.5, -1]],
    }
    for options in OPTIONS[kind]:
        encoder = RowEncoder(parse_fields({"name": "x", "kind": kind, **options}), {}, LIMITS)
        plan = ObjectPlan(encoder)
        for row in [*({"x": value} for value in accepted[kind]), {"x": None}, {}]:
            try:
                encoder.encode_objects([row])
            except InputError:
                continue
            assert assert_row(encoder, plan, row, json.dumps([row]).encode()), (options, row)


def test_all_kinds_together_are_not_handed_over() -> None:
    """The rows of field_rows.py, but for one that is not ASCII."""
    encoded = [assert_row(SPARSE, SPARSE_PLAN, row, json.dumps([row]).encode()) for row in ROWS]
    assert encoded == [json.dumps(row).isascii() and "\\u" not in json.dumps(row) for row in ROWS]
    assert encoded.count(True) >= 3


@pytest.mark.parametrize(
    "text",
    [
        b'[{"age": 1, "age": 2}]', b'[{"age": 1,}]', b'[{"age": 1} {"age": 2}]', b'[{"age": 1}, {"age": 2}]', b"[[41]]",
        b"[]", b"{}", b"[{", b"[", b"", b'[{"age"', b'[{"age":', b'[{"age": 1', b'[{"age": 1}', b'[{"age": 01}]',
        b'[{"age": 1.}]', b'[{"age": +1}]', b'[{"age": NaN}]', b'[{"age": nul}]', b'[{"age": nulls}]', b"[{age: 1}]",
        b'[{"body": "a\tb"}]', b'[{"body": "a\\u0041"}]', b'[{"body": "\xc3\xa9"}]', b'[{"body": "\xff"}]',
        b'[{"body": "open}]', b'[{"member": truee}]', b'[{"member": tru}]', b'[{"country and age": null}]',
        b'[{"basket": {"a": 1, "a": 2}}]', b'[{"basket": {"milk": 1, "milk": 2}}]', b'[{"basket": ["a",]}]',
        b'[{"basket": {"a": true}}]', b'[{"basket": [1]}]', b'[{"picture": [1, 2]}]', b'[{"picture": [1, 2, 3, 4]}]',
        b'[{"picture": [1, null, 3]}]', b'[{"tags": {"a": 1e400}}]', b'[{"country": 1.5}]', b'[{"city": 1e17}]',
        b'[{"nothing": 1}]', b'[{"": 1}]', b"[null]", b'[{"age": 1]}', b'[{"age": 1}}', b'[{"age" 1}]',
    ],
)  # fmt: skip
def test_unusual_texts_are_handed_over(text: bytes) -> None:
    """Texts that are no JSON, repeat a name, or have a value that only the general encoder reads or refuses."""
    assert encode_text(SPARSE_PLAN, text) is None


@given(
    row=st.sampled_from(ROWS[:1] + ROWS[2:]), edits=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=3)
)
@settings(max_examples=examples(1500))
def test_damaged_texts_are_read_as_json_or_not_at_all(row: dict[str, Any], edits: list[tuple[int, int]]) -> None:
    """What machine code accepts is JSON for the general parser too, and means the same."""
    text = bytearray(json.dumps([row]).encode())
    for place, byte in edits:
        text[place % len(text)] = byte
    encoded = SPARSE_PLAN.encode(bytes(text), 0)
    if encoded is None:
        return
    (parsed,) = json.loads(bytes(text)[: SPARSE_PLAN.after])
    assert_equal(encoded, SPARSE.encode_objects([parsed]))


def test_long_rows_are_handed_over() -> None:
    """Rows that need more than the buffers have: a long text, many n-grams, names, numbers or products."""
    fields = [
        {"name": "text", "kind": "text", "words": [1, 1], "bits": 18},
        {"name": "bag", "kind": "bag", "bits": 18},
        {"name": "vector", "kind": "vector", "size": ENTRIES},
        {"name": "cross", "kind": "cross", "fields": ["text", "bag"], "bits": 18},
    ]
    encoder = RowEncoder(parse_fields(*fields), {}, LIMITS)
    plan = ObjectPlan(encoder)
    numbered = [f"w{i}" for i in range(ENTRIES + 1)]

    def is_encoded(**row: Any) -> bool:
        return assert_row(encoder, plan, row, json.dumps([row]).encode())

    assert is_encoded(text=" ".join(numbered[:500]))
    assert is_encoded(bag=numbered[:ENTRIES])
    assert not is_encoded(bag=numbered)
    assert is_encoded(text="x" * (CHARACTERS - 2))
    assert not is_encoded(text="x" * (CHARACTERS - 1))
    assert not is_encoded(text=" ".join(numbered))
    assert is_encoded(vector=[1.5] * ENTRIES)
    assert not is_encoded(vector=[1.5] * ENTRIES, bag=["a"])
    assert is_encoded(text=" ".join(numbered[:40]), bag=numbered[:40])
    assert not is_encoded(text=" ".join(numbered[:40]), bag=numbered[:60])


@given(data=st.data())
@settings(max_examples=examples(600))
def test_nothing_is_written_after_a_buffer(data: st.DataObject) -> None:
    """Rows that need more than small buffers have do not write after them, whatever is handed over."""
    fields = data.draw(field_lists())
    # The longest whole number with its sign takes 18 bytes.
    entries, characters = data.draw(st.integers(1, 12)), data.draw(st.integers(18, 28))
    encoder = RowEncoder(parse_fields(*fields), {}, LIMITS)
    rooms: list[np.ndarray[Any, Any]] = []

    def make_guarded(n_fields: int, _: int) -> dict[str, np.ndarray[Any, Any]]:
        buffers = {}
        for name, buffer in _make_buffers(n_fields, entries).items():
            size = {"text": characters, "borders": characters + 1}.get(name, len(buffer))
            rooms.append(np.full(size + 16, GUARD, buffer.dtype))
            buffers[name] = rooms[-1][:size]
        return buffers

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.fields.object_plan._make_buffers", make_guarded)
        plan = ObjectPlan(encoder)
    for row in data.draw(st.lists(rows_of(fields), min_size=1, max_size=4)):
        assert_row(encoder, plan, row, json.dumps([row]).encode())
        assert all((room[-16:] == GUARD).all() for room in rooms)


def test_a_row_has_no_more_entries_than_the_limit() -> None:
    """With a smaller limit the buffers are smaller, and the general encoder words the refusal."""
    encoder = RowEncoder(parse_fields({"name": "bag", "kind": "bag", "bits": 9}), {}, LIMITS._replace(entries_max=3))
    plan = ObjectPlan(encoder)
    assert encode_text(plan, b'[{"bag": ["a", "b", "c"]}]') is not None
    assert encode_text(plan, b'[{"bag": ["a", "b", "c", "d"]}]') is None


def test_names_that_were_made_to_collide_have_no_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """The general encoder reads such rows, since Python's dictionaries are seeded."""
    monkeypatch.setattr("service.fields.object_plan.BUILT", -1)
    with pytest.raises(CrowdedNamesError):
        ObjectPlan(SPARSE)


def test_numbers_that_overflow_are_handed_over() -> None:
    """A scaled number may be infinite, which is refused by row and field."""
    encoder = RowEncoder(parse_fields({"name": "x", "kind": "number", "scale": 1e-300}), {}, LIMITS)
    plan = ObjectPlan(encoder)
    assert encode_text(plan, b'[{"x": 1e22}]') is None
    encoded = encode_text(plan, b'[{"x": 1}]')
    assert encoded is not None
    assert np.isfinite(encoded.rows.values).all()
