"""The errors that each call documents: its codes, and for each a sentence that the service sends.

A test holds the sentences to what is sent (test_error_codes.py).
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from service.serve.api.schemas.error_bodies import Error
from service.serve.error_codes import ERROR_CODES, SOME_REFUSED

TOKEN_IDS: Final = ("01a22561-e2a2-7469-b24e-885bbb49be0d", "01a22561-e2a2-7469-b24e-885bbb49be0e")
UNPROCESSABLE: Final = 422
BAD_REQUEST: Final = 400

# One sentence of each code that some call documents. Those of the log get a capital and a full stop when they are sent.
SENTENCES: Final = {
    "state_pending": "The state is being computed; ask again in a moment.",
    "malformed_body": "The body is not valid JSON (RFC 8259, UTF-8); the error is near character 1.",
    "malformed_encoding": "The body is not valid gzip from its start to its end; encode it again.",
    "load_refused": "Version 2 was refused: model.safetensors is not the file that tensors_sha256 in model.json names.",
    "key_missing": "This call needs a key: send Authorization: Bearer <key>, or X-API-Key: <key>.",
    "key_invalid": "The key is not valid: it is unknown, revoked or expired; use another one.",
    "scope_missing": "The key has no scope predict; use one that has it.",
    "issuer_unavailable": "The keys of the issuer of JWTs cannot be read now; try again in a moment.",
    "model_not_permitted": "The key does not permit this model; use one that does.",
    "model_not_found": "Request for unknown model: no model has that name.",
    "version_not_found": "Request for unknown model version: the model has no such version.",
    "model_not_named": "Several models are served; set SOFTSTEP_DEFAULT_MODEL or name one in the path.",
    "unknown_id": "An id to forget names no feedback of this model.",
    "forgotten": "The event was forgotten; send its rows as a new event, with another id.",
    "skipped": "The event was skipped; send its rows as a new event, with another id.",
    "rolled_back": "A rollback has undone the event; send it again with another id.",
    "seq_not_found": 'The model has no event with that seq; the last one is "log_seq" of the metadata.',
    "request_timeout": "The request took too long to arrive; send it again on a new connection.",
    "id_taken": "The id was used for another event of this model; give this one an id of its own.",
    "classes_changed": "The model's classes have changed; ask for its metadata and send the event again.",
    "classes_fixed": "A sigmoid head has two classes; train a softmax head to add one.",
    "rule_fixed": "A model that learns by mixture keeps this rule, its features and its seed; "
    "roll back to a seq before it, or name another rule in a new version.",
    "seq_moved": "The model has learned since that seq; ask for its metadata and decide again.",
    "stream_gone": "This version's feedback is no longer stored; send the event again.",
    "artifact_changed": "The model's files differ from those that its feedback began with; "
    "serve them as a new version.",
    "earlier_release": "An earlier release made that state; go back to seq 12 or a later one, or to 0, "
    "the model as it was trained.",
    "version_not_served": "The event is stored by a version of the model that is not served; "
    "load that version to wait for it.",
    "not_reached_yet": "The event is stored but not served yet; ask with min_seq in a moment.",
    "state_forgotten": "A forgotten event was part of that state, so it is gone; ask for another seq.",
    "state_irreproducible": "An earlier release made that state, and this one cannot; "
    "ask for seq 12 or a later one, or for 0.",
    "body_too_large": "The body may have at most 67108864 bytes; send several requests.",
    "request_too_large": "A request may have at most 65536 rows; send several requests.",
    "unsupported_encoding": "Content-Encoding must be gzip, deflate or zstd; encode the body once, or not at all.",
    "unsupported_media_type": "Content-Type must be application/json, or application/octet-stream for binary tensors.",
    "cross_site": "A web page of another site may not send this; SOFTSTEP_CORS_ORIGINS names the origins that may.",
    "invalid_request": "Row 0 has 3 values; this model takes 4.",
    "invalid_parameter": '"wait" must be true or false.',
    "invalid_value": 'Row 1: "age" must be a number or null.',
    "missing_value": 'Row 0: "body" is missing, and must be a text.',
    "unknown_value": 'Row 0: "country" must be one of the values that the model knows.',
    "unknown_field": 'Row 0 has a name that is no field; the fields are "age", "country", "body".',
    "too_many_entries": 'Row 0: "body" has more than 65536 n-grams.',
    "invalid_token": "Token 0 was altered, or another model or service issued it; post it unchanged to its model.",
    "token_of_other_version": "Token 0 was issued by another version than the path names; "
    "post it to the model without a version.",
    "token_expired": "Token 0 has expired; post the row itself with its label.",
    "too_many_classes": "A model may have at most 10000 classes.",
    "unknown_seq": "The seq to go back to is after the last one; name an earlier one.",
    "feedback_queue_full": "Feedback arrives faster than it can be written; send it again in a moment.",
    "learner_behind": "Feedback arrives faster than the model learns; send it again later.",
    "too_many_requests": "The key may make 100 requests a second; try again in 1 s.",
    "too_many_rows": "The key may send 1000 rows a second; try again in 2 s.",
    "too_many_in_flight": "The key may have 8 requests in progress at one time; try again in 1 s.",
    "too_much_feedback": "The key may send 1000 feedback events an hour to one model; try again in 4 s.",
    "too_much_importance": "The key may send 1000 units of importance an hour to one model; try again in 4 s.",
    "internal_error": "The server failed to answer; the fault is in its log.",
    "not_in_role": "This replica has a role without this call; send it to a replica of another role.",
    "not_ready": "Not ready: no model is served, or the server is draining.",
    "model_not_ready": "Model is not ready: none of its versions is loaded.",
    "load_pending": "Not every worker has done this yet; check the model again in a moment.",
    "overloaded": "The server has more requests than it can answer in time; try again in a moment.",
    "learning_off": "This service does not learn: SOFTSTEP_LEARN is off, or its data directory is read-only.",
    "log_full": "The disk is nearly full; feedback is accepted again once there is space.",
    "log_unavailable": "The feedback log cannot be used now; try again.",
    "log_unsafe": "The file of the feedback log is another program's database; use another directory.",
    "log_damaged": "The feedback log's database is damaged; restore a backup.",
    "outcome_unknown": "The disk failed; send the event again, with the same id.",
}
# Of a call that changes which models are unloaded in a shared log.
LIST_CHANGED: Final = {
    "log_damaged": "the list of unloaded models has another form",
    "outcome_unknown": "the database did not confirm the change, which may be made or not; look, and try again",
}
# Sentences of calls whose bodies are not rows.
OTHER_SENTENCES: Final = {
    "convert": {"invalid_request": "Row 0 has a value that is neither a number nor null."},
    "predict": {"not_reached_yet": "The model has not learned as far as min_seq yet; ask again in a moment."},
    "infer": {"invalid_request": '"shape" must be [rows, 4].'},
    "classes": {"invalid_request": "A class is named twice, or is one of the model's already."},
    "forget": {"invalid_request": '"ids" must be a list of 1 to 100000 ids of feedback, each of 1 to 128 bytes.'},
    "correct": {
        "invalid_request": '"labels" must be a list of one list of labels for each of "ids".',
        "unknown_id": "An id to correct names no feedback of this model.",
        "classes_changed": "A class was added after that feedback, which can have only the classes that existed then.",
    },
    "rollback": {"invalid_request": '"seq" must be the seq of an event, an integer from 0 to 1099511627775.'},
    "configure": {"invalid_request": '"paused" must be true or false.'},
    "history": {"invalid_parameter": '"seq" must be the seq of an event, an integer from 0 to 1099511627775.'},
    "weights": {"invalid_parameter": '"seq" must be the seq of an event, an integer from 0 to 1099511627775.'},
    "index": {"invalid_request": '"ready" must be true or false.'},
    "load": {
        "invalid_request": '"parameters" must be empty: models are loaded from the models directory alone.',
        **LIST_CHANGED,
    },
    "unload": LIST_CHANGED,
}

FAILURE: Final = ("internal_error",)
# What any call but the probes of health can answer.
BUSY: Final = ("overloaded", *FAILURE)
# What any call with a body can answer.
MEDIA: Final = ("malformed_encoding", "unsupported_encoding", "unsupported_media_type")
BODY: Final = ("malformed_body", "body_too_large", "request_too_large", "request_timeout", *MEDIA, *BUSY)
MODEL: Final = ("model_not_found", "version_not_found", "model_not_ready")
FIELDS: Final = ("invalid_value", "missing_value", "unknown_value", "unknown_field", "too_many_entries")
ROWS: Final = (*BODY, "invalid_request", *FIELDS, "too_many_rows")
# What any event can answer on its way into the log.
LOG: Final = ("learning_off", "log_full", "log_unavailable", "log_unsafe", "log_damaged", "outcome_unknown")
EVENT: Final = (
    *MODEL,
    "id_taken",
    "stream_gone",
    "artifact_changed",
    "version_not_served",
    "not_reached_yet",
    "invalid_parameter",
    "feedback_queue_full",
    *LOG,
)
# What reading the log can answer.
LOG_READ: Final = ("log_unavailable", "log_damaged")
ADMIN: Final = (*BODY, *EVENT, "invalid_request", "seq_moved")


def error_responses(call: str, *codes: str, v2: bool = False) -> dict[int | str, Any]:
    """Return the error responses of a call, by their statuses.

    Args:
        call: The call's name in `OTHER_SENTENCES`.
        codes: The codes that the call can answer.
        v2: Whether 422 becomes 400.
    """
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        status = ERROR_CODES[code].status
        by_status.setdefault(BAD_REQUEST if v2 and status == UNPROCESSABLE else status, []).append(code)
    sentences = SENTENCES | OTHER_SENTENCES.get(call, {})
    return {status: error_response(sentences, by_status[status]) for status in sorted(by_status)}


def error_response(sentences: Mapping[str, str], codes: Iterable[str]) -> dict[str, Any]:
    """Return the error response with some codes, each with a sentence as an example."""
    examples = {
        code: {"summary": ERROR_CODES[code].meaning, "value": {"error": sentences[code], "code": code}}
        for code in codes
    }
    return {"model": Error, "content": {"application/json": {"examples": examples}}}


def some_refused(reason: str) -> dict[str, Any]:
    """Return the example of a response to two tokens of which the second was refused."""
    value = {
        "error": f"Some events were refused; the others are stored: {SENTENCES[reason].replace('Token 0', 'Token 1')}",
        "code": SOME_REFUSED,
        "reason": reason,
        "accepted": 1,
        "refused": [1],
        "events": [
            {"id": TOKEN_IDS[0], "seq": 2, "duplicate": False},
            {"code": reason} if reason == "invalid_token" else {"id": TOKEN_IDS[1], "code": reason},
        ],
    }
    return {"summary": "Some events are stored, the others are refused.", "value": value}


def all_refused(code: str) -> dict[str, Any]:
    """Return the example of a response to one token, which was refused."""
    value = {"error": SENTENCES[code], "code": code, "accepted": 0, "refused": [0], "events": [{"code": code}]}
    return {"summary": ERROR_CODES[code].meaning, "value": value}
