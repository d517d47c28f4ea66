"""Corrections of labels: the CORRECT events of a call, appended in one transaction on the thread that has the log.

Each id of a call becomes one event. The first has the call's id; the second has that id and "/2", the third "/3", and
so on, so that a retry finds all of them. The events may be in several versions of the model.

Labels are parsed as those of the post that they replace: with the classes that its version had then. These are the
first classes of the version now, because the state contains the event.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from service.errors import (
    ArtifactError,
    ClassesChangedError,
    IdConflictError,
    LogUnavailableError,
    UnacceptableError,
    UnknownIdError,
)
from service.serve.wire.labels import LabelParser, ParsedLabels
from service.store.artifact.manifest import Manifest
from service.store.log.admin_payloads import parse_classes
from service.store.log.append_rules import refuse_uncorrectable
from service.store.log.correction_payload import encode_correction
from service.store.log.events import ID_BYTES_MAX, Draft, EventLocation, Kind, Outcome, Stream
from service.store.log.feedback_log import FeedbackLog, read_event
from service.store.log.feedback_payload import Layout, parse_layout
from service.store.log.lineage import Lineage, lineage_change
from service.store.log.removals import removal_error

# Each id is an event of its own; more of them would keep other writers waiting for too long.
CORRECT_MAX: Final = 1000
UNKNOWN: Final = "an id to correct names no feedback of this model"

# Returns the manifest that the stream of a model's version is bound to.
ReadManifest = Callable[[str, int], Manifest]


class CorrectionCall(NamedTuple):
    """A call that corrects labels.

    Attributes:
        model: The model's name.
        version: The version that holds the events, or None for any.
        ids: The ids of the feedback events, all different.
        labels: For each id a parsed JSON list with the label of each row.
        id: The id of the call.
        if_seq: The last seq that the stream may have, or None.
        actor: Who makes the call.
    """

    model: str
    version: int | None
    ids: Sequence[bytes]
    labels: Sequence[list[Any]]
    id: bytes
    if_seq: int | None
    actor: str

    @property
    def event_ids(self) -> list[bytes]:
        """The id of each event, in the order of `ids`."""
        return [self.id, *(b"%b/%d" % (self.id, number) for number in range(2, len(self.ids) + 1))]


class CorrectedStream:
    """A stream whose events are corrected, as it is in the log.

    Args:
        log: The log.
        stream: The stream.
        manifest: The manifest that it is bound to.

    Attributes:
        classes: The names of all classes.
    """

    def __init__(self, log: FeedbackLog, stream: Stream, manifest: Manifest) -> None:
        self._log: Final = log
        self._number: Final = stream.number
        self._last: Final = log.stream_state(stream.number).seq
        admin = log.read_admin_events(stream.number)
        self._lineage: Final = Lineage(map(lineage_change, admin))
        class_set = set(self._lineage.class_set(self._last))
        added = (parse_classes(event.payload or b"") for event in admin if event.seq in class_set)
        self.classes: Final = (*manifest.classes, *(name for names in added for name in names))
        self._multilabel: Final = manifest.head == "multilabel"

    def read_layout(self, seq: int) -> Layout:
        """Return the layout of a feedback event that can be corrected.

        Raises:
            RefusedError: There is none with this seq; see `refuse_uncorrectable`.
        """
        if self._lineage.is_admin_event(seq):
            raise UnknownIdError(UNKNOWN)
        refuse_uncorrectable(self._lineage, self._last, seq)
        event = read_event(self._log, self._number, seq)
        if event is None or event.payload is None:  # forgotten since the lineage was read
            raise removal_error(Kind.FORGET)
        return parse_layout(event.payload)

    def parse_labels(self, labels: list[Any], layout: Layout) -> ParsedLabels:
        """Parse the labels of an event's rows with the classes that it was posted with.

        Raises:
            UnacceptableError: They are not labels for these rows.
            ClassesChangedError: They need a class that was added later.
        """
        try:
            return self._parser(layout.n_classes).parse_labels(labels, layout.rows)
        except UnacceptableError:
            self._parser(len(self.classes)).parse_labels(labels, layout.rows)
            raise ClassesChangedError(
                "a class was added after that feedback, which can have only the classes that existed then"
            ) from None

    def _parser(self, n_classes: int) -> LabelParser:
        return LabelParser(self.classes[:n_classes], multilabel=self._multilabel)


def append_corrections(
    log: FeedbackLog, call: CorrectionCall, read_manifest: ReadManifest, now_ms: int
) -> list[Outcome]:
    """Append the events of a call, and return their outcomes in the order of the ids.

    Raises:
        UnknownIdError: An id names no feedback of the model or version; nothing is written, here and below.
        RefusedError: An event is forgotten, skipped or rolled back, or the id of the call is taken.
        UnacceptableError: Labels do not fit; or there are several streams, and `if_seq` fits only one; or the id of the
            call is too long.
    """
    event_ids = call.event_ids
    if len(event_ids[-1]) > ID_BYTES_MAX:
        raise UnacceptableError('Each of the events has an id of its own; send a shorter "id".')
    places = log.find_ids(call.model, [*call.ids, *event_ids])
    streams = _open_streams(log, call, [places.get(id_) for id_ in call.ids], read_manifest)
    if len(streams) > 1 and call.if_seq is not None:
        raise UnacceptableError('The ids are in several versions; name one in the path to send "if_seq".')
    drafts = []
    for number, (id_, labels) in enumerate(zip(call.ids, call.labels, strict=True)):
        place = places[id_]
        stream = streams[place.stream]
        layout = stream.read_layout(place.seq)
        try:
            kind, targets = stream.parse_labels(labels, layout)
        except UnacceptableError as reason:
            raise UnacceptableError(f'In item {number} of "labels": {reason}') from None
        payload = encode_correction(place.seq, layout, kind, targets)
        draft = Draft(place.stream, Kind.CORRECT, event_ids[number], payload, now_ms, None, call.if_seq)
        drafts.append(draft._replace(actor=call.actor.encode()))
    for draft in drafts:
        _refuse_taken_id(log, draft, places.get(draft.id))
    return log.append(drafts)


def _open_streams(
    log: FeedbackLog, call: CorrectionCall, places: Sequence[EventLocation | None], read_manifest: ReadManifest
) -> dict[int, CorrectedStream]:
    """Return the streams that hold the events, by their numbers."""
    streams = {stream.number: stream for stream in log.list_streams()}
    versions = {place.stream: streams[place.stream].version for place in places if place is not None}
    if None in places or (call.version is not None and set(versions.values()) != {call.version}):
        raise UnknownIdError(UNKNOWN)
    try:
        manifests = {number: read_manifest(call.model, version) for number, version in versions.items()}
    except ArtifactError as reason:
        raise LogUnavailableError("The model's files cannot be read; try again later.") from reason
    return {number: CorrectedStream(log, streams[number], manifest) for number, manifest in manifests.items()}


def _refuse_taken_id(log: FeedbackLog, draft: Draft, place: EventLocation | None) -> None:
    """Raise IdConflictError before anything is written if the id of a draft names another event."""
    event = None if place is None else read_event(log, place.stream, place.seq)
    if event is not None and (event.kind != draft.kind or event.payload not in {None, draft.payload}):
        raise IdConflictError("the id was used for another event of this model; give this one an id of its own")
