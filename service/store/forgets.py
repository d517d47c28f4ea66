"""Forgetting by id alone: an id names one event among all versions of a model, and it is forgotten where it lies."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from service.errors import UnknownIdError
from service.store.admin import dump_forget_ids
from service.store.feedback import Draft, FeedbackLog, Kind


def forget_drafts(log: FeedbackLog, model: str, ids: Sequence[bytes], id_: bytes, time_ms: int) -> list[Draft]:
    """The events that forget the feedback with some ids: one for each stream that holds any, by the stream's number.

    They are given to one `append`, so all are on disk or none. The ids of a model's events do not change, and nothing
    is purged while the service runs, so none of them is refused for what this function has found to be there.

    Args:
        log: Where the events are.
        model: The model's name.
        ids: The ids to forget, at least one.
        id_: The id of the call. Where one stream holds all, that is its event's; each of several events has an id that
            is made of it, so that the same call again is the same events. Such an id is no text: no client has it.
        time_ms: The time, for people.

    Raises:
        UnknownIdError: An id names no feedback of the model; nothing is to be forgotten then.
    """
    places = log.find(model, ids)
    by_stream: defaultdict[int, list[bytes]] = defaultdict(list)
    for one in dict.fromkeys(ids):
        if one not in places:
            raise UnknownIdError("an id to forget names no feedback of this model")
        by_stream[places[one].stream].append(one)
    for stream, its_ids in by_stream.items():
        if not {event.id for event in log.admin(stream)}.isdisjoint(its_ids):
            raise UnknownIdError("an id to forget names no feedback of this model")
    return [
        Draft(
            stream,
            Kind.FORGET,
            id_ if len(by_stream) == 1 else _id_of(id_, stream),
            dump_forget_ids(by_stream[stream]),
            time_ms,
        )
        for stream in sorted(by_stream)
    ]


def _id_of(id_: bytes, stream: int) -> bytes:
    """An id of one of a call's events; 0xFF begins no UTF-8."""
    return b"\xff" + hashlib.sha256(b"%d " % stream + id_).digest()
