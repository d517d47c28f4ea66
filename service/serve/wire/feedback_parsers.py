"""The parser of feedback for a model: the general one, or one with a faster way for the usual row of the model."""

import re
import struct
from typing import Any, Final

from service.errors import InputError
from service.serve.wire.feedback_body import (
    INSTANCES_KEY,
    FeedbackParser,
    NumberFeedbackParser,
    PostedEvent,
    PostedTokens,
    load_flat,
)
from service.serve.wire.field_tables import SPACES, FieldTables
from service.serve.wire.labels import LabelParser
from service.serve.wire.model_tables import ModelTables
from service.serve.wire.table_rows import TableParser
from service.store.log.events import ID_BYTES_MAX
from service.store.log.feedback_payload import DTYPES, HEAD, SPARSE_FORMAT, Targets
from service.store.log.ids import new_id

# The number of entries of one row, and where they end.
SINGLE_ENTRIES: Final = struct.Struct("<II")
INDEX: Final = struct.Struct("<i")
OBJECT_KEY: Final = re.compile(INSTANCES_KEY + SPACES + b":" + SPACES)


class ObjectFeedbackParser(FeedbackParser):
    """Parses feedback for a model with fields, the usual row in machine code; otherwise as `FeedbackParser`.

    Args:
        tables: The parser of the model's tables.
        labels: The parser of the model's labels.
    """

    def __init__(self, tables: FieldTables, labels: LabelParser) -> None:
        super().__init__(tables, labels)
        self._fields = tables
        numbers = DTYPES.index(tables.dtype), Targets.INDEX, 0, 1, tables.n_features, labels.n_classes
        self._head = HEAD.pack(SPARSE_FORMAT, *numbers)

    def parse_feedback(self, body: bytes) -> PostedEvent | PostedTokens:
        """Parse a body; see the base class."""
        key = OBJECT_KEY.search(body)
        event = None if key is None else self._parse_entries(body, key.end()) or self._parse_object(body, key.end())
        return event or super().parse_feedback(body)

    def _parse_entries(self, body: bytes, start: int) -> PostedEvent | None:
        """Return the event of a body with one object for a sparse model and one label, or None if unsure."""
        cut = self._fields.cut_entries(body, start)
        document = None if cut is None else load_around(body, start, cut.after)
        if cut is None or document is None or "weights" in document or self._labels.multilabel:
            return None
        id_, labels = document.get("id"), document["labels"]
        try:
            (label,) = labels
            if type(labels) is not list or (type(label) is not str and type(label) is not int):
                return None
            index = self._labels.indices[label]
            event_id = new_id() if id_ is None else id_.encode()
        except (LookupError, TypeError, ValueError, AttributeError):
            return None
        entries, target = SINGLE_ENTRIES.pack(cut.n_entries, cut.n_entries), INDEX.pack(index)
        payload = b"".join((self._head, entries, cut.columns, cut.values, target))
        return PostedEvent(event_id, payload, 1) if 0 < len(event_id) <= ID_BYTES_MAX else None

    def _parse_object(self, body: bytes, start: int) -> PostedEvent | None:
        """Return the event of a body with one object and flat fields, or None if unsure."""
        cut = self._fields.cut_object(body, start)
        document = None if cut is None else load_around(body, start, cut.after)
        if cut is None or document is None:
            return None
        try:
            return self._make_event(document, cut.rows)
        except InputError:
            return None


def load_around(body: bytes, start: int, after: int) -> dict[str, Any] | None:
    """Return the flat fields around the row in body[start:after]; None if unsure.

    The text around the row has no second key of its name, so the null in its place is what takes it (as in
    `cut_matrix`).
    """
    rest = body[:start] + b"null" + body[after:]
    if b"\\" in rest or rest.count(INSTANCES_KEY) != 1:
        return None
    document = load_flat(rest)
    return None if document is None or document.get("instances", rest) is not None else document


def make_feedback_parser(tables: ModelTables, labels: LabelParser) -> FeedbackParser:
    """Return the parser of feedback for a model."""
    if isinstance(tables, FieldTables):
        return ObjectFeedbackParser(tables, labels)
    return NumberFeedbackParser(tables, labels) if isinstance(tables, TableParser) else FeedbackParser(tables, labels)
