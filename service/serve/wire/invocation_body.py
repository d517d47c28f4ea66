"""Convert the bodies of `/invocations` in every form that the clients of MLflow and SageMaker send.

A JSON body has its rows in exactly one of these fields, and may have the fields of `:predict` beside it:

    dataframe_split      {"columns": [...], "data": [[...], ...]}     MLflow, pandas' orient "split"
    dataframe_records    [{name: number, ...}, ...]                   MLflow, pandas' orient "records"
    inputs               {name: [number, ...], ...}, or rows          MLflow, TensorFlow Serving
    instances            rows                                         SageMaker, TensorFlow Serving, Vertex AI
    params               beside any of them: ignored                  MLflow

Clients of MLflow 1 send the value of one of the first two as the body, and name it in Content-Type. csv_rows.py and
json_lines.py have the other forms, and invocation_form.py names the form of a body.

Python's clients write a missing number as NaN, which is not JSON. Such a body is read again with null in its place,
because the error then names the row and the column.
"""

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from service.errors import MalformedError
from service.serve.wire.csv_rows import parse_csv
from service.serve.wire.invocation_form import CSV, JSON_LINES, InvocationForm
from service.serve.wire.json_grammar import (
    check_container_count,
    check_document,
    drop_nulls,
    known_fields,
    load_json,
)
from service.serve.wire.json_lines import join_lists, parse_json_lines
from service.serve.wire.large_matrix import SPLIT, parse_table
from service.serve.wire.predict_body import FORMS, OPTIONS, Convert, PredictBody, convert_form
from service.serve.wire.table_rows import TableParser

RECORDS: Final = "dataframe_records"
INVOCATION_FORMS: Final[Mapping[str, Convert]] = {
    SPLIT: lambda tables, frame: tables.convert_split(frame, SPLIT),
    RECORDS: lambda tables, records: tables.convert_instances(records, RECORDS),
    **FORMS,
}
FIELDS: Final = (*INVOCATION_FORMS, "params", *OPTIONS)
# What Python writes for numbers that JSON does not have; the longest first, because it ends with another.
CONSTANTS: Final = (b"-Infinity", b"Infinity", b"NaN")


# Converts a body in one form.
Parse = Callable[[bytes, TableParser], PredictBody]


def parse_invocation(
    body: bytes, form: InvocationForm, tables: TableParser, *, extra_fields: bool = False
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
        return PredictBody(parse_csv(body, tables, header=form.header))
    if form.media == JSON_LINES:
        parse: Parse = _parse_lines
    else:
        parse = FORMATS.get(form.format, partial(_parse_fields, extra_fields=extra_fields))
    try:
        return parse(body, tables)
    except MalformedError:
        _explain_constants(parse, body, tables)
        raise


def _explain_constants(parse: Parse, body: bytes, tables: TableParser) -> None:
    """Raise UnacceptableError with the row and column of the first number that JSON does not have, if there is one."""
    text = body
    for constant in CONSTANTS:
        text = text.replace(constant, b"null")
    if text != body:
        with contextlib.suppress(MalformedError):
            parse(text, tables)


def _parse_fields(body: bytes, tables: TableParser, *, extra_fields: bool) -> PredictBody:
    """Convert a JSON object with one of the forms."""
    document = parse_table(body, tables.rows, tables.rows.rows_max)
    fields = drop_nulls(document) if extra_fields else known_fields(document, FIELDS)
    return convert_form(fields, tables, INVOCATION_FORMS)


def _parse_lines(body: bytes, tables: TableParser) -> PredictBody:
    """Convert JSON Lines; the usual ones are a list of rows once commas stand in place of the line ends."""
    joined = join_lists(body)
    X = None if joined is None else tables.rows.parse_usual(b'{"instances":%b}' % joined)
    if X is None:
        rows = parse_json_lines(body, tables.rows.depth_max, tables.rows.rows_max)
        X = tables.convert_instances(rows, "body")
    return PredictBody(X)


def _parse_split(body: bytes, tables: TableParser) -> PredictBody:
    """Convert a JSON object with the names of the columns and the rows."""
    return PredictBody(tables.convert_split(parse_table(body, tables.rows, tables.rows.rows_max), SPLIT))


def _parse_records(body: bytes, tables: TableParser) -> PredictBody:
    """Convert a JSON list of rows."""
    check_container_count(body, tables.rows.rows_max)
    records = load_json(body)
    if type(records) is not list:
        raise MalformedError("The body must be a JSON list of rows.")
    check_document(records, body, tables.rows.depth_max)
    return PredictBody(tables.convert_instances(records, RECORDS))


# The formats that clients of MLflow 1 name in Content-Type.
FORMATS: Final[Mapping[bytes, Parse]] = {b"pandas-split": _parse_split, b"pandas-records": _parse_records}
