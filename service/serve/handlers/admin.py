"""The bodies of the calls that turn a stream's history: what each may say, and the event that it becomes.

    :classes     {"add": [name, …]}                          classes behind the others
    :forget      {"ids": [id, …]}                            the feedback with these ids was never given
    :rollback    {"seq": s}                                  the state is that of s again
    :configure   any of "rule", "constants", "paused", "shadow"

Each may have an "id", by which a retry is known, and an "if_seq": the call is refused where the stream has gone on
since. Ids are those of a model, not of a version: without a version in its path `:forget` makes one event in the stream
of each version that holds one of them.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from service.errors import ArtifactError, ClassesFixedError, UnacceptableError, UnknownIdError
from service.serve.models.served_model import ServedModel
from service.serve.wire.feedback_body import PostedEvent
from service.serve.wire.json_grammar import check_fields
from service.softmax.network_learner import NETWORK_RULES
from service.softmax.parameters import RuleName
from service.store.artifact.artifact import MANIFEST_BYTES_MAX
from service.store.artifact.learning_rules import check_constants, check_newton_size, parse_rule_name, select_rule
from service.store.artifact.manifest import NAME_CHARACTERS_MAX
from service.store.artifact.manifest_json import dump_manifest
from service.store.log.admin_payloads import dump, dump_classes, dump_forget_ids, parse_forget_ids
from service.store.log.append_rules import CLASSES_MAX
from service.store.log.events import ID_BYTES_MAX, SEQ_MAX, Draft, Kind, Outcome
from service.store.log.feedback_log import FeedbackLog
from service.store.log.ids import new_id

FORGET_MAX: Final = 100_000
# As much may an export write into a manifest besides names: its rule, where it comes from, thresholds of new classes.
EXPORT_BYTES: Final = 64 << 10
COMMON: Final = ("id", "if_seq")

Document = dict[str, Any]


class AdminRequest(NamedTuple):
    """An admin event that a client asks for."""

    kind: Kind
    post: PostedEvent
    if_seq: int | None


def read_turn(kind: Kind, document: Document, served: ServedModel) -> AdminRequest:
    """The event of a parsed body.

    Raises:
        UnacceptableError: The body is not what the call takes.
        ClassesFixedError: The model can have no further classes.
    """
    fields, payload_of = CALLS[kind]
    check_fields(document, (*fields, *COMMON))
    payload = payload_of(document, served)
    id_ = new_id() if "id" not in document else _id(document["id"], "id")
    if_seq = document.get("if_seq")
    return AdminRequest(kind, PostedEvent(id_, payload, 0), None if if_seq is None else _seq(if_seq, "if_seq"))


def forget_everywhere(log: FeedbackLog, model: str, turn: AdminRequest, now_ms: int) -> list[Outcome]:
    """Forget feedback of a model wherever it lies, in one transaction; on the thread that has the log.

    Args:
        log: The log.
        model: The model's name.
        turn: What `read_turn` made of the body.
        now_ms: Milliseconds since 1970.

    Returns:
        The outcome of the event of each stream, that of the largest version first. It has the turn's id; the others
        have that id with a slash and their version behind it, so that a retry finds all of them.

    Raises:
        UnknownIdError: An id names no feedback of the model; nothing is written.
        UnacceptableError: The ids lie in several streams, and `if_seq` or a long id is for one.
    """
    ids = parse_forget_ids(turn.post.payload)
    places = log.find_ids(model, ids)
    of_stream: defaultdict[int, list[bytes]] = defaultdict(list)
    for id_ in ids:
        if id_ not in places:
            raise UnknownIdError("an id to forget names no feedback of this model")
        of_stream[places[id_].stream].append(id_)
    streams = sorted((one for one in log.list_streams() if one.number in of_stream), key=lambda one: -one.version)
    if len(streams) > 1:
        if turn.if_seq is not None:
            raise UnacceptableError('The ids lie in several versions; name one in the path to send "if_seq".')
        for stream in streams:
            turned = {event.id for event in log.read_admin_events(stream.number)}
            if not turned.isdisjoint(of_stream[stream.number]):
                raise UnknownIdError("an id to forget names no feedback of this model")
    names = [turn.post.id, *(further(turn.post, stream.version).id for stream in streams[1:])]
    if max(map(len, names)) > ID_BYTES_MAX:
        raise UnacceptableError('The ids lie in several versions; send a shorter "id", or name a version in the path.')
    return log.append(
        [
            Draft(
                stream.number, Kind.FORGET, name, dump_forget_ids(of_stream[stream.number]), now_ms, None, turn.if_seq
            )
            for stream, name in zip(streams, names, strict=True)
        ]
    )


def further(post: PostedEvent, version: int) -> PostedEvent:
    """The event of a call in the stream of a version that is not the largest concerned."""
    return post._replace(id=b"%b/%d" % (post.id, version))


def _classes(document: Document, served: ServedModel) -> bytes:
    names = document.get("add")
    if served.manifest.head == "sigmoid":
        raise ClassesFixedError("a sigmoid head has two classes; train a softmax head to add one")
    if type(names) is not list or not names or {str} != set(map(type, names)):
        raise UnacceptableError('"add" must be a list of at least one class name.')
    if not all(0 < len(name) <= NAME_CHARACTERS_MAX and _is_text(name) for name in names):
        raise UnacceptableError(f"A class name must have 1 to {NAME_CHARACTERS_MAX} characters.")
    if len({*names, *served.classes}) < len(names) + len(served.classes):
        raise UnacceptableError("A class is named twice, or is one of the model's already.")
    classes_max = min(CLASSES_MAX, served.classes_max)
    if len(names) + len(served.classes) > classes_max:
        raise UnacceptableError(f"This model may have at most {classes_max} classes.")
    manifest = served.manifest.model_copy(update={"classes": (*served.classes, *names)})
    if len(dump_manifest(manifest)) + EXPORT_BYTES > MANIFEST_BYTES_MAX:
        raise UnacceptableError("The names of so many classes do not fit into a manifest; add fewer, or shorter ones.")
    _check_size(_rule_of(served), served, len(names))
    return dump_classes(names)


def _forget(document: Document, _served: ServedModel) -> bytes:
    ids = document.get("ids")
    if type(ids) is not list or not 0 < len(ids) <= FORGET_MAX:
        raise UnacceptableError(f'"ids" must be a list of 1 to {FORGET_MAX} ids of feedback.')
    return dump_forget_ids([_id(id_, "ids") for id_ in ids])


def _rollback(document: Document, _served: ServedModel) -> bytes:
    return dump({"seq": _seq(document.get("seq"), "seq")})


def _configure(document: Document, served: ServedModel) -> bytes:
    changes = {name: value for name, value in document.items() if name not in COMMON}
    if not changes:
        raise UnacceptableError('The body must have one of "rule", "constants", "paused" and "shadow".')
    for switch in ("paused", "shadow"):
        if type(changes.get(switch, False)) is not bool:
            raise UnacceptableError(f'"{switch}" must be true or false.')
    constants = changes.get("constants", {})
    if type(constants) is not dict or any(type(value) not in {int, float} for value in constants.values()):
        raise UnacceptableError('"constants" must be an object of numbers.')
    if "constants" in changes and "rule" not in changes:
        raise UnacceptableError('"constants" are those of a "rule"; name it too.')
    if "rule" in changes:
        if type(changes["rule"]) is not str:
            raise UnacceptableError('"rule" must be the name of a learning rule.')
        _check_rule(changes["rule"], constants, served)
    return dump(changes)


def _check_rule(rule: str, constants: Mapping[str, int | float], served: ServedModel) -> None:
    try:
        name, layers = parse_rule_name(rule), bool(served.manifest.hidden)
        if layers and name not in NETWORK_RULES:
            raise UnacceptableError("A model with hidden layers learns by sgd, adagrad or ftrl.")
        check_constants(name, {key: float(value) for key, value in constants.items()}, layers=layers)
    except (ArtifactError, OverflowError):
        raise UnacceptableError("There is no such rule, or its constants have not these names and ranges.") from None
    _check_size(name, served, 0)


def _check_size(rule: RuleName | None, served: ServedModel, more: int) -> None:
    """Refuse a rule for so many features and classes; the learner has the last word, for it may be ahead."""
    try:
        if rule is not None:
            check_newton_size(rule, served.model.n_features, served.model.n_logits + more)
    except ArtifactError:
        raise UnacceptableError(
            "The rule newton is not for a model of so many features and classes; ftrl takes any."
        ) from None


def _rule_of(served: ServedModel) -> RuleName | None:
    """The rule that a model learns by; None if its manifest names an unknown rule."""
    try:
        if served.learned is not None:
            return parse_rule_name(served.learned.fields["learning"]["rule"])
        return select_rule(served.artifact)[0]
    except ArtifactError:
        return None


def _id(id_: object, field: str) -> bytes:
    name = id_.encode() if type(id_) is str and _is_text(id_) else b""
    if not 0 < len(name) <= ID_BYTES_MAX:
        raise UnacceptableError(f'"{field}" must hold texts of 1 to {ID_BYTES_MAX} bytes.')
    return name


def _seq(seq: object, field: str) -> int:
    if type(seq) is not int or not 0 <= seq <= SEQ_MAX:
        raise UnacceptableError(f'"{field}" must be the seq of an event, a whole number from 0.')
    return seq


def _is_text(text: str) -> bool:
    """Whether a string is Unicode text: JSON may name halves of characters."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


CALLS: Final[Mapping[Kind, tuple[tuple[str, ...], Callable[[Document, ServedModel], bytes]]]] = {
    Kind.CLASSES: (("add",), _classes),
    Kind.FORGET: (("ids",), _forget),
    Kind.ROLLBACK: (("seq",), _rollback),
    Kind.CONFIGURE: (("rule", "constants", "paused", "shadow"), _configure),
}
