"""The table of error codes: every code that an error body may have, with its HTTP status and what a client may do.

It has the codes of the errors in `service/errors.py` and those of HTTP itself. docs/write_errors.py writes it into
docs/errors.md, and the OpenAPI document lists the codes.
"""

from typing import Final, NamedTuple


class ErrorCode(NamedTuple):
    """One row of the table.

    Attributes:
        status: The HTTP status; on v2 paths 422 becomes 400.
        meaning: What happened, as a sentence.
        retry: Whether and when the same request can be sent again, in a few words.
        stored: Whether anything of the request was stored.
        retry_after: Whether the response has a Retry-After header.
        headers: Further headers of the response.
    """

    status: int
    meaning: str
    retry: str = "after a change"
    stored: str = "no"
    retry_after: bool = False
    headers: tuple[tuple[bytes, bytes], ...] = ()


LATER: Final = "later"
SAME_ID: Final = "later, with the same id"
INTERNAL_ERROR: Final = "internal_error"
# Asks for a key (RFC 6750, section 3).
CHALLENGE: Final = ((b"www-authenticate", b'Bearer realm="softstep"'),)

ERROR_CODES: Final[dict[str, ErrorCode]] = {
    "state_pending": ErrorCode(202, "The state at that seq is being computed.", LATER, retry_after=True),
    "malformed_http": ErrorCode(400, "The request is not valid HTTP/1.1."),
    "invalid_target": ErrorCode(400, "The request's target is not a path of ASCII characters."),
    "malformed_body": ErrorCode(400, "The body cannot be parsed."),
    "malformed_encoding": ErrorCode(400, "The body is not of the Content-Encoding that the request names."),
    "cors_refused": ErrorCode(400, "A browser asks for an origin, method or network that is not allowed.", "no"),
    "load_refused": ErrorCode(400, "The largest version of the model cannot be served; the sentence says why."),
    "key_missing": ErrorCode(401, "The request has no key, and the service requires one.", headers=CHALLENGE),
    "key_invalid": ErrorCode(
        401,
        "The key is unknown, revoked or expired, or the JWT is not valid; the sentence says why.",
        "with another key",
        headers=((b"www-authenticate", b'Bearer realm="softstep", error="invalid_token"'),),
    ),
    "scope_missing": ErrorCode(
        403,
        "The key does not permit calls of this kind.",
        "with another key",
        headers=((b"www-authenticate", b'Bearer realm="softstep", error="insufficient_scope"'),),
    ),
    "model_not_permitted": ErrorCode(403, "The key does not permit calls for this model.", "with another key"),
    "cross_site": ErrorCode(403, "A web page of another site sends the request, and its origin is not allowed."),
    "model_not_found": ErrorCode(404, "No model has that name."),
    "version_not_found": ErrorCode(404, "The model has no such version."),
    "model_not_named": ErrorCode(404, "The path names no model, and there is no single or default one."),
    "unknown_id": ErrorCode(404, "An id to forget or to correct names no feedback of this model."),
    "seq_not_found": ErrorCode(404, "The model has no event with that seq."),
    "not_found": ErrorCode(404, "The service has no such path."),
    "method_not_allowed": ErrorCode(405, "The path does not take this method; `Allow` names those it takes."),
    "request_timeout": ErrorCode(408, "The request took too long to arrive.", "yes"),
    "id_taken": ErrorCode(409, "The id already names an event with other content.", "with another id"),
    "forgotten": ErrorCode(409, "The event was forgotten.", "with another id"),
    "skipped": ErrorCode(409, "The event was skipped, because it cannot be learned.", "with another id"),
    "rolled_back": ErrorCode(409, "A rollback has undone the event.", "with another id"),
    "classes_changed": ErrorCode(409, "Classes were added since the event was made.", "after reading the metadata"),
    "classes_fixed": ErrorCode(409, "The model cannot have further classes.", "no"),
    "rule_fixed": ErrorCode(
        409, "The model learns by `mixture`, and keeps this rule, its `features` and its `seed`.", "after a rollback"
    ),
    "seq_moved": ErrorCode(409, "The model has learned since the seq in `if_seq`.", "after reading the metadata"),
    "stream_gone": ErrorCode(409, "The feedback of this version is no longer stored.", "yes, with the same id"),
    "artifact_changed": ErrorCode(
        409, "The model's files differ from those that its feedback began with.", "with a new version"
    ),
    "earlier_release": ErrorCode(409, "An earlier release made that state, so nothing can roll back to it.", "no"),
    "version_not_served": ErrorCode(
        409,
        "The event or token belongs to a version of the model that is not served.",
        "once that version is served",
        "an event: yes; a token: no",
    ),
    "not_reached_yet": ErrorCode(
        409, "The served state does not hold the event yet.", SAME_ID, "feedback and admin calls: yes", retry_after=True
    ),
    "state_forgotten": ErrorCode(410, "A forgotten event was part of that state, so it is gone.", "no"),
    "state_irreproducible": ErrorCode(410, "An earlier release made that state, and this one cannot.", "no"),
    "body_too_large": ErrorCode(413, "The body has more bytes than the limit."),
    "request_too_large": ErrorCode(413, "The request, or its response, is larger than a limit."),
    "too_many_entries": ErrorCode(
        413, "A row has more entries, columns that are not 0, than the limit, or all rows of a request together have."
    ),
    "unsupported_encoding": ErrorCode(
        415,
        "The Content-Encoding is not supported, or there are several; `Accept-Encoding` names those that are.",
        headers=((b"accept-encoding", b"gzip, deflate, zstd"),),
    ),
    "unsupported_media_type": ErrorCode(415, "The Content-Type is not supported."),
    "invalid_request": ErrorCode(422, "The body parses, but this model cannot accept it."),
    "invalid_value": ErrorCode(422, "A field of a row does not accept its value; the sentence names both."),
    "missing_value": ErrorCode(422, "A row has no value for a field that needs one."),
    "unknown_value": ErrorCode(422, "A row has a category or a name that its field does not know, and refuses."),
    "unknown_field": ErrorCode(422, "A row or a table has a name that is no field of the model."),
    "invalid_parameter": ErrorCode(422, "A parameter in the path or query is not valid."),
    "host_not_permitted": ErrorCode(
        421, "The service has no keys, and the Host header does not name the service's own machine.", "for localhost"
    ),
    "not_in_role": ErrorCode(
        421,
        "This replica has a role without this call: a learner answers health and metrics alone, and a worker folds no "
        "past states.",
        "to a replica of another role",
    ),
    "invalid_token": ErrorCode(422, "A feedback token was altered, or another model or service issued it.", "no"),
    "token_of_other_version": ErrorCode(
        422, "A feedback token was issued by another version than the path names.", "to the model without a version"
    ),
    "token_expired": ErrorCode(422, "A feedback token is too old.", "no"),
    "too_many_classes": ErrorCode(422, "The model would have more classes than the limit."),
    "unknown_seq": ErrorCode(422, "The seq to roll back to is beyond the last one."),
    "feedback_queue_full": ErrorCode(429, "Feedback arrives faster than it is written.", SAME_ID, retry_after=True),
    "learner_behind": ErrorCode(429, "Feedback arrives faster than it is learned.", SAME_ID, retry_after=True),
    "too_many_requests": ErrorCode(429, "The key may not make more requests a second.", LATER, retry_after=True),
    "too_many_rows": ErrorCode(429, "The key may not send more rows a second.", LATER, retry_after=True),
    "too_many_in_flight": ErrorCode(
        429, "The key may not have more requests in progress at one time.", LATER, retry_after=True
    ),
    "too_much_feedback": ErrorCode(
        429, "The key may not send more feedback events to this model now.", SAME_ID, retry_after=True
    ),
    "too_much_importance": ErrorCode(
        429, "The key may not send more importance to this model now.", SAME_ID, retry_after=True
    ),
    "head_too_large": ErrorCode(431, "The request line and headers are too large or too many."),
    INTERNAL_ERROR: ErrorCode(500, "The server failed; its log has the details.", SAME_ID, "unknown"),
    "not_ready": ErrorCode(503, "No model is served, none has caught up with the log, or the server drains.", LATER),
    "model_not_ready": ErrorCode(503, "The model is known but not served now.", LATER, retry_after=True),
    "load_pending": ErrorCode(503, "Not every worker has carried out the load or unload yet.", "yes", retry_after=True),
    "overloaded": ErrorCode(503, "The server has more requests than it can answer in time.", LATER, retry_after=True),
    "issuer_unavailable": ErrorCode(
        503, "The keys of the issuer of JWTs have not been read yet.", LATER, retry_after=True
    ),
    "learning_off": ErrorCode(503, "This service does not learn.", "no"),
    "log_full": ErrorCode(503, "The disk or the write-ahead log is too full.", SAME_ID, retry_after=True),
    "log_unavailable": ErrorCode(503, "The feedback log cannot be used now.", SAME_ID, retry_after=True),
    "log_unsafe": ErrorCode(
        503, "The disk or SQLite would not keep feedback, or another program owns the file.", SAME_ID, retry_after=True
    ),
    "log_damaged": ErrorCode(503, "The feedback log is damaged and must be restored.", SAME_ID, retry_after=True),
    "outcome_unknown": ErrorCode(
        503, "The disk failed during the write.", "yes, with the same id", "unknown", retry_after=True
    ),
}
# A response to several events of which some were refused; its status is that of the first refusal.
SOME_REFUSED: Final = "some_refused"
