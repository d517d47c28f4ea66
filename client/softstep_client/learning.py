"""Calls that write, as flows: feedback, and changes of what was learned.

Each has an id before its first try, and its retries send the same bytes, so that it counts once. Rows of feedback are
sent in batches; each batch is one event with an id of its own. A token has its id inside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from softstep_client.answers import Receipt, join_receipts, parse_receipt
from softstep_client.client_state import JSON_TYPE, MALFORMED, ClientState, model_path
from softstep_client.errors import APIStatusError, InputError
from softstep_client.event_ids import id_of_part, new_id
from softstep_client.exchange import exchange, other_service, parse_json
from softstep_client.json_text import encode_json
from softstep_client.rows import list_of, table_of
from softstep_client.steps import ApiRequest, Flow, Reply

if TYPE_CHECKING:
    from collections.abc import Iterable

    from softstep_client.rows import Rows

# Rows of one event, and tokens of one request. The service takes 65,536 rows and 64 MiB; this many make an event that
# is learned within some milliseconds, and a call that is not lost as a whole.
BATCH_ROWS = 1000
# A call with `wait=true` may wait as long in the service (SOFTSTEP_WAIT_SECONDS) until it is refused.
WAIT_SECONDS = 10.0

# Members of changes that may be arrays or series.
LISTS = frozenset(("ids", "labels", "add"))


class WriteOptions(NamedTuple):
    """Options of a call that writes.

    Attributes:
        version: A version of the model, or None.
        event_id: The id of the call, or None for a new one.
        if_seq: The event after which nothing may have been learned, or None.
        wait: Whether to wait until the result is served.
    """

    version: int | str | None
    event_id: str | None
    if_seq: int | None
    wait: bool


class Lesson(NamedTuple):
    """The arguments of feedback.

    Attributes:
        rows: The rows, or None.
        tokens: Tokens in place of rows, or None.
        labels: A label for each of them.
        weights: Their importance, or None.
        batch: The number of rows of an event.
    """

    rows: Rows | None
    tokens: Iterable[str] | None
    labels: Iterable[Any] | None
    weights: Iterable[float] | None
    batch: int


def feedback(state: ClientState, model: str, lesson: Lesson, options: WriteOptions) -> Flow[Receipt]:
    """Send rows or tokens with their labels."""
    _check(lesson, options)
    table = None if lesson.rows is None else table_of(lesson.rows)
    tokens = [] if lesson.tokens is None else list_of(lesson.tokens)
    columns = {"labels": list_of(lesson.labels)}
    if lesson.weights is not None:
        columns["weights"] = list_of(lesson.weights)
    count = len(tokens) if table is None else table.row_count
    if not count or any(len(values) != count for values in columns.values()):
        raise InputError(f"Each of the {count} rows or tokens must have a label, and a weight if there are weights.")
    first_id = options.event_id or new_id()
    receipts = []
    for part, start in enumerate(range(0, count, lesson.batch)):
        stop = min(start + lesson.batch, count)
        document: dict[str, Any] = {name: values[start:stop] for name, values in columns.items()}
        if table is None:
            request = _request(model, "feedback", document | {"tokens": tokens[start:stop]}, options)
        else:
            document |= {"id": id_of_part(first_id, part), **table.part(start, stop).members()}
            request = _request(model, "feedback", document, options, first_id)
        try:
            receipts.append((yield from _send(state, request, 1 if table is None else stop - start)))
        except APIStatusError as error:
            error.first_row = start
            raise
    return join_receipts(receipts)


def _check(lesson: Lesson, options: WriteOptions) -> None:
    if (lesson.rows is None) == (lesson.tokens is None) or lesson.labels is None:
        raise InputError("Feedback takes labels, and either rows or tokens.")
    if lesson.tokens is not None and options.event_id is not None:
        raise InputError("Feedback of tokens takes no id; each token has its own.")
    if not isinstance(lesson.batch, int) or lesson.batch < 1:
        raise InputError("batch must be a whole number, 1 or more.")


def change(state: ClientState, model: str, call: str, members: dict[str, Any], options: WriteOptions) -> Flow[Receipt]:
    """Change what was learned.

    Args:
        state: The state of the client.
        model: The name of the model.
        call: The call, such as "rollback".
        members: Its body without an id; None for a member that is left out.
        options: The options of the call.
    """
    event_id = options.event_id or new_id()
    document = {
        name: list_of(value) if name in LISTS else value for name, value in members.items() if value is not None
    }
    document["id"] = event_id
    if options.if_seq is not None:
        document["if_seq"] = options.if_seq
    try:
        return (yield from _send(state, _request(model, call, document, options, event_id), 0))
    finally:
        state.forget_classes(model)


def _request(
    model: str, call: str, document: dict[str, Any], options: WriteOptions, event_id: str | None = None
) -> ApiRequest:
    path = model_path(model, options.version, f":{call}?wait=true" if options.wait else f":{call}")
    seconds = WAIT_SECONDS if options.wait else 0.0
    return ApiRequest("POST", path, encode_json(document), JSON_TYPE, seconds, event_id)


def _send(state: ClientState, request: ApiRequest, count: int) -> Flow[Receipt]:
    """Send a call that writes, whose events have so many rows each."""
    reply: Reply = yield from exchange(request, state.options)
    try:
        return parse_receipt(parse_json(reply.content), count)
    except MALFORMED:
        raise other_service(reply, request.event_id) from None
