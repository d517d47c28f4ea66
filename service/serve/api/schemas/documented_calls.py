"""Descriptions of calls in the OpenAPI document: bodies with examples, statuses and errors, by name in `DOCS`."""

from typing import Any, Final

from pydantic import BaseModel

from service import __version__
from service.serve.api.schemas import (
    admin_bodies,
    convert_bodies,
    error_bodies,
    explain_bodies,
    feedback_bodies,
    health_bodies,
    history_bodies,
    invocation_bodies,
    key_bodies,
    metadata_bodies,
    oip_bodies,
    oip_metadata_bodies,
    predict_bodies,
    repository_bodies,
    tensorflow_bodies,
)
from service.serve.api.schemas.call_docs import (
    JSON,
    SEQ_HEADER,
    Docs,
    Examples,
    call,
    event_call,
    file_content,
    request,
    response,
)
from service.serve.api.schemas.error_examples import (
    ADMIN,
    BODY,
    BUSY,
    EVENT,
    FAILURE,
    LOG_READ,
    MODEL,
    ROWS,
    SENTENCES,
    all_refused,
    some_refused,
)
from service.serve.api.schemas.event_list_call import describe_event_list
from service.serve.api.schemas.invocation_call import describe_invocations
from service.serve.error_codes import ERROR_CODES

STORED: Final = "The event is on disk."
SERVED: Final = "The event is on disk and served; wait=true asks for that."

# Models of request bodies; the routes read bytes, so FastAPI does not find them by itself.
REQUESTS: Final[tuple[type[BaseModel], ...]] = (
    admin_bodies.AddClassesRequest,
    admin_bodies.ConfigureRequest,
    admin_bodies.CorrectRequest,
    admin_bodies.ForgetRequest,
    admin_bodies.RollbackRequest,
    convert_bodies.ConvertRequest,
    *explain_bodies.EXPLAIN_BODIES,
    feedback_bodies.FeedbackRequest,
    history_bodies.TrajectoryRequest,
    invocation_bodies.InputsInvocation,
    invocation_bodies.InstancesInvocation,
    invocation_bodies.RecordsInvocation,
    invocation_bodies.SplitInvocation,
    oip_bodies.InferRequest,
    *predict_bodies.PREDICT_BODIES,
    repository_bodies.LoadRequest,
    repository_bodies.RepositoryIndexRequest,
    repository_bodies.UnloadRequest,
)
TOKEN_CODES: Final = ("invalid_token", "token_expired", "token_of_other_version")
# What a state of the past can answer.
PAST: Final = ("seq_not_found", "state_forgotten", "state_irreproducible", "state_pending", "not_in_role", *LOG_READ)
PREDICT_CODES: Final = (*ROWS, "model_not_ready", "not_reached_yet", "learning_off")


def _predict() -> Docs:
    bodies = predict_bodies
    body = request(bodies.PredictRequest, bodies.PREDICT_REQUESTS, *bodies.PREDICT_BODIES[1:])
    success = response(bodies.PredictResponse | bodies.OutputsResponse, bodies.PREDICT_RESPONSES)
    return call("predict", success, (*PREDICT_CODES, "model_not_found", "version_not_found"), body)


def _explain() -> Docs:
    bodies = explain_bodies
    body = request(bodies.ExplainRequest, bodies.EXPLAIN_REQUESTS, *bodies.EXPLAIN_BODIES[1:])
    success = response(bodies.ExplainResponse, bodies.EXPLAIN_RESPONSES)
    return call("predict", success, (*ROWS, *MODEL, "not_reached_yet", *PAST), body)


def _trajectory() -> Docs:
    bodies = history_bodies
    body = request(bodies.TrajectoryRequest, bodies.TRAJECTORY_REQUESTS)
    return call("predict", response(bodies.RowTrajectory, bodies.TRAJECTORY), (*ROWS, *MODEL), body)


def _convert() -> Docs:
    bodies = convert_bodies
    body = request(bodies.ConvertRequest, bodies.CONVERT_REQUESTS)
    return call("convert", response(bodies.ConvertResponse, bodies.CONVERT_RESPONSES), ROWS, body)


def _admin(name: str, body: Docs, *codes: str) -> Docs:
    accepted, events = feedback_bodies.FeedbackAccepted, admin_bodies.ADMIN_ACCEPTED
    stored, served = response(accepted, events, STORED), response(accepted, events, SERVED)
    return event_call(name, body, stored, served, (*ADMIN, "rolled_back", *codes))


def _forget() -> Docs:
    body = request(admin_bodies.ForgetRequest, admin_bodies.FORGET_REQUESTS)
    accepted: Any = feedback_bodies.FeedbackAccepted | admin_bodies.AcceptedInVersions
    events = admin_bodies.FORGET_ACCEPTED
    stored, served = response(accepted, events, STORED), response(accepted, events, SERVED)
    docs = event_call("forget", body, stored, served, (*ADMIN, "unknown_id"))
    # In one of several versions the id of the call may be taken.
    _add_refusals_of_several(docs, {409: "id_taken"})
    return docs


