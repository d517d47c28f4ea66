"""The parser of large tables gives the same rows and the same refusals as the general one."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InputError
from service.serve.wire import large_matrix
from service.serve.wire.invocation_body import parse_invocation
from service.serve.wire.invocation_form import InvocationForm
from service.serve.wire.large_matrix import cut_matrix
from service.serve.wire.predict_body import PredictBody, parse_predict_body
from service.serve.wire.rows import RowParser
from service.serve.wire.table_rows import TableParser
from tests.support.budgets import examples
from tests.support.json_reference import checked_message

NAMES = ("a", "data", "c")
ROWS_MAX = 6
Verdict = tuple[Any, ...]


def verdict(parse: Callable[[TableParser], PredictBody], names: tuple[str, ...] = NAMES) -> Verdict:
    """The shape and bits of the rows with the other fields, or the class and message of the error."""
    tables = TableParser(RowParser(len(names), np.dtype(np.float32), ROWS_MAX, 5), names)
    try:
        X, *others = parse(tables)
    except InputError as reason:
        return type(reason).__name__, checked_message(reason)
    assert X.flags.carray
    return X.shape, X.dtype.str, X.tobytes(), *others


def parse_as_predict(body: bytes, tables: TableParser) -> PredictBody:
    """Parse a body of `:predict`."""
    return parse_predict_body(large_matrix.parse_table(body, tables.rows, ROWS_MAX), tables)


PARSERS: dict[str, Callable[[bytes, TableParser], PredictBody]] = {
    "predict": parse_as_predict,
    "invocations": lambda body, tables: parse_invocation(body, InvocationForm(), tables),
    "pandas-split": lambda body, tables: parse_invocation(body, InvocationForm(b"", b"pandas-split"), tables),
}


def agreed(body: bytes, names: tuple[str, ...] = NAMES) -> dict[str, Verdict]:
    """The verdict of each parser, which must not depend on the size from which a body is large."""
    found = {}
    for name, parse in PARSERS.items():
        verdicts = []
        for size in (0, 1 << 40):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(large_matrix, "SIMDJSON_BYTES_MIN", size)
                verdicts.append(verdict(lambda tables: parse(body, tables), names))  # noqa: B023  # called at once
        assert verdicts[0] == verdicts[1]
        found[name] = verdicts[0]
    return found


ROWS = "[[1, 2, 3], [4.5, -0, 6e3]]"
BODIES = {
    "instances": f'{{"instances": {ROWS}}}',
    "with fields": f'{{"min_seq": 0, "instances": {ROWS}, "parameters": {{"x": [[1, 2, 3]]}}}}',
    "null fields": f'{{"instances": {ROWS}, "parameters": null, "feedback_tokens": null}}',
    "split": f'{{"dataframe_split": {{"columns": ["a", "b", "c"], "data": {ROWS}}}}}',
    "split in another order": f'{{"dataframe_split": {{"data": {ROWS}, "index": [0], "columns": ["c", "a", "b"]}}}}',
    "split with the name": f'{{"dataframe_split": {{"columns": ["a", "data", "c"], "data": {ROWS}}}}}',
    "split without names": f'{{"dataframe_split": {{"data": {ROWS}}}, "params": {{}}}}',
    "split alone": f'{{"columns": ["a", "b", "c"], "data": {ROWS}}}',
    "data beside": f'{{"dataframe_split": {{"columns": ["a", "b", "c"]}}, "data": {ROWS}}}',
    "data inside": f'{{"dataframe_split": {{"columns": {{"data": {ROWS}}}, "data": null}}}}',
    "data elsewhere": f'{{"dataframe_split": {{"index": {{"data": {ROWS}}}}}, "params": [[1, 2, 3]]}}',
    "instances inside": f'{{"instances": null, "parameters": {{"instances": {ROWS}}}}}',
    "instances in a list": f'{{"parameters": [{{"instances": {ROWS}}}], "inputs": {ROWS}}}',
    "both": f'{{"instances": {ROWS}, "dataframe_split": {{"data": {ROWS}}}}}',
    "inputs": f'{{"inputs": {ROWS}}}',
    "named inputs": f'{{"inputs": {{"features": {ROWS}}}}}',
    "a column named data": '{"inputs": {"data": [[1], [2]], "a": [1, 2], "c": [3, 4]}}',
    "vectors": '{"instances": [{"features": [1, 2, 3]}, {"data": {"features": {"values": [4, 5, 6]}}}]}',
    "one row": '{"instances": [[1, 2, 3]], "min_seq": 7}',
    "no rows": '{"dataframe_split": {"data": []}}',
    "narrow": '{"dataframe_split": {"columns": ["a", "b", "c"], "data": [[1, 2]]}}',
    "null cell": '{"dataframe_split": {"columns": ["c", "a", "b"], "data": [[1, 2, 3], [4, null, 6]]}}',
    "NaN": '{"dataframe_split": {"columns": ["c", "a", "b"], "data": [[1, 2, 3], [4, NaN, 6]]}}',
    "text cell": '{"dataframe_split": {"data": [[1, 2, "3"]]}}',
    "wrong columns": f'{{"dataframe_split": {{"columns": ["a", "b", "x"], "data": {ROWS}}}}}',
    "repeated key": f'{{"dataframe_split": {{"data": {ROWS}, "data": {ROWS}}}}}',
    "escaped key": f'{{"dataframe_split": {{"data": {ROWS}, "\\u0064ata": null}}}}',
    "unknown field": f'{{"dataframe_split": {{"data": {ROWS}}}, "x": 1}}',
    "too many rows": f'{{"dataframe_split": {{"data": [{", ".join(["[1, 2, 3]"] * 7)}]}}}}',
    "too many rows and an unknown field": f'{{"x": 1, "instances": [{", ".join(["[1, 2, 3]"] * 7)}]}}',
    "cut": f'{{"dataframe_split": {{"data": {ROWS[:-1]}}}}}',
    "rest": f'{{"dataframe_split": {{"data": {ROWS}}}}} x',
    "unquoted": f'{{"dataframe_split": {{"data": {ROWS}, x}}}}',
    "deep": f'{{"instances": {ROWS}, "parameters": [[[[[1]]]]]}}',
    "not UTF-8": f'{{"instances": {ROWS}, "parameters": "\udcff"}}',
}


@pytest.mark.parametrize("name", BODIES)
def test_large_and_general_parsers_agree(name: str) -> None:
    """Valid and invalid bodies of many kinds have the same verdict, also with a feature named like a key."""
    body = BODIES[name].encode("utf-8", "surrogateescape")
    for names in (NAMES, ("a", "b", "c")):
        agreed(body, names)


def test_large_tables_need_no_objects_for_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The matrix of a table is read with the converter of parsed rows removed."""
    monkeypatch.setattr(large_matrix, "SIMDJSON_BYTES_MIN", 0)
    monkeypatch.setattr(RowParser, "convert_rows", None)
    for name in ("with fields", "split in another order", "split without names"):
        parsed = verdict(lambda tables: PARSERS["invocations"](BODIES[name].encode(), tables), ("a", "b", "c"))  # noqa: B023
        assert parsed[0] == (2, 3)


