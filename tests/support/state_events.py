"""The events that a state is folded from, by the definition of the lineage."""

from service.store.log.correction_payload import correct_payload, parse_correction
from service.store.log.events import Event, Kind
from service.store.log.feedback_log import FeedbackLog, read_lineage


def events_of_state(log: FeedbackLog, stream: int, n: int) -> list[Event]:
    """Return the events of E(n) in order, without those that are excluded, and with the labels that they have there."""
    seqs = read_lineage(log, stream).seqs(n)
    events = [log.read_events(stream, seq - 1, 1)[0] for seq in seqs]
    corrections = {
        parse_correction(event.payload).seq: event.payload
        for event in events
        if event.kind == Kind.CORRECT and event.payload is not None
    }
    return [_corrected(event, corrections.get(event.seq)) for event in events]


def _corrected(event: Event, correction: bytes | None) -> Event:
    if correction is None or event.payload is None:
        return event
    return event._replace(payload=correct_payload(event.payload, correction))