def _correct() -> Docs:
    body = request(admin_bodies.CorrectRequest, admin_bodies.CORRECT_REQUESTS)
    events = admin_bodies.CORRECT_ACCEPTED
    stored = response(feedback_bodies.TokensAccepted, events, STORED)
    served = response(feedback_bodies.TokensAccepted, events, SERVED)
    codes = ("unknown_id", "forgotten", "skipped", "rolled_back", "classes_changed", "learner_behind")
    docs = event_call("correct", body, stored, served, (*ADMIN, *codes))
    # An event that another call removes at the same moment is refused alone.
    _add_refusals_of_several(docs, {409: "forgotten"})
    return docs


def _feedback() -> Docs:
    bodies = feedback_bodies
    limits = ("learner_behind", "too_much_feedback", "too_much_importance")
    docs = event_call(
        "feedback",
        request(bodies.FeedbackRequest, bodies.FEEDBACK_REQUESTS),
        response(bodies.FeedbackAccepted | bodies.TokensAccepted, bodies.FEEDBACK_ACCEPTED, STORED),
        response(bodies.FeedbackServed | bodies.TokensServed, bodies.FEEDBACK_SERVED, SERVED),
        (*ROWS, *EVENT, *TOKEN_CODES, "forgotten", "skipped", "rolled_back", "classes_changed", *limits),
    )
    _add_refusals_of_several(
        docs, {409: "id_taken", 422: "invalid_token", 429: "learner_behind", 503: "log_unavailable"}
    )
    docs["responses"][422]["content"][JSON]["examples"] |= {code: all_refused(code) for code in TOKEN_CODES}
    return docs


def _add_refusals_of_several(docs: Docs, reasons: dict[int, str]) -> None:
    """Add the responses to several events of which some were refused: they have the status of the first refusal."""
    for status, reason in reasons.items():
        refusal = docs["responses"][status]
        refusal["model"] = error_bodies.Error | error_bodies.AllRefused | error_bodies.PartlyRefused
        refusal["content"][JSON]["examples"]["some_refused"] = some_refused(reason)


def _history(model: type[BaseModel], values: Examples, *codes: str) -> Docs:
    return call("history", response(model, values), (*MODEL, *BUSY, *codes))


def _weights() -> Docs:
    bodies = metadata_bodies
    docs = call("weights", {}, (*MODEL, *BUSY, *PAST, "invalid_parameter"))
    docs["responses"][200] = {
        "description": "A safetensors file. The example is its JSON header.",
        "headers": {
            "X-Softstep-Seq": {"description": "The seq of the state.", **SEQ_HEADER},
            "X-Softstep-Weights-Sha256": {
                "description": "The SHA-256 of the weights.",
                "schema": {"type": "string"},
                "example": bodies.IRIS_SHA256,
            },
        },
        "content": file_content({"the JSON header": bodies.WEIGHTS_HEADER}),
    }
    return docs


def _metrics() -> Docs:
    content = {"text/plain": {"schema": {"type": "string"}, "example": health_bodies.METRICS}}
    return call("metrics", {"description": "OK", "content": content}, FAILURE)


def _ping() -> Docs:
    docs = _ready(health_bodies.Ready, {})
    docs["responses"][200] = {"description": "The server takes predictions; the body is empty."}
    return docs


def _version() -> Docs:
    content = {"text/plain": {"schema": {"type": "string"}, "example": __version__}}
    return call("version", {"description": "OK", "content": content}, BUSY)


def _ready(model: type[BaseModel], values: dict[str, object], *codes: str) -> Docs:
    docs = call("ready", response(model, values), (*codes, *FAILURE))
    refusal = docs["responses"].setdefault(503, {"content": {JSON: {"examples": {}}}})
    refusal["model"] = error_bodies.NotReady | error_bodies.Error if codes else error_bodies.NotReady
    refusal["content"][JSON]["examples"]["not_ready"] = {
        "summary": ERROR_CODES["not_ready"].meaning,
        "value": {"ready": False, "error": SENTENCES["not_ready"], "code": "not_ready"},
    }
    return docs


def _infer() -> Docs:
    bodies = oip_bodies
    body = request(bodies.InferRequest, bodies.INFER_REQUESTS)
    body["requestBody"]["content"] |= file_content({"the JSON part": bodies.BINARY_REQUEST})
    body["parameters"] = [bodies.LENGTH_PARAMETER]
    docs = call("infer", response(bodies.InferResponse, bodies.INFER_RESPONSES), (*ROWS, *MODEL), body, v2=True)
    success = docs["responses"][200]
    success["headers"] = {"Inference-Header-Content-Length": bodies.LENGTH_HEADER}
    success["content"] |= file_content({"the JSON part": bodies.BINARY_RESPONSE})
    return docs


