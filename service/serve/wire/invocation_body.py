"""Convert the bodies of `/invocations` in every form that the clients of MLflow and SageMaker send.

A JSON body is one of `:predict` (predict_body.py), and may have "params", which MLflow's clients send and which are
ignored. Clients of MLflow 1 send the value of "dataframe_split" or "dataframe_records" as the body, and name it in
Content-Type. CSV and JSON Lines (json_lines.py) are the other forms, and invocation_form.py names the form of a body.

Python's clients write a missing number as NaN, which is not JSON. Such a body is read again with null in its place: for
a model with fields it is missing, and the error of another model then names the row and the column.
"""

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from service.errors import MalformedError
from service.serve.wire.invocation_form import CSV, JSON_LINES, InvocationForm
from service.serve.wire.json_grammar import (
    check_container_count,
    check_document,
    drop_nulls,
    known_fields,
    load_json,
)
from service.serve.wire.json_lines import join_lists, parse_json_lines
from service.serve.wire.large_matrix import SPLIT
from service.serve.wire.model_tables import ModelTables
from service.serve.wire.nan_literals import replace_nan
from service.serve.wire.predict_body import FORMS, OPTIONS, RECORDS, PredictBody, convert_body

FIELDS: Final = (*FORMS, "params", *OPTIONS)
# What Python writes for numbers that JSON does not have; the longest first, because it ends with another.
CONSTANTS: Final = (b"-Infinity", b"Infinity", b"NaN")


# Converts a body in one form.
Parse = Callable[[bytes, ModelTables], PredictBody]


def parse_invocation(
    body: bytes, form: InvocationForm, tables: ModelTables, *, extra_fields: bool = False
) -> PredictBody:
    """Convert a body to a prediction request.

    Args:
        body: The bytes.
        form: The form that the head names.
        tables: The parser of the model's tables.
        extra_fields: Whether unknown fields are ignored; Vertex AI lets clients send them.

    Raises:
        MalformedError: The body cannot be parsed.
        UnacceptableError: It has no rows of this model.
        TooLargeError: There are more rows, or more lists and objects, than the limit.
    """
    if form.media == CSV:
        return PredictBody(tables.parse_csv(body, header=form.header))
    if form.media == JSON_LINES:
        parse: Parse = _parse_lines
    else:
        parse = FORMATS.get(form.format, partial(_parse_fields, extra_fields=extra_fields))
    try:
        return parse(body, tables)
    except MalformedError:
        text = replace_nan(body) if tables.nan_is_missing else None
        if text is None:
            _explain_constants(parse, body, tables)
            raise
    return parse(text, tables)


def _explain_constants(parse: Parse, body: bytes, tables: ModelTables) -> None:
    """Raise UnacceptableError with the row and column of the first number that JSON does not have, if there is one."""
    text = body
    for constant in CONSTANTS:
        text = text.replace(constant, b"null")
    if text != body:
        with contextlib.suppress(MalformedError):
            parse(text, tables)


def _parse_fields(body: bytes, tables: ModelTables, *, extra_fields: bool) -> PredictBody:
    """Convert a JSON object with one of the forms."""
    document = tables.parse_document(body, tables.rows_max)
    return convert_body(drop_nulls(document) if extra_fields else known_fields(document, FIELDS), tables)


def _parse_lines(body: bytes, tables: ModelTables) -> PredictBody:
    """Convert JSON Lines; the usual ones are a list of rows once commas stand in place of the line ends."""
    joined = join_lists(body)
    X = None if joined is None else tables.parse_usual(b'{"instances":%b}' % joined)
    if X is None:
        rows = parse_json_lines(body, tables.depth_max, tables.rows_max, tables.container_rows_max)
        X = tables.convert_instances(rows, "body")
    return PredictBody(X)


def _parse_split(body: bytes, tables: ModelTables) -> PredictBody:
    """Convert a JSON object with the names of the columns and the rows."""
    return PredictBody(tables.convert_split(tables.parse_document(body, tables.rows_max), SPLIT))


def _parse_records(body: bytes, tables: ModelTables) -> PredictBody:
    """Convert a JSON list of rows."""
    check_container_count(body, tables.container_rows_max)
    records = load_json(body)
    if type(records) is not list:
        raise MalformedError("The body must be a JSON list of rows.")
    check_document(records, body, tables.depth_max)
    return PredictBody(tables.convert_instances(records, RECORDS))


# The formats that clients of MLflow 1 name in Content-Type.
FORMATS: Final[Mapping[bytes, Parse]] = {b"pandas-split": _parse_split, b"pandas-records": _parse_records}
