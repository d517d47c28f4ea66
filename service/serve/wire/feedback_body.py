"""Parse a feedback body to an event: its id, payload and number of rows; or to tokens, which token_events.py reads.

    {"id": "evt-1", "instances": [[5.1, 3.5, 1.4, 0.2]], "labels": ["setosa"], "weights": [1.0]}     one event
    {"tokens": ["…", "…"], "labels": ["setosa", 2], "weights": [1.0, 2.0]}                           one for each token

The rows are in any form of `:predict` (predict_body.py). `id` and `weights` are optional, and null counts as missing;
`parameters` and `signature_name` are ignored, as in `:predict`. Rows are parsed and rejected as in a prediction;
labels.py parses the labels.

Three parsers share that grammar. The general parser makes Python objects of the whole body, decides every doubtful case
and words every error. A second parser reads the most common body: one row with a name or an index and no weight. A
third cuts the matrix out of a body of many rows for the parsers of predictions, and parses only the text around it.
The second and third return None if unsure. A property test asserts that all three make the same bytes.
"""

import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import InputError, UnacceptableError
from service.serve.wire.json_grammar import (
    NUMBER_TYPES,
    check_container_count,
    check_row_count,
    known_fields,
    parse_object,
)
from service.serve.wire.labels import LabelParser, check_labels
from service.serve.wire.large_matrix import cut_matrix
from service.serve.wire.model_tables import ModelTables
from service.serve.wire.predict_body import FORMS, convert_rows
from service.serve.wire.table_rows import TableParser
from service.softmax.arrays import Floats
from service.softmax.input_stage import NOT_NUMBERS
from service.softmax.sparse_rows import Rows, SparseRows, count_rows
from service.store.log.events import ID_BYTES_MAX
from service.store.log.feedback_payload import DENSE_FORMAT, DTYPES, HEAD, Targets, encode_rows, encode_sparse_rows
from service.store.log.ids import new_id

# The weight of a row in its update; with a larger one, a single row could undo the effect of thousands.
WEIGHT_MAX: Final = 100.0
WEIGHT_MESSAGE: Final = f'Each of "weights" must be above 0 and at most {WEIGHT_MAX:g}.'
FIELDS: Final = ("id", *FORMS, "labels", "weights", "tokens", "parameters", "signature_name")
FLAT_FIELDS: Final = frozenset(("id", "instances", "labels", "weights"))
INSTANCES_KEY: Final = b'"instances"'

_OTHER_ROWS: Final = frozenset((*FORMS, "tokens")) - {"instances"}


class PostedEvent(NamedTuple):
    """An event that a client posts.

    Attributes:
        id: The client's id or a generated one, 1 to 128 bytes.
        payload: The bytes of its rows (store/log/feedback_payload.py).
        rows: The number of rows.
    """

    id: bytes
    payload: bytes
    rows: int


class PostedTokens(NamedTuple):
    """Tokens that a client posts, not opened yet.

    Attributes:
        tokens: The tokens, at least one.
        labels: A label for each token, as parsed from JSON: its version's parser reads it.
        weights: A weight for each token, above 0 and at most WEIGHT_MAX, or None.
    """

    tokens: Sequence[str]
    labels: Sequence[Any]
    weights: Sequence[float] | None


