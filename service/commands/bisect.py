"""`softstep bisect`: list the events at which the answer to one row changed. The service may be running."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from service.commands.events import describe_event
from service.commands.replay import open_replay
from service.console import Progress, convert_disk_errors, print_result
from service.errors import MalformedError, SoftstepError
from service.learn.answer_history import Answer, AnswerHistory, labels_aspect, threshold_aspect
from service.learn.replay import StreamReplay
from service.serve.wire.json_grammar import check_document, load_json
from service.serve.wire.model_tables import RowLimits, make_tables
from service.settings import Settings
from service.softmax.sparse_rows import Rows
from service.store.artifact.artifact import Artifact
from service.store.directory.offline import open_stored_data
from service.store.log.admin_payloads import parse, parse_classes, parse_seq
from service.store.log.correction_payload import parse_correction
from service.store.log.events import Event, Kind
from service.store.log.feedback_blocks import decode_rows
from service.store.log.feedback_log import FeedbackLog
from service.store.log.feedback_payload import Targets

COLUMNS: Final = "{:>10}  {:29}  {:9}  {:28}  {:28}  {:24}  {}"
HEADINGS: Final = ("seq", "time", "kind", "answer", "change", "actor", "id")
# The first state follows no event.
NO_EVENT: Final = {"time": None, "kind": None, "actor": None, "id": None}
# Labels of one event that the text shows; JSON has all.
LABELS_SHOWN: Final = 3
FORGOTTEN: Final = "* made without an event that was forgotten since; what was served then may have been another answer"


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Return 0 once the changes are listed."""
    threshold = arguments.threshold
    with open_stored_data(settings, read_only=True) as stored:
        replay = open_replay(settings, stored, arguments.model)
        row = _parse_row(_read_text(arguments.row), replay.fold.artifact, settings)
        if threshold is not None:
            _check_class(threshold[0], replay, stored.log)
        aspect = labels_aspect if threshold is None else threshold_aspect(*threshold)
        history = AnswerHistory(replay, row, aspect)
        progress = Progress("folding", "events")
        for step in history.find_changes():
            progress.update(*step)
        progress.finish()
        results = [_describe_answer(history, answer, replay.stream.number, stored.log) for answer in history.answers]
        if threshold is not None:
            for fields, answer in zip(results, history.answers, strict=True):
                fields["reached"] = aspect(answer.classes, answer.probabilities, answer.labels)
    if not arguments.json:
        print_result({}, COLUMNS.format(*HEADINGS), as_json=False)
    for fields in results:
        print_result(fields, _format_answer(fields, threshold and threshold[0]), as_json=arguments.json)
    if not arguments.json and any(fields["lacks_forgotten"] for fields in results):
        print_result({}, FORGOTTEN, as_json=False)
    return 0


def _read_text(argument: str) -> bytes:
    """Return the JSON text of the row: the argument itself, standard input for "-", or the file of that name."""
    if argument == "-":
        return sys.stdin.buffer.read()
    if argument.lstrip().startswith(("[", "{")):
        return os.fsencode(argument)  # what is not UTF-8 is no valid JSON
    with convert_disk_errors():
        return Path(argument).read_bytes()


def _parse_row(text: bytes, artifact: Artifact, settings: Settings) -> Rows:
    """Return the row of a JSON list of numbers, or of an object of named features, as `:predict` reads it."""
    try:
        document = load_json(text)
        if isinstance(document, list | dict):
            check_document(document, text, settings.json_depth_max)
    except MalformedError:
        raise SoftstepError("the row is not valid JSON, nests too deeply, or names a feature twice") from None
    row, limits = artifact.row_encoder or artifact.column_names, RowLimits(1, settings.json_depth_max)
    dtype, is_sparse = np.dtype(artifact.manifest.dtype), artifact.has_sparse_rows
    return make_tables(row, dtype, limits, is_sparse=is_sparse).convert_instances([document])


