"""The parsers of rows in base64: of a text alone, and of a body that has nothing else."""

import base64
from typing import Final

import numpy as np

from service.errors import InputError
from service.serve.wire.base64_rows import decode_rows
from service.serve.wire.json_grammar import parse_object
from service.serve.wire.predict_body import parse_predict_body
from service.serve.wire.rows import RowParser
from service.serve.wire.table_rows import TableParser
from tests.fuzz.fuzzer import Parser
from tests.support.http_requests import as_base64, instances

ROWS_MAX, DEPTH_MAX = 50, 16
# Rows of one, two and three numbers have texts with two, one and no characters of padding, in some order.
TABLES: Final = tuple(
    TableParser(RowParser(width, np.dtype(np.float32), ROWS_MAX, DEPTH_MAX), [f"x{i}" for i in range(width)])
    for width in (1, 2, 3)
)
ROWS: Final = tuple(as_base64([[1.5] * width] * 2, datatype) for width in (1, 2, 3) for datatype in ("<f4", "<f2"))


def parse_row(text: bytes) -> object:
    """Parse the text of a row, for models of each width; one that is accepted is the only encoding of its bytes."""
    widths, refusals = [], []
    for tables in TABLES:
        try:
            tables.convert_instances([{"b64": text.decode("latin-1")}])
        except InputError as reason:
            refusals.append(reason)
            continue
        decoded = decode_rows([text], tables.rows.n_features)
        assert decoded is not None, "a row has no bytes"
        assert base64.b64encode(decoded[0]) == text, "a row has two texts"
        widths.append(tables.rows.n_features)
    if not widths:
        raise refusals[0]
    return widths


def parse_body(body: bytes) -> object:
    """Parse a body for models of each width; the rows of the fast parser are those of the general one."""
    for tables in TABLES:
        X = tables.rows.parse_usual(body)
        if X is not None:
            general = parse_predict_body(parse_object(body, DEPTH_MAX, ROWS_MAX), tables).X
            assert X.tobytes() == general.tobytes(), "the parsers differ"
            return X.shape
    return parse_predict_body(parse_object(body, DEPTH_MAX, ROWS_MAX), TABLES[0]).X.shape


BASE64_PARSERS: Final[dict[str, Parser]] = {
    "rows in base64": Parser([rows[0]["b64"].encode() for rows in ROWS], parse_row, (InputError,)),
    "bodies of rows in base64": Parser([instances(rows) for rows in ROWS], parse_body, (InputError,)),
}
