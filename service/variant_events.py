"""Find the events that a variant of `softstep whatif` leaves out or gives other labels, by their ids.

    without     ids separated by commas, or a file with an id on each line
    labels      a CSV file: an id, then the label of each row of the event. A first line `id,label` is skipped.
                A label is a class name or an index; or, as JSON, a distribution or the set of a multi-label row

Events that the state does not contain, because they were forgotten, skipped or rolled back, are passed over.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from service.errors import (
    ClassesChangedError,
    EventForgottenError,
    EventRolledBackError,
    EventSkippedError,
    SoftstepError,
    UnacceptableError,
)
from service.learn.variant_fold import Variant
from service.serve.handlers.correction_requests import CorrectedStream
from service.store.artifact.manifest import Manifest
from service.store.log.correction_payload import encode_correction
from service.store.log.events import Stream
from service.store.log.feedback_log import FeedbackLog
from service.store.log.lineage import Lineage
from service.variant_options import VariantOptions

HEADER: Final = ["id", "label"]
TEXT: Final = "utf-8-sig"  # UTF-8, without the mark with which spreadsheets begin a file
WHOLE: Final = re.compile("[0-9]+")


class NamedEvent(NamedTuple):
    """An event in an option or a file.

    Attributes:
        place: Its place there, for messages.
        id: Its id.
        labels: The text of the label of each row.
    """

    place: str
    id: bytes
    labels: tuple[str, ...] = ()


class VariantReader:
    """Reads the changes of variants of one stream.

    Args:
        log: The log.
        stream: The stream.
        lineage: Its lineage.
        manifest: The manifest that it is bound to.
    """

    def __init__(self, log: FeedbackLog, stream: Stream, lineage: Lineage, manifest: Manifest) -> None:
        self._log: Final = log
        self._stream: Final = stream
        self._lineage: Final = lineage
        self._corrected: Final = CorrectedStream(log, stream, manifest)

    def read(self, options: VariantOptions) -> Variant:
        """Return the variant of options.

        Raises:
            SoftstepError: A file cannot be read, an id names no feedback of the stream, or a label does not fit.
        """
        without = [] if options.without is None else _read_ids(options.without)
        labeled = [] if options.labels is None else _read_labels(options.labels)
        corrections = {}
        for event, seq in zip(labeled, self._find_seqs(labeled), strict=True):
            with suppress(EventForgottenError, EventRolledBackError, EventSkippedError):
                corrections[seq] = self._encode_labels(seq, event)
        return Variant(options.rule, options.constants, frozenset(self._find_seqs(without)), corrections)

    def _find_seqs(self, events: Sequence[NamedEvent]) -> list[int]:
        """Return the seq of each event."""
        stream = self._stream
        places = self._log.find_ids(stream.model, [event.id for event in events]) if events else {}
        seqs = []
        for event in events:
            place = places.get(event.id)
            if place is None or place.stream != stream.number or self._lineage.is_admin_event(place.seq):
                raise SoftstepError(f"{event.place} names no feedback of {stream.model}/{stream.version}")
            seqs.append(place.seq)
        return seqs

    def _encode_labels(self, seq: int, event: NamedEvent) -> bytes:
        """Return the payload of a correction with the labels of an event."""
        layout = self._corrected.read_layout(seq)
        try:
            labels = [self._parse_label(text) for text in event.labels]
            kind, targets = self._corrected.parse_labels(labels, layout)
        except (UnacceptableError, ClassesChangedError) as error:
            raise SoftstepError(f"{event.place}: {error}") from None
        return encode_correction(seq, layout, kind, targets)

    def _parse_label(self, text: str) -> Any:  # noqa: ANN401  # a name, an index, or a list of numbers or names
        """Return the label of a text: JSON in brackets, the name of a class, or else an index."""
        if text.startswith("["):
            try:
                return orjson.loads(text)
            except orjson.JSONDecodeError:
                raise UnacceptableError("A label in brackets must be JSON.") from None
        is_index = text not in self._corrected.classes and WHOLE.fullmatch(text)
        return int(text) if is_index else text


def _read_ids(text: str) -> list[NamedEvent]:
    """Return the events of --without: of a file if there is one of this name, or else of ids separated by commas."""
    is_file = False
    with suppress(OSError):  # a list of ids can be too long for a name
        is_file = Path(text).is_file()
    if not is_file:
        return [NamedEvent(f"id {number} of the ids", id_.encode()) for number, id_ in enumerate(text.split(","), 1)]
    with _reading("ids"):
        lines = Path(text).read_text(TEXT).split("\n")
    ids = enumerate((line.rstrip("\r").encode() for line in lines), 1)
    return [NamedEvent(f"line {number} of the ids", id_) for number, id_ in ids if id_]


def _read_labels(path: Path) -> list[NamedEvent]:
    """Return the events of --labels."""
    with _reading("labels"), path.open(encoding=TEXT, newline="") as file:
        reader = csv.reader(file, strict=True)
        return [
            NamedEvent(f"line {reader.line_num} of the labels", cells[0].encode(), tuple(cells[1:]))
            for cells in reader
            if cells and (reader.line_num, cells) != (1, HEADER)
        ]


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Raise a SoftstepError for a file that cannot be read."""
    try:
        yield
    except OSError as error:
        raise SoftstepError(f"the file of {name} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error):
        raise SoftstepError(f"the file of {name} is not text in UTF-8, with a line for each event") from None