class FeedbackParser:
    """Parses feedback for one model version with its current classes. Use it on the event loop's thread only.

    Args:
        tables: The parser of the model's tables; its limit of rows also bounds rows x classes.
        labels: The parser of the model's labels.
    """

    def __init__(self, tables: ModelTables, labels: LabelParser) -> None:
        self._tables = tables
        self._labels = labels

    def parse_feedback(self, body: bytes) -> PostedEvent | PostedTokens:
        """Parse a body.

        Returns:
            The event of a body with rows, or the tokens of a body with tokens.

        Raises:
            MalformedError: The body cannot be parsed.
            UnacceptableError: The body has no feedback for this model.
            TooLargeError: There are more rows than the limit.
        """
        return self._parse_any(self._tables.parse_document(body, self._tables.rows_max))

    def count_values(self) -> None:
        """Count the missing and unknown values of the rows that were parsed last; see `ModelTables`."""
        self._tables.count_values()

    def _parse_any(self, document: dict[str, Any]) -> PostedEvent | PostedTokens:
        fields = known_fields(document, FIELDS)
        if "tokens" in fields:
            return self._parse_tokens(fields)
        if fields.keys().isdisjoint(FORMS):
            raise UnacceptableError('The body must have "instances", a list of rows, or "tokens" of predictions.')
        return self._make_event(fields, convert_rows(fields, self._tables))

    def _make_event(self, document: dict[str, Any], X: Rows) -> PostedEvent:
        """Return the event of rows and the other fields of the body."""
        fields = known_fields(document, FIELDS)
        if not np.isfinite(X.values if isinstance(X, SparseRows) else X).all():
            raise UnacceptableError(NOT_NUMBERS)
        rows = count_rows(X)
        kind, targets = self._labels.parse_labels(fields.get("labels"), rows)
        weights = self._parse_weights(fields, rows)
        event_id = _encode_id(fields["id"]) if "id" in fields else new_id()
        return PostedEvent(event_id, self._encode(X, kind, targets, weights), rows)

    def _parse_tokens(self, fields: dict[str, Any]) -> PostedTokens:
        """Check everything about tokens that does not depend on the version that issued them."""
        for field in (*FORMS, "id"):
            if field in fields:
                raise UnacceptableError(f'Send "tokens" without "{field}"; tokens contain the rows and the ids.')
        tokens = fields["tokens"]
        if type(tokens) is not list or not tokens or {str} != set(map(type, tokens)):
            raise UnacceptableError('"tokens" must be a list of at least one token of a prediction.')
        check_row_count(len(tokens), self._tables.rows_max)
        labels = check_labels(fields.get("labels"), len(tokens))
        return PostedTokens(tokens, labels, _check_weights(fields, len(tokens)))

    def make_token_event(self, event_id: bytes, X: Rows, posted: PostedTokens, number: int) -> PostedEvent:
        """Return the event of a token with its row, which is token `number` of those posted.

        Raises:
            UnacceptableError: Its label or weight is not valid for this model.
        """
        kind, targets = self._labels.parse_label(posted.labels[number], number)
        weights = None if posted.weights is None else self._convert_weights(posted.weights[number : number + 1])
        return PostedEvent(event_id, self._encode(X, kind, targets, weights), 1)

    def _encode(self, X: Rows, kind: Targets, targets: NDArray[Any], weights: Floats | None) -> bytes:
        K = self._labels.n_classes
        if isinstance(X, SparseRows):
            return encode_sparse_rows(X, self._tables.n_features, targets, kind, K, weights)
        return encode_rows(X, targets, kind, K, weights)

    def _parse_weights(self, document: dict[str, Any], rows: int) -> Floats | None:
        """Return (B,) weights in the model's dtype, or None if the body has none."""
        weights = _check_weights(document, rows)
        return None if weights is None else self._convert_weights(weights)

    def _convert_weights(self, weights: Sequence[float]) -> Floats:
        """Return weights in the model's dtype, in which a small one may round to 0."""
        values = np.array(weights, self._tables.dtype)
        if not (values > 0).all():
            raise UnacceptableError(WEIGHT_MESSAGE)
        return values


