"""Description of the list of events in the OpenAPI document: JSON, or a line for each event."""

from service.serve.api.schemas import event_bodies
from service.serve.api.schemas.call_docs import NDJSON, Docs, call, response, text_content
from service.serve.api.schemas.error_examples import BUSY, LOG_READ, MODEL


def describe_event_list() -> Docs:
    """Return what the document says of the call."""
    bodies = event_bodies
    codes = (*MODEL, *BUSY, "invalid_parameter", "learning_off", *LOG_READ)
    docs = call("events", response(bodies.EventList, bodies.EVENTS), codes)
    docs["responses"][200]["content"] |= text_content(NDJSON, bodies.EVENT_LINES)
    return docs
