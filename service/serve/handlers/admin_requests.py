"""Admin calls: the event that each becomes, and the checks that depend on the model that is served.

    :classes     add classes after the others
    :forget      the feedback with these ids was never given
    :rollback    the state is that of a seq again
    :configure   rule, constants, paused, shadow

Each has an id, which makes a retry safe, and may have an `if_seq`: the call is refused if the stream has moved on since
that seq. Ids are those of a model, not of a version. Without a version in its path `:forget` makes one event in the
stream of each version that holds one of the ids. `api/schemas/admin_bodies.py` has the forms of the bodies.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from service.errors import ArtifactError, ClassesFixedError, RuleFixedError, UnacceptableError, UnknownIdError
from service.serve.models.served_model import ServedModel
from service.serve.wire.feedback_body import PostedEvent
from service.softmax.network_learner import NETWORK_RULES
from service.softmax.rule import RuleName
from service.softmax.sparse_learner import SPARSE_RULES
from service.store.artifact.artifact_folder import MANIFEST_BYTES_MAX
from service.store.artifact.learning_rules import check_constants, parse_rule_name, select_rule
from service.store.artifact.manifest_json import dump_manifest
from service.store.artifact.mixture_rules import MIXTURE_HEADS, check_drawn_features, drawn_features
from service.store.artifact.rule_sizes import check_size, mixture_numbers
from service.store.log.admin_payloads import dump, dump_classes, dump_forget_ids, parse_forget_ids
from service.store.log.append_rules import CLASSES_MAX
from service.store.log.events import ID_BYTES_MAX, Draft, Kind, Outcome
from service.store.log.feedback_log import FeedbackLog

FORGET_MAX: Final = 100_000
# What an export may write into a manifest besides names: rule, provenance, thresholds of new classes.
EXPORT_BYTES: Final = 64 << 10


class AdminRequest(NamedTuple):
    """An admin event that a client asks for.

    Attributes:
        kind: The kind of the event.
        event: Its id and payload.
        if_seq: The last seq that the stream may have, or None.
        actor: The name of the sender; empty in an open service.
    """

    kind: Kind
    event: PostedEvent
    if_seq: int | None
    actor: str


def forget_everywhere(log: FeedbackLog, model: str, request: AdminRequest, now_ms: int) -> list[Outcome]:
    """Forget feedback of a model in every version that holds it, in one transaction; on the thread that has the log.

    Args:
        log: The log.
        model: The model's name.
        request: The event that the call asks for.
        now_ms: Milliseconds since 1970.

    Returns:
        The outcome of each stream's event, that of the largest version first. It has the call's id; the others have
        that id, a slash and their version, so that a retry finds all of them.

    Raises:
        UnknownIdError: An id names no feedback of the model; nothing is written.
        UnacceptableError: The ids are in several streams, and `if_seq` or a long id fits only one.
    """
    ids = parse_forget_ids(request.event.payload)
    places = log.find_ids(model, ids)
    of_stream: defaultdict[int, list[bytes]] = defaultdict(list)
    for id_ in ids:
        if id_ not in places:
            raise UnknownIdError("an id to forget names no feedback of this model")
        of_stream[places[id_].stream].append(id_)
    streams = sorted((one for one in log.list_streams() if one.number in of_stream), key=lambda one: -one.version)
    if len(streams) > 1:
        if request.if_seq is not None:
            raise UnacceptableError('The ids are in several versions; name one in the path to send "if_seq".')
        for stream in streams:
            admin_ids = {event.id for event in log.read_admin_events(stream.number)}
            if not admin_ids.isdisjoint(of_stream[stream.number]):
                raise UnknownIdError("an id to forget names no feedback of this model")
    names = [request.event.id, *(in_version(request.event, stream.version).id for stream in streams[1:])]
    if max(map(len, names)) > ID_BYTES_MAX:
        raise UnacceptableError('The ids are in several versions; send a shorter "id", or name a version in the path.')
    return log.append(
        [
            Draft(
                stream.number,
                Kind.FORGET,
                name,
                dump_forget_ids(of_stream[stream.number]),
                now_ms,
                None,
                request.if_seq,
                request.actor.encode(),
            )
            for stream, name in zip(streams, names, strict=True)
        ]
    )


def in_version(event: PostedEvent, version: int) -> PostedEvent:
    """Return the event of a call for a version that is not the largest concerned."""
    return event._replace(id=b"%b/%d" % (event.id, version))


def check_classes(names: Sequence[str], served: ServedModel, fold_version: int) -> None:
    """Check that a model can have further classes with these names.

    Args:
        names: The names of the classes.
        served: The model.
        fold_version: The version of the fold with which its stream began, or begins.

    Raises:
        ClassesFixedError: The model cannot have further classes.
        UnacceptableError: A class exists or is named twice, or the model would become too large.
    """
    if served.manifest.head == "sigmoid":
        raise ClassesFixedError("a sigmoid head has two classes; train a softmax head to add one")
    if len({*names, *served.classes}) < len(names) + len(served.classes):
        raise UnacceptableError("A class is named twice, or is one of the model's already.")
    classes_max = min(CLASSES_MAX, served.classes_max)
    if len(names) + len(served.classes) > classes_max:
        raise UnacceptableError(f"This model may have at most {classes_max} classes.")
    manifest = served.manifest.model_copy(update={"classes": (*served.classes, *names)})
    if len(dump_manifest(manifest)) + EXPORT_BYTES > MANIFEST_BYTES_MAX:
        raise UnacceptableError("The names of so many classes do not fit into a manifest; add fewer or shorter ones.")
    rule = _rule_of(served, fold_version)
    if rule is not None:
        _check_size(rule, _constants_of(served), served, len(served.classes) + len(names))


def classes_payload(names: Sequence[str]) -> bytes:
    """Return the payload that adds classes."""
    return dump_classes(list(names))


def forget_payload(ids: Sequence[str]) -> bytes:
    """Return the payload that forgets the feedback with these ids."""
    return dump_forget_ids([id_.encode() for id_ in ids])


def rollback_payload(seq: int) -> bytes:
    """Return the payload that goes back to the state at a seq."""
    return dump({"seq": seq})


def check_configuration(changes: Mapping[str, Any], served: ServedModel, fold_version: int) -> None:
    """Check that a model can learn as a call asks.

    Args:
        changes: At least one of `rule`, `constants`, `paused` and `shadow`.
        served: The model.
        fold_version: The version of the fold with which its stream began, or begins.

    Raises:
        RuleFixedError: The model learns by mixture, and would not go on with it and its random features.
        UnacceptableError: The rule is unknown or does not fit the model, or a constant is unknown or out of range.
    """
    if "rule" in changes:
        _check_rule(changes["rule"], changes.get("constants", {}), served, fold_version)


def configure_payload(changes: Mapping[str, Any]) -> bytes:
    """Return the payload that changes how a model learns."""
    return dump(dict(changes))


def _check_rule(rule: str, constants: Mapping[str, int | float], served: ServedModel, fold_version: int) -> None:
    try:
        name = parse_rule_name(rule)
        if served.manifest.hidden and name not in NETWORK_RULES:
            raise UnacceptableError("A model with hidden layers learns by sgd, adagrad or ftrl.")
        if served.artifact.has_sparse_rows and name not in SPARSE_RULES:
            raise UnacceptableError("A model of sparse rows learns by sgd, adagrad or ftrl.")
        if name == "mixture" and served.manifest.head not in MIXTURE_HEADS:
            raise UnacceptableError("The rule mixture is for softmax and sigmoid heads; use newton, ftrl or adagrad.")
        numbers = {key: float(value) for key, value in constants.items()}
        check_constants(name, numbers, served.artifact)
        if name == "mixture":
            check_drawn_features(numbers)
    except (ArtifactError, OverflowError):
        raise UnacceptableError(
            "Unknown rule, or a constant out of range; the names and ranges are in docs/rules.md."
        ) from None
    if _rule_of(served, fold_version) == "mixture" and (
        name != "mixture" or drawn_features(numbers) != drawn_features(_constants_of(served))
    ):
        raise RuleFixedError(
            "A model that learns by mixture keeps this rule, its features and its seed; "
            "roll back to a seq before it, or name another rule in a new version."
        )
    _check_size(name, numbers, served, len(served.classes))


def _check_size(rule: RuleName, constants: Mapping[str, float], served: ServedModel, classes: int) -> None:
    """Refuse a rule for too many features and classes."""
    artifact, n_outputs = served.artifact, 1 if served.manifest.head == "sigmoid" else classes
    size = mixture_numbers(artifact, constants, n_outputs) if rule == "mixture" else 0
    too_large = UnacceptableError(f"The rule {rule} does not take so many features and classes; ftrl takes any number.")
    if size * served.model.dtype.itemsize > served.artifact_bytes_max:
        raise too_large
    try:
        check_size(rule, constants, artifact, n_outputs)
    except ArtifactError:
        raise too_large from None


def _rule_of(served: ServedModel, fold_version: int) -> RuleName | None:
    """Return the rule that a model learns by; None if its manifest names an unknown one."""
    try:
        if served.learned is not None:
            return parse_rule_name(served.learned.fields["learning"]["rule"])
        return select_rule(served.artifact, fold_version)[0]
    except ArtifactError:
        return None


def _constants_of(served: ServedModel) -> Mapping[str, float]:
    """Return the constants with which a model learns, or those that its manifest sets."""
    if served.learned is not None:
        constants: Mapping[str, float] = served.learned.fields["learning"]["constants"]
        return constants
    return {} if served.manifest.learning is None else served.manifest.learning.constants
