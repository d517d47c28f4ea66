"""A feedback body to the events it asks for: ids, payloads, and how many rows they have.

    {"id": "evt-1", "instances": [[5.1, 3.5, 1.4, 0.2]], "labels": ["setosa"], "weights": [1.0]}     one event
    {"tokens": ["…", "…"], "labels": ["setosa", 2], "weights": [1.0, 2.0]}                           one for each token

`id` and `weights` may be missing; `parameters` and `signature_name` are ignored, as `:predict` ignores them. Rows are
read, and refused, as in a prediction (codec.py), labels as labels.py says.

Three readers share that grammar. The general one makes Python objects of everything, decides every doubtful case and
words every refusal. One takes the commonest body, a row with a name or an index and no weight; one cuts the matrix out
of a body of many rows and gives it to the readers of predictions, and parses only what stands around it. Both leave
whatever they are not sure of to the general one, and a property test holds all of them to the same bytes.
"""

import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import InputError, InvalidTokenError, UnacceptableError
from service.serve.wire.json_grammar import check_container_count, check_fields, parse_object
from service.serve.wire.labels import NUMBERS, LabelParser
from service.serve.wire.rows import RowParser
from service.softmax.input_stage import NOT_NUMBERS
from service.store.log.events import ID_BYTES_MAX
from service.store.log.feedback_payload import DTYPES, FORMAT_VERSION, HEAD, Targets, encode_rows
from service.store.log.ids import new_id

# The importance of a row in its step; a heavier one would let a single row undo what thousands taught.
WEIGHT_MAX: Final = 100.0
FIELDS: Final = ("id", "instances", "labels", "weights", "tokens", "parameters", "signature_name")
FLAT_FIELDS: Final = frozenset(("id", "instances", "labels", "weights"))
KEY: Final = b'"instances"'

Floats = NDArray[np.floating[Any]]


class PostedEvent(NamedTuple):
    """An event that a client asks for.

    Attributes:
        id: The client's, or one of ours; 1 to 128 bytes.
        payload: The bytes of its rows (store/log/feedback_payload.py).
        rows: The number of them.
    """

    id: bytes
    payload: bytes
    rows: int


# An event's id and its row (1, N), from a token.
OpenToken = Callable[[str], tuple[bytes, Floats]]