class NumberFeedbackParser(FeedbackParser):
    """Parses feedback for a model whose rows are numbers, with two further parsers; otherwise as `FeedbackParser`.

    Args:
        tables: The parser of the model's tables.
        labels: The parser of the model's labels.
    """

    def __init__(self, tables: TableParser, labels: LabelParser) -> None:
        super().__init__(tables, labels)
        self._rows = rows = tables.rows
        N, K, dtype = rows.n_features, labels.n_classes, rows.dtype
        self._head = HEAD.pack(DENSE_FORMAT, DTYPES.index(dtype), Targets.INDEX, 0, 1, N, K)
        self._pack = struct.Struct(f"<{N}{dtype.char}i").pack

    def parse_feedback(self, body: bytes) -> PostedEvent | PostedTokens:
        """Parse a body; see the base class."""
        one_row = body.count(b"[") == 3  # noqa: PLR2004  # the brackets of instances, a row, and labels
        event = self._parse_single_row(body) if one_row else self._parse_many_rows(body)
        return event or super().parse_feedback(body)

    def _parse_single_row(self, body: bytes) -> PostedEvent | None:
        """Return the event of a small usual body, or None if unsure.

        The text has no other string and no repeated key if its quotes are as many as those of the parsed strings.
        """
        try:
            document = orjson.loads(body)
            labels, id_ = document["labels"], document.get("id")
            (row,), (label,) = document["instances"], labels
            strings = 2 if id_ is None else 4
            kind = type(label)
            if kind is str:
                strings += 1
            if (
                type(labels) is not list  # a string or an object could also be unpacked to one label
                or (kind is not str and kind is not int)  # `True` equals 1
                or len(document) != (2 if id_ is None else 3)
                or body.count(b'"') != 2 * strings
                or self._labels.multilabel
                or not NUMBER_TYPES.issuperset(map(type, row))
            ):
                return None
            payload = self._head + self._pack(*row, self._labels.indices[label])
            event_id = new_id() if id_ is None else id_.encode()
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError, struct.error):
            return None
        return PostedEvent(event_id, payload, 1) if 0 < len(event_id) <= ID_BYTES_MAX else None

    def _parse_many_rows(self, body: bytes) -> PostedEvent | None:
        """Return the event of a body with many rows, or None if unsure."""
        cut = cut_matrix(body, INSTANCES_KEY)
        if cut is None:
            return None
        rest, matrix = cut
        try:
            check_container_count(rest, self._rows.rows_max)
            document = load_flat(rest) or parse_object(rest, self._rows.depth_max, self._rows.rows_max)
            if document.get("instances", rest) is not None or not _OTHER_ROWS.isdisjoint(document):
                return None
            return self._make_event(document, self._rows.parse_instances(b"{%b:%b}" % (INSTANCES_KEY, matrix)))
        except InputError:
            return None


def load_flat(text: bytes) -> dict[str, Any] | None:
    """Parse an object of flat fields as `parse_object` does, or return None if unsure; the strings are counted."""
    try:
        document = orjson.loads(text)
        kinds = set(map(type, document["labels"]))
        strings = len(document) + ("id" in document) + (len(document["labels"]) if kinds == {str} else 0)
    except (LookupError, TypeError, ValueError, AttributeError):
        return None
    return document if document.keys() <= FLAT_FIELDS and text.count(b'"') == 2 * strings else None


def _check_weights(document: dict[str, Any], rows: int) -> list[float] | None:
    """Return the weights of a body, each above 0 and at most WEIGHT_MAX, or None if it has none."""
    if "weights" not in document:
        return None
    weights = document["weights"]
    if type(weights) is not list or len(weights) != rows or not NUMBER_TYPES.issuperset(map(type, weights)):
        raise UnacceptableError('"weights" must be a list of one number for each row.')
    if not (min(weights) > 0 and max(weights) <= WEIGHT_MAX):
        raise UnacceptableError(WEIGHT_MESSAGE)
    return weights


def _encode_id(value: object) -> bytes:
    """Return the bytes of a client's id."""
    encoded = value.encode() if type(value) is str else b""
    if not 0 < len(encoded) <= ID_BYTES_MAX:
        raise UnacceptableError(f'"id" must be a string of 1 to {ID_BYTES_MAX} bytes of UTF-8.')
    return encoded
