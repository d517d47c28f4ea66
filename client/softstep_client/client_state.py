"""The state that all calls of a client share, the paths of models, and the classes of an answer.

An answer has probabilities without the names of classes. So the metadata of its version is read once, and again when an
answer does not fit it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from softstep_client.answers import ModelFacts
from softstep_client.errors import InputError, SoftstepError
from softstep_client.exchange import OTHER_SERVICE, exchange, other_service, parse_json
from softstep_client.steps import ApiRequest, Flow, Pause, Reply

if TYPE_CHECKING:
    from softstep_client.options import Options

JSON_TYPE = ((b"Content-Type", b"application/json"),)
# What a malformed answer raises where it is parsed.
MALFORMED = (LookupError, TypeError, ValueError, AttributeError, RecursionError)
# Pauses before the metadata is read again, in seconds: a worker may be some milliseconds behind the one that answered.
METADATA_PAUSES = (0.0, 0.05, 0.5)
CLASSES_CHANGE = "The classes of the model changed during the call; predict again."


class ClientState(NamedTuple):
    """The state of a client; those of `with_options` have other options and share the rest.

    Attributes:
        options: The options of its calls.
        facts: What is known about each model and version.
        json_only: Models that refuse binary rows and take the same rows as JSON, because they have fields.
    """

    options: Options
    facts: dict[tuple[str, str], ModelFacts]
    json_only: set[str]

    def forget_classes(self, model: str) -> None:
        """Forget the classes of a model, because a call may change them."""
        for key in [key for key in self.facts if key[0] == model]:
            self.facts.pop(key, None)


def model_path(model: str, version: int | str | None, call: str = "", protocol: str = "v1") -> str:
    """Return the path of a model or of one of its versions, with a call such as ":predict" or "/ready".

    Raises:
        InputError: The name or the version can be no part of a path.
    """
    if not isinstance(model, str) or not model.strip("."):
        raise InputError("The name of a model must be a text such as iris.")
    path = f"/{protocol}/models/{quote(model, safe='')}"
    if version is None:
        return path + call
    if not str(version).isdigit():
        raise InputError("A version must be a whole number, such as 1.")
    return f"{path}/versions/{version}{call}"


def read_json(state: ClientState, request: ApiRequest) -> Flow[dict[str, Any]]:
    """Send a request and return the JSON object of its answer."""
    reply: Reply = yield from exchange(request, state.options)
    try:
        return parse_json(reply.content)
    except MALFORMED:
        raise other_service(reply, request.event_id) from None


def facts_for(state: ClientState, model: str, version: str, width: int, labels: list[Any]) -> Flow[ModelFacts]:
    """Return what is known about a version; read its metadata if an answer does not fit that.

    Args:
        state: The state of the client.
        model: The name of the model.
        version: The version that answered.
        width: The number of probabilities of a row of the answer.
        labels: The names of classes in the answer, or [].

    Raises:
        SoftstepError: The classes change faster than they are read.
    """
    known = state.facts.get((model, version))
    if known is not None and known.fits(width, labels):
        return known
    for pause in METADATA_PAUSES:
        if pause:
            yield Pause(pause)
        body = yield from read_json(state, ApiRequest("GET", model_path(model, version)))
        try:
            classes, dtype = [str(name) for name in body["classes"]], str(body["dtype"])
        except MALFORMED:
            raise SoftstepError(OTHER_SERVICE) from None
        # Classes are added at the end, so that the first ones are those of an earlier answer.
        facts = ModelFacts(classes[:width], dtype)
        if facts.fits(width, labels):
            state.facts[model, version] = facts
            return facts
    raise SoftstepError(CLASSES_CHANGE)
