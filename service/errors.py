"""Every error that Softstep raises on purpose, as one tree; a class's docstring says what is wrong.

    SoftstepError
     ├─ ArtifactError, KeyFileError, SnapshotError     files cannot be used
     ├─ ModelNotFoundError                             VersionNotFoundError, ModelNotNamedError
     ├─ ModelNotReadyError                             LoadPendingError
     ├─ NotReachedError                                VersionNotServedError
     ├─ StateForgottenError, StateIrreproducibleError  a past state is gone
     ├─ LogError        the feedback log cannot do what was asked now; but for OutcomeUnknownError, nothing was written
     ├─ RefusedError    the log works, but refuses this event
     └─ InputError      the input cannot be used; the message says what to change
         ├─ MediaTypeError                             CrossSiteError
         ├─ MalformedError                             the input cannot be parsed
         ├─ UnacceptableError                          it parses, but this model cannot accept it
         └─ TooLargeError                              it is larger than a limit in settings.py

Each message is one sentence for the person who sent the input, and never repeats that input. `code` names the error for
programs; `serve/error_codes.py` gives each code its HTTP status. Errors without a code never reach a client.
"""

from typing import ClassVar


class SoftstepError(Exception):
    """The root of every error that Softstep raises on purpose.

    Attributes:
        code: The stable name of the error for clients, or "" if clients never see it.
    """

    code: ClassVar[str] = ""


class ArtifactError(SoftstepError):
    """A model on disk cannot be served; the message is the reason shown to operators."""


class KeyFileError(SoftstepError):
    """The key of feedback tokens cannot be read, or is not a key."""


class SnapshotError(SoftstepError):
    """A snapshot or checkpoint cannot be read; it is derived from the log and can be made again."""


class ModelNotFoundError(SoftstepError):
    """No model has the requested name."""

    code = "model_not_found"


class VersionNotFoundError(ModelNotFoundError):
    """The model has no such version."""

    code = "version_not_found"


class ModelNotNamedError(ModelNotFoundError):
    """The request names no model, and there is no single or default one."""

    code = "model_not_named"


class ModelNotReadyError(SoftstepError):
    """The model is known but not served now."""

    code = "model_not_ready"


class LoadPendingError(ModelNotReadyError):
    """Not every worker has loaded or unloaded the model in the time that a caller may wait."""

    code = "load_pending"


class NotReachedError(SoftstepError):
    """The served state does not hold the requested event yet."""

    code = "not_reached_yet"


class VersionNotServedError(NotReachedError):
    """The event is stored by a version of the model that is not served."""

    code = "version_not_served"


class StateForgottenError(SoftstepError):
    """The state is gone because a forgotten event was part of it."""

    code = "state_forgotten"


class StateIrreproducibleError(SoftstepError):
    """The state was made by the fold of an earlier release and cannot be made again."""

    code = "state_irreproducible"


class LogError(SoftstepError):
    """The feedback log cannot do what was asked now."""


class LearningOffError(LogError):
    """This service does not learn, by its settings or because its data directory is read-only."""

    code = "learning_off"


class LogDamagedError(LogError):
    """Stored data differs from what was written, or part of it is missing."""

    code = "log_damaged"


class LogUnsafeError(LogError):
    """This SQLite, disk or directory would not keep what is written to it."""

    code = "log_unsafe"


class LogFullError(LogError):
    """The disk or the write-ahead log is too full to append; nothing was written."""

    code = "log_full"


class LogUnavailableError(LogError):
    """The log cannot be opened, or another process holds it for too long; nothing was written."""

    code = "log_unavailable"


class QueueFullError(LogError):
    """Feedback arrives faster than it is written; nothing was written, and it may be sent again later."""

    code = "feedback_queue_full"


class LearnerBehindError(LogError):
    """Feedback arrives faster than it is learned; nothing was written, and it may be sent again later."""

    code = "learner_behind"


class OutcomeUnknownError(LogError):
    """The disk failed during the write: events may be stored or not, and a retry with the same ids finds out."""

    code = "outcome_unknown"


class RefusedError(SoftstepError):
    """The log works, but refuses this event."""


class IdConflictError(RefusedError):
    """The id already names another event of this model."""

    code = "id_taken"


class ClassesChangedError(RefusedError):
    """The set of classes changed since the event was made."""

    code = "classes_changed"


class SeqMovedError(RefusedError):
    """The stream has moved on since the seq that the event requires."""

    code = "seq_moved"


class StreamGoneError(RefusedError):
    """The stream does not exist, or no longer exists."""

    code = "stream_gone"


class ArtifactChangedError(RefusedError):
    """The model's files differ from those that its stream began with."""

    code = "artifact_changed"


class ClassesFixedError(RefusedError):
    """The model cannot have further classes."""

    code = "classes_fixed"


class ClassesMaxError(RefusedError):
    """The model would have more classes than the limit."""

    code = "too_many_classes"


class UnknownIdError(RefusedError):
    """An id to forget or to correct names no feedback."""

    code = "unknown_id"


class EventForgottenError(RefusedError):
    """The event was forgotten."""

    code = "forgotten"


class EventRolledBackError(RefusedError):
    """A rollback has undone the event."""

    code = "rolled_back"


class EventSkippedError(RefusedError):
    """The event was skipped, because it cannot be learned."""

    code = "skipped"


class SeqNotFoundError(RefusedError):
    """The stream has no event with that seq."""

    code = "seq_not_found"


class UnknownSeqError(RefusedError):
    """A seq to roll back to, or to skip, is not valid."""

    code = "unknown_seq"


class EarlierReleaseError(RefusedError):
    """The state was made by the fold of an earlier release, so nothing can roll back to it."""

    code = "earlier_release"


class PayloadError(RefusedError):
    """The payload does not fit its kind of event; requests are checked before, so no client sees it."""


class InputError(SoftstepError):
    """The input cannot be used."""


class EncodingError(InputError):
    """The Content-Encoding of the body is not supported."""

    code = "unsupported_encoding"


class MediaTypeError(InputError):
    """The Content-Type of the body is not supported."""

    code = "unsupported_media_type"


class CrossSiteError(MediaTypeError):
    """A web page of another site sends a body of a type for which its browser asks no permission."""

    code = "cross_site"


class MalformedError(InputError):
    """The bytes cannot be parsed."""

    code = "malformed_body"


class UnacceptableError(InputError):
    """The bytes parse, but the model cannot accept them."""

    code = "invalid_request"


class InvalidTokenError(UnacceptableError):
    """A feedback token was not issued by this model version, or was altered."""

    code = "invalid_token"


class ExpiredTokenError(InvalidTokenError):
    """A feedback token is older than the limit."""

    code = "token_expired"


class TooLargeError(InputError):
    """The input is larger than a limit in settings.py."""

    code = "request_too_large"


class BodyTooLargeError(TooLargeError):
    """The body has more bytes than the limit."""

    code = "body_too_large"