numbers = st.sampled_from(["1", "-0", "-0.0", "1.5", "1e39", "1e999", "null", '"x"', "[1]", "true", "NaN", "01"])
rows = st.lists(st.lists(numbers, min_size=2, max_size=4).map(lambda row: f"[{','.join(row)}]"), max_size=3)
matrices = rows.map(lambda some: f"[{','.join(some)}]")
columns = st.permutations(["a", "b", "c"]).map(json.dumps) | st.sampled_from(["null", '["a"]', "[0, 1, 2]", "{}"])


@settings(deadline=None, max_examples=examples(300))
@given(
    matrix=matrices,
    names=columns,
    order=st.permutations(range(3)),
    more=st.sampled_from(["", ',"params":[[1]]', ',"x":1']),
)
def test_large_and_general_parsers_agree_on_generated_tables(
    matrix: str, names: str, order: list[int], more: str
) -> None:
    """The rows, the columns and their order in the text are arbitrary."""
    parts = [f'"columns":{names}', f'"data":{matrix}', '"index":[[0],[1,2]]']
    table = "{" + ",".join(parts[i] for i in order) + "}"
    agreed(f'{{"dataframe_split":{table}{more}}}'.encode(), ("a", "b", "c"))
    agreed(table.encode(), ("a", "b", "c"))
    agreed(f'{{"instances":{matrix}{more}}}'.encode(), ("a", "b", "c"))


@settings(deadline=None, max_examples=examples(200))
@given(damage=st.binary(max_size=8), place=st.integers(0, 90), cut=st.integers(0, 7))
def test_large_and_general_parsers_agree_on_damaged_bodies(damage: bytes, place: int, cut: int) -> None:
    """Any bytes replace any part of a valid body."""
    body = BODIES["split in another order"].encode()
    agreed(body[:place] + damage + body[place + cut :], ("a", "b", "c"))


@pytest.mark.parametrize(
    "body", [b"", b'"data"', b'{"data"}', b'{"data":1}', b'{"data":[', b'{"data" : [[1]] , "x" : [2]}']
)
def test_a_matrix_is_cut_out_whole(body: bytes) -> None:
    """Only a list after the key and a colon is cut out, up to the last bracket before the next quote."""
    expected = (b'{"data" : null , "x" : [2]}', b"[[1]]") if b"x" in body else None
    assert cut_matrix(body, b'"data"') == expected