def _check_class(name: str, replay: StreamReplay, log: FeedbackLog) -> None:
    """Raise SoftstepError if no state of the stream has a class of this name."""
    events = [event for event in log.read_admin_events(replay.stream.number) if event.kind == Kind.CLASSES]
    added = [parse_classes(event.payload or b"") for event in events]
    if name not in {*replay.fold.classes, *(one for names in added for one in names)}:
        raise SoftstepError("no state of the model has the class of --threshold")


def _describe_answer(history: AnswerHistory, answer: Answer, stream: int, log: FeedbackLog) -> dict[str, Any]:
    """Return the fields of an answer, and of the event that has changed it."""
    described, change = NO_EVENT, None
    if answer is not history.answers[0]:
        (event,) = log.read_events(stream, answer.seq - 1, 1)
        described, change = describe_event(event), _describe_change(event, answer.classes)
    numbers = orjson.loads(orjson.dumps(answer.probabilities, None, orjson.OPT_SERIALIZE_NUMPY))
    return {
        "seq": answer.seq,
        **described,
        "change": change,
        "labels": [answer.classes[label] for label in answer.labels],
        "probabilities": dict(zip(answer.classes, numbers, strict=True)),
        "lacks_forgotten": history.lacks_forgotten(answer.seq),
    }


def _describe_change(event: Event, classes: Sequence[str]) -> dict[str, Any] | None:
    """Return what an event has changed: the labels that it taught, or the content of an admin event; None if erased."""
    payload = event.payload
    if payload is None:
        return None
    match event.kind:
        case Kind.FEEDBACK:
            block = decode_rows(payload)
            return {"labels": _name_targets(block.targets, block.layout.targets, classes)}
        case Kind.CORRECT:
            seq, layout, data = parse_correction(payload)
            targets = np.frombuffer(data, layout.target_dtype).reshape(layout.target_shape)
            return {"seq": seq, "labels": _name_targets(targets, layout.targets, classes)}
        case Kind.ROLLBACK:
            return {"seq": parse_seq(payload)}
        case Kind.CLASSES:
            return {"classes": list(parse_classes(payload))}
        case _:
            return parse(payload)


def _name_targets(targets: NDArray[Any], kind: Targets, classes: Sequence[str]) -> list[Any]:
    """Return the label of each row: a class, a list of classes, or an object of classes and their probabilities."""
    if kind == Targets.INDEX:
        return [classes[label] for label in targets.tolist()]
    if kind == Targets.SET:
        return [[classes[k] for k in np.flatnonzero(row).tolist()] for row in targets]
    return [{classes[k]: float(row[k]) for k in np.flatnonzero(row).tolist()} for row in targets]


def _format_answer(fields: dict[str, Any], threshold_class: str | None) -> str:
    """Return a line with the probability of each label, or of the class of the threshold."""
    probabilities = fields["probabilities"]
    if threshold_class is None:
        shown = ", ".join(f"{name} {probabilities[name]:.6g}" for name in fields["labels"]) or "no label"
    elif threshold_class in probabilities:
        side = "reached" if fields["reached"] else "below"
        shown = f"{threshold_class} {probabilities[threshold_class]:.6g} {side}"
    else:
        shown = f"{threshold_class} absent"
    cells = {
        **fields,
        "answer": shown + " *" * fields["lacks_forgotten"],
        "change": _format_change(fields["change"] or {}),
    }
    return COLUMNS.format(*("" if cells[name] is None else cells[name] for name in HEADINGS)).rstrip()


def _format_change(change: dict[str, Any]) -> str:
    match change:
        case {"seq": seq, "labels": labels}:
            return f"event {seq}: {_format_labels(labels)}"
        case {"labels": labels}:
            return _format_labels(labels)
        case {"classes": names}:
            return f"adds {', '.join(names)}"
        case {"seq": seq}:
            return f"to seq {seq}"
        case _:
            return ", ".join(f"{name} {orjson.dumps(value).decode()}" for name, value in change.items())


def _format_labels(labels: Sequence[Any]) -> str:
    more = len(labels) - LABELS_SHOWN
    shown = [label if isinstance(label, str) else orjson.dumps(label).decode() for label in labels[:LABELS_SHOWN]]
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