class FeedbackParser:
    """Reads the feedback for one model version with its classes of this moment. Used by the event loop's thread alone.

    Args:
        rows: How rows of the model are read; its limit of rows bounds rows x classes too.
        labels: How labels are read.
        open_token: Opens a token of this model version, or raises an InputError.
    """

    def __init__(self, rows: RowParser, labels: LabelParser, open_token: OpenToken) -> None:
        self._rows = rows
        self._labels = labels
        self._open_token = open_token
        N, K, dtype = rows.n_features, labels.n_classes, rows.dtype
        self._head = HEAD.pack(FORMAT_VERSION, DTYPES.index(dtype), Targets.INDEX, 0, 1, N, K)
        self._pack = struct.Struct(f"<{N}{dtype.char}i").pack

    def parse_feedback(self, body: bytes) -> PostedEvent | list[PostedEvent]:
        """The event of a body with instances, or the events of one with tokens, in their order.

        Raises:
            MalformedError: The bytes are not JSON of our grammar.
            UnacceptableError: They are, but hold no feedback for this model.
            TooLargeError: There are more rows than the limit.
        """
        one_row = body.count(b"[") == 3  # noqa: PLR2004  # those of instances, a row, and labels
        post = self._parse_single_row(body) if one_row else self._parse_many_rows(body)
        return post or self._parse_any(parse_object(body, self._rows.depth_max, self._rows.rows_max))

    def _parse_single_row(self, body: bytes) -> PostedEvent | None:
        """The event of a small body in the usual form, or None in doubt.

        No string hides in what is left out, and no key is repeated, where the text has as many quotes as were seen.
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
                type(labels) is not list  # a text or an object of one class name would pass for one
                or (kind is not str and kind is not int)  # True is equal to 1
                or len(document) != (2 if id_ is None else 3)
                or body.count(b'"') != 2 * strings
                or self._labels.multilabel
                or not NUMBERS.issuperset(map(type, row))
            ):
                return None
            payload = self._head + self._pack(*row, self._labels.indices[label])
            name = new_id() if id_ is None else id_.encode()
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError, struct.error):
            return None
        return PostedEvent(name, payload, 1) if 0 < len(name) <= ID_BYTES_MAX else None

    def _parse_many_rows(self, body: bytes) -> PostedEvent | None:
        """The event of a body with many rows, or None in doubt.

        The matrix holds no string, so it ends with the last bracket before the next quote. Where its text is one JSON
        value and the text around it is JSON with another value in its place, both together are JSON too. Without a
        backslash every quote is one of the grammar's, so the only key of that name is the one whose value was cut out.
        """
        at = body.find(KEY)
        start = body.find(b"[", at)
        quote = body.find(b'"', start)
        stop = body.rfind(b"]", start, quote if quote > 0 else len(body)) + 1
        if not 0 < at < start < stop or body[at + len(KEY) : start].strip() != b":":
            return None
        rest = body[:start] + b"null" + body[stop:]
        if b"\\" in rest or rest.count(KEY) != 1:
            return None
        try:
            check_container_count(rest, self._rows.rows_max)
            document = self._load_flat(rest) or parse_object(rest, self._rows.depth_max, self._rows.rows_max)
            if document.get("instances", rest) is not None:
                return None
            return self._make_event(document, self._rows.parse_instances(b"{%b:%b}" % (KEY, body[start:stop])))
        except InputError:
            return None

    @staticmethod
    def _load_flat(text: bytes) -> dict[str, Any] | None:
        """Return what `parse_object` gives for an object of flat fields; None in doubt."""
        try:
            document = orjson.loads(text)
            kinds = set(map(type, document["labels"]))
            strings = len(document) + ("id" in document) + (len(document["labels"]) if kinds == {str} else 0)
        except (LookupError, TypeError, ValueError, AttributeError):
            return None
        return document if document.keys() <= FLAT_FIELDS and text.count(b'"') == 2 * strings else None

    def _parse_any(self, document: dict[str, Any]) -> PostedEvent | list[PostedEvent]:
        check_fields(document, FIELDS)
        if "tokens" in document:
            return self._parse_tokens(document)
        if "instances" not in document:
            raise UnacceptableError('The body must have "instances", a list of rows, or "tokens" of predictions.')
        return self._make_event(document, self._rows.convert_rows(document["instances"]))

    def _make_event(self, document: dict[str, Any], X: Floats) -> PostedEvent:
        """The event of the rows X (B, N) and of everything else in the body."""
        check_fields(document, FIELDS)
        if "tokens" in document:
            raise UnacceptableError('Send "instances" or "tokens", not both.')
        if not np.isfinite(X).all():
            raise UnacceptableError(NOT_NUMBERS)
        rows = len(X)
        kind, targets = self._labels.parse_labels(document.get("labels"), rows)
        weights = self._weights(document["weights"], rows) if "weights" in document else None
        name = _name(document["id"]) if "id" in document else new_id()
        return PostedEvent(name, self._payload(X, kind, targets, weights), rows)

    def _parse_tokens(self, document: dict[str, Any]) -> list[PostedEvent]:
        """One event for each token."""
        for field in ("instances", "id"):
            if field in document:
                raise UnacceptableError(f'Send no "{field}" beside "tokens": they hold the rows and the ids.')
        tokens = document["tokens"]
        if type(tokens) is not list or not tokens or {str} != set(map(type, tokens)):
            raise UnacceptableError('"tokens" must be a list of at least one token of a prediction.')
        self._rows.check_row_count(len(tokens))
        kind, targets = self._labels.parse_labels(document.get("labels"), len(tokens))
        weights = self._weights(document["weights"], len(tokens)) if "weights" in document else None
        opened = [self._open_token_at(i, token) for i, token in enumerate(tokens)]
        return [
            PostedEvent(
                name, self._payload(X, kind, targets[i : i + 1], None if weights is None else weights[i : i + 1]), 1
            )
            for i, (name, X) in enumerate(opened)
        ]

    def _open_token_at(self, i: int, token: str) -> tuple[bytes, Floats]:
        """The event's id and the row of one token of several."""
        try:
            return self._open_token(token)
        except InvalidTokenError as reason:
            raise type(reason)(f"Token {i}: {reason}") from None

    def _payload(self, X: Floats, kind: Targets, targets: NDArray[Any], weights: Floats | None) -> bytes:
        return encode_rows(X, targets, kind, self._labels.n_classes, weights)

    def _weights(self, weights: object, rows: int) -> Floats:
        """(B,) weights in the model's dtype, of a parsed list of numbers."""
        if type(weights) is not list or len(weights) != rows or not NUMBERS.issuperset(map(type, weights)):
            raise UnacceptableError('"weights" must be a list of one number for each row.')
        bounded = min(weights) > 0 and max(weights) <= WEIGHT_MAX
        cast = np.array(weights if bounded else [0], self._rows.dtype)
        if not (cast > 0).all():  # one may have become 0 in the dtype
            raise UnacceptableError(f"A weight must be above 0 and at most {WEIGHT_MAX:g}.")
        return cast


def _name(id_: object) -> bytes:
    """The bytes of a client's id."""
    name = id_.encode() if type(id_) is str else b""
    if not 0 < len(name) <= ID_BYTES_MAX:
        raise UnacceptableError(f'"id" must be a text of 1 to {ID_BYTES_MAX} bytes.')
    return name
