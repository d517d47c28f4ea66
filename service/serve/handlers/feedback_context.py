"""The context of feedback for a served state: its stream, the parser of its bodies, and the sealing of its tokens."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import orjson

from service.errors import LearnerBehindError
from service.serve.log.submissions import LearningVersion
from service.serve.metrics.counters import FEEDBACK_COUNTERS, FEEDBACK_START
from service.serve.models.per_model import PerModel
from service.serve.models.registry import ModelRegistry
from service.serve.models.served_model import ServedModel
from service.serve.wire.feedback_body import FeedbackParser
from service.serve.wire.feedback_parsers import make_feedback_parser
from service.serve.wire.feedback_tokens import SparseTokenSealer, TokenCipher, TokenKeys, TokenSealer
from service.serve.wire.labels import LabelParser
from service.settings import Settings
from service.store.artifact.fingerprint import compute_geneses


class CommittedSeq:
    """The last seq of one version that this worker has committed."""

    __slots__ = ("seq",)

    def __init__(self) -> None:
        self.seq = 0


class FeedbackContext(NamedTuple):
    """The context of feedback for a served state; the states of a version share it until its classes change.

    Attributes:
        source: The stream that events are appended to.
        classes: The names of the classes.
        parser: Parses bodies.
        sealer: Seals rows as tokens, and opens them.
        response_start: The bytes of a response, up to the id.
        committed: How far the version is committed.
    """

    source: LearningVersion
    classes: Sequence[str]
    parser: FeedbackParser
    sealer: TokenCipher
    response_start: bytes
    committed: CommittedSeq

    def check_lag(self, served: ServedModel, events_max: int) -> None:
        """Raise LearnerBehindError if the learner is more events behind; an event would be served ever later."""
        if self.committed.seq - served.seq > events_max:
            raise learner_behind()

    @property
    def names(self) -> dict[str, Any]:
        """Return the members that name the model and its version in a response."""
        return {"model_name": self.source.model, "model_version": str(self.source.version)}


class FeedbackContexts:
    """The context of each served version.

    Args:
        registry: The models that are served.
        keys: The keys of feedback tokens.
        settings: The limits.
    """

    def __init__(self, registry: ModelRegistry, keys: TokenKeys, settings: Settings) -> None:
        self._registry: Final = registry
        self._keys: Final = keys
        self._token_seconds: Final = settings.token_seconds
        self._geneses: Final[WeakKeyDictionary[object, tuple[bytes, ...]]] = WeakKeyDictionary()  # by artifact
        self._contexts: Final[PerModel[FeedbackContext]] = PerModel(registry, self._derive)
        self.context_of: Final = self._contexts.value_of

    def contexts_of(self, name: str) -> Mapping[int, FeedbackContext]:
        """Return the contexts of all served versions of a model, by version."""
        served = self._registry.now.served
        return {version: self.context_of(one) for (model, version), one in served.items() if model == name}

    def _derive(self, served: ServedModel, previous: FeedbackContext | None) -> FeedbackContext:
        artifact, version = served.artifact, int(served.version)
        bound = self._geneses.get(artifact)
        if bound is None:
            bound = self._geneses[artifact] = compute_geneses(artifact)
        epoch = 0 if served.learned is None else int(served.learned.fields["class_epoch"])
        counters = served.counters[FEEDBACK_START : FEEDBACK_START + FEEDBACK_COUNTERS]
        source = LearningVersion(served.name, version, bound, len(artifact.manifest.classes), epoch, counters)
        if previous is not None and (previous.source[:5], previous.classes) == (source[:5], served.classes):
            return previous
        # A token outlives an upgrade: it is bound to the first release's genesis, which no later release changes.
        model = served.model
        sealer = (SparseTokenSealer if artifact.has_sparse_rows else TokenSealer)(
            self._keys, served.name, version, bound[-1], model.n_features, model.dtype, self._token_seconds, now_ms
        )
        labels = LabelParser(served.classes, multilabel=served.thresholds is not None)
        start = orjson.dumps({"model_name": served.name, "model_version": served.version})[:-1] + b',"id":'
        committed = CommittedSeq() if previous is None else previous.committed
        parser = make_feedback_parser(served.tables, labels)
        return FeedbackContext(source, served.classes, parser, sealer, start, committed)


def learner_behind() -> LearnerBehindError:
    """Return the error of feedback that would be served ever later."""
    return LearnerBehindError("Feedback arrives faster than the model learns; send it again later.")


def now_ms() -> int:
    """Return milliseconds since 1970."""
    return time.time_ns() // 1_000_000
