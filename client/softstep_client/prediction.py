"""Predictions as flows: rows in the form that suits them, and answers in the form of the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softstep_client.answers import Explanations, Prediction, join_predictions, numpy_array
from softstep_client.client_state import CLASSES_CHANGE, JSON_TYPE, MALFORMED, ClientState, facts_for, model_path
from softstep_client.errors import APIStatusError, SoftstepError
from softstep_client.exchange import exchange, other_service, parse_json
from softstep_client.json_text import encode_json
from softstep_client.rows import RowTable, list_of, table_of
from softstep_client.steps import ApiRequest, Flow, Reply
from softstep_client.tensors import BINARY_NUMBERS_MIN, decode_tensors, encode_tensor

if TYPE_CHECKING:
    from softstep_client.rows import Rows

# On v2 paths the status of rows that the model cannot accept.
BAD_REQUEST = 400


def predict(
    state: ClientState, model: str, rows: Rows, version: int | str | None, min_seq: int | None, *, tokens: bool
) -> Flow[Prediction]:
    """Predict rows, in parts if there are many."""
    table = table_of(rows)
    options = {
        name: value for name, value in (("min_seq", min_seq), ("feedback_tokens", tokens or None)) if value is not None
    }
    size = table.request_rows()
    if table.row_count <= size:
        return (yield from _predict_part(state, model, table, version, options))
    parts: list[Prediction] = []
    for start in range(0, table.row_count, size):
        try:
            part = yield from _predict_part(state, model, table.part(start, start + size), version, options)
        except APIStatusError as error:
            error.first_row = start
            raise
        parts.append(part)
        # A newer version may become ready meanwhile.
        version = part.version
        if part.classes != parts[0].classes:
            raise SoftstepError(CLASSES_CHANGE)
    return join_predictions(parts)


def _predict_part(
    state: ClientState, model: str, table: RowTable, version: int | str | None, options: dict[str, Any]
) -> Flow[Prediction]:
    """Predict the rows of one request; a large array of numbers is sent as binary data."""
    is_large = table.array is not None and table.array.size >= BINARY_NUMBERS_MIN
    if not is_large or options or model in state.json_only:
        return (yield from _predict_json(state, model, table, version, options))
    try:
        return (yield from _predict_binary(state, model, table, version))
    except APIStatusError as error:
        if error.status != BAD_REQUEST:
            raise
    # The model may have fields, whose rows are JSON. If it has not, it refuses the rows again, for the same reason.
    answer = yield from _predict_json(state, model, table, version, options)
    state.json_only.add(model)
    return answer


def explain(
    state: ClientState, model: str, rows: Rows, version: int | str | None, options: dict[str, Any]
) -> Flow[Explanations]:
    """Explain the answers to rows.

    Args:
        state: The state of the client.
        model: The name of the model.
        rows: The rows.
        version: The version of the model, or None.
        options: The members `labels`, `top`, `min_seq` and `seq` of the request; None for one that is left out.
    """
    document = table_of(rows).members()
    document.update((name, value) for name, value in options.items() if value is not None)
    if "labels" in document:
        document["labels"] = list_of(document["labels"])
    request = ApiRequest("POST", model_path(model, version, ":explain"), encode_json(document), JSON_TYPE)
    reply: Reply = yield from exchange(request, state.options)
    try:
        body = parse_json(reply.content)
        explanations, classes = body["explanations"], body["classes"]
        return Explanations(
            explanations, classes, body.get("features"), body["seq"], model, str(body["model_version"]), body
        )
    except MALFORMED:
        raise other_service(reply) from None


def _predict_json(
    state: ClientState, model: str, table: RowTable, version: int | str | None, options: dict[str, Any]
) -> Flow[Prediction]:
    document = table.members()
    document.update(options)
    request = ApiRequest("POST", model_path(model, version, ":predict"), encode_json(document), JSON_TYPE)
    reply: Reply = yield from exchange(request, state.options)
    try:
        body = parse_json(reply.content)
        probabilities, labels = body["outputs" if table.member == "inputs" else "predictions"], body["labels"]
        answered, seq, width = str(body["model_version"]), body["seq"], len(probabilities[0])
    except MALFORMED:
        raise other_service(reply) from None
    facts = yield from facts_for(state, model, answered, width, labels)
    if table.has_numpy:
        probabilities = numpy_array(probabilities, facts.dtype)
    epoch, tokens = body.get("epoch", 0), body.get("feedback_tokens")
    return Prediction(labels, probabilities, list(facts.classes), seq, epoch, model, answered, tokens)


def _predict_binary(state: ClientState, model: str, table: RowTable, version: int | str | None) -> Flow[Prediction]:
    content, headers = encode_tensor(table.array)
    path = model_path(model, version, "/infer", protocol="v2")
    reply: Reply = yield from exchange(ApiRequest("POST", path, content, headers), state.options)
    try:
        answer = decode_tensors(parse_json, reply.content, reply.json_bytes)
        answered, parameters = str(answer.body["model_version"]), answer.body["parameters"]
        seq, epoch, width = parameters["seq"], parameters.get("epoch", 0), answer.probabilities.shape[1]
    except MALFORMED:
        raise other_service(reply) from None
    labels = [] if answer.are_flags else answer.labels
    facts = yield from facts_for(state, model, answered, width, labels)
    if answer.are_flags:
        flags = (answer.labels[start : start + width] for start in range(0, len(answer.labels), width))
        labels = [[name for name, flag in zip(facts.classes, row, strict=True) if flag] for row in flags]
    return Prediction(labels, answer.probabilities, list(facts.classes), seq, epoch, model, answered)
