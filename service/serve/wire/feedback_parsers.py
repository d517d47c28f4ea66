"""The parser of feedback for a model: the general one, or one with a faster way for the usual row of the model."""

import re
from typing import Final

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

    def parse_feedback(self, body: bytes) -> PostedEvent | PostedTokens:
        """Parse a body; see the base class."""
        return self._parse_object(body) or super().parse_feedback(body)

    def _parse_object(self, body: bytes) -> PostedEvent | None:
        """Return the event of a body with one object and flat fields, or None if unsure.

        The text around the row has no second key of its name, so the null in its place is what takes it (as in
        `cut_matrix`).
        """
        key = OBJECT_KEY.search(body)
        cut = None if key is None else self._fields.cut_object(body, key.end())
        if key is None or cut is None:
            return None
        rest = body[: key.end()] + b"null" + body[cut.after :]
        document = load_flat(rest) if b"\\" not in rest and rest.count(INSTANCES_KEY) == 1 else None
        if document is None or document.get("instances", rest) is not None:
            return None
        try:
            return self._make_event(document, cut.rows)
        except InputError:
            return None


def make_feedback_parser(tables: ModelTables, labels: LabelParser) -> FeedbackParser:
    """Return the parser of feedback for a model."""
    if isinstance(tables, FieldTables):
        return ObjectFeedbackParser(tables, labels)
    return NumberFeedbackParser(tables, labels) if isinstance(tables, TableParser) else FeedbackParser(tables, labels)