def _repository(name: str, body: Docs, success: Docs, *codes: str) -> Docs:
    return call(name, success, (*BODY, "invalid_request", *codes), body, v2=True)


_ADMIN: Final = admin_bodies
_OIP: Final = oip_metadata_bodies
_REPOSITORY: Final = repository_bodies
_HEALTH: Final = health_bodies
_OF_MODEL: Final = (*MODEL, *BUSY)
_CHANGED: Final = ("model_not_found", "model_not_ready", "load_pending", *LOG_READ, "log_unsafe", "outcome_unknown")
_LOADED: Final = (*_CHANGED, "load_refused")

DOCS: Final[dict[str, Docs]] = {
    "models": call("models", response(metadata_bodies.ModelList, metadata_bodies.MODELS), BUSY),
    "metadata": call(
        "metadata",
        response(metadata_bodies.ModelMetadata | metadata_bodies.UnavailableModel, metadata_bodies.METADATA),
        _OF_MODEL,
    ),
    "row_schema": call("metadata", response(metadata_bodies.RowSchema, metadata_bodies.ROW_SCHEMA), _OF_MODEL),
    "pulse": _history(history_bodies.ModelPulse, history_bodies.PULSE, "invalid_parameter"),
    "history": _history(history_bodies.HistoryBuckets, history_bodies.HISTORY),
    "drift": _history(history_bodies.FeatureDrift, history_bodies.DRIFT),
    "quality": _history(history_bodies.AnswerQuality, history_bodies.QUALITY, "invalid_parameter"),
    "trajectory": _trajectory(),
    "predict": _predict(),
    "invocations": describe_invocations((*PREDICT_CODES, "model_not_found", "model_not_named")),
    "explain": _explain(),
    "convert": _convert(),
    "feedback": _feedback(),
    "classes": _admin(
        "classes", request(_ADMIN.AddClassesRequest, _ADMIN.CLASSES_REQUESTS), "classes_fixed", "too_many_classes"
    ),
    "forget": _forget(),
    "correct": _correct(),
    "rollback": _admin(
        "rollback", request(_ADMIN.RollbackRequest, _ADMIN.ROLLBACK_REQUESTS), "earlier_release", "unknown_seq"
    ),
    "configure": _admin("configure", request(_ADMIN.ConfigureRequest, _ADMIN.CONFIGURE_REQUESTS), "rule_fixed"),
    "signature": call("signature", response(tensorflow_bodies.ModelSignature, tensorflow_bodies.SIGNATURE), _OF_MODEL),
    "weights": _weights(),
    "events": describe_event_list(),
    "server": call("server", response(_OIP.ServerMetadata, _OIP.SERVER), BUSY),
    "live": call("live", response(_HEALTH.Live, _HEALTH.LIVE), FAILURE),
    "alive": call("live", response(_HEALTH.Alive, _HEALTH.ALIVE), FAILURE),
    "ping": _ping(),
    "version": _version(),
    "ready": _ready(_HEALTH.Ready, _HEALTH.READY),
    "model_ready": _ready(_HEALTH.ModelReady, _HEALTH.MODEL_READY, *MODEL, "overloaded"),
    "tensors": call("tensors", response(_OIP.TensorModelMetadata, _OIP.TENSORS), _OF_MODEL),
    "config": call("config", response(_OIP.ModelConfig, _OIP.CONFIG), _OF_MODEL),
    "all_stats": call("stats", response(_OIP.ModelStatistics, _OIP.STATISTICS), BUSY),
    "stats": call("stats", response(_OIP.ModelStatistics, _OIP.STATISTICS), _OF_MODEL),
    "infer": _infer(),
    "index": _repository(
        "index",
        request(_REPOSITORY.RepositoryIndexRequest, _REPOSITORY.INDEX_REQUESTS, required=False),
        response(_REPOSITORY.RepositoryIndex, _REPOSITORY.INDEX_RESPONSES),
    ),
    "load": _repository(
        "load",
        request(_REPOSITORY.LoadRequest, _REPOSITORY.LOAD_REQUESTS, required=False),
        response(_REPOSITORY.ModelLoaded, _REPOSITORY.LOAD_RESPONSES),
        *_LOADED,
    ),
    "unload": _repository(
        "unload",
        request(_REPOSITORY.UnloadRequest, _REPOSITORY.LOAD_REQUESTS, required=False),
        response(_REPOSITORY.ModelUnloaded, _REPOSITORY.UNLOAD_RESPONSES),
        *_CHANGED,
    ),
    "metrics": _metrics(),
    "key": call("key", response(key_bodies.KeyDescription, key_bodies.KEYS), BUSY),
}
