"""Every error that Softstep raises on purpose, as one tree; a class's docstring says what is wrong.

    SoftstepError
     ├─ ArtifactError, KeyFileError, SnapshotError,
     │  ApiKeysError, SigningKeysError, TlsFileError   files cannot be used: ArtifactExistsError
     ├─ ConversionError                                a model of another library cannot be converted
     ├─ AccessError                                    the sender of a request may not make it
     │   ├─ KeyMissingError, KeyInvalidError, IssuerUnavailableError, CrossSiteError
     │   └─ ScopeMissingError, ModelNotPermittedError
     ├─ LimitError (limit_errors.py)                   a limit of the sender's key is reached
     ├─ ModelNotFoundError                             VersionNotFoundError, ModelNotNamedError
     ├─ ModelNotReadyError                             LoadPendingError
     ├─ OverloadedError                                there are more requests than can be answered in time
     ├─ NotReachedError                                VersionNotServedError; NotInRoleError (role_errors.py)
     ├─ StateForgottenError, StateIrreproducibleError  a past state is gone
     ├─ LogError        the feedback log cannot do what was asked now; but for OutcomeUnknownError, nothing was written
     │                  (chain_errors.py too)
     ├─ RefusedError    the log works, but refuses this event
     └─ InputError      the input cannot be used; the message says what to change
         ├─ EncodingError, MediaTypeError
         ├─ MalformedError                             the input cannot be parsed: DecodingError
         ├─ UnacceptableError                          it parses, but this model cannot accept it (field_errors.py too)
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

    def __init_subclass__(cls, code: str = "") -> None:
        """Set the code of a class that has one of its own; others have that of their parent."""
        if code:
            cls.code = code


class ArtifactError(SoftstepError):
    """A model on disk cannot be served; the message is the reason shown to operators."""


class ArtifactExistsError(ArtifactError):
    """The folder of a new artifact has one already."""


class ConversionError(SoftstepError):
    """A model of another library cannot be converted; the message names the part and its place."""


class TrainingError(SoftstepError):
    """No model can be trained: the file of rows, its columns or an option cannot be used."""


class KeyFileError(SoftstepError):
    """The key of feedback tokens cannot be read, or is not a key."""


class ApiKeysError(SoftstepError):
    """The file of API keys cannot be read or is damaged, or a key that a command names is not in it."""


class SigningKeysError(SoftstepError):
    """The keys with which an issuer signs JWTs cannot be read; the message is the reason shown to operators."""


class TlsFileError(SoftstepError):
    """A file of TLS cannot be read or used: the certificate, its key, the client CA or the subjects."""


class AccessError(SoftstepError):
    """The sender of a request may not make it."""


class KeyMissingError(AccessError, code="key_missing"):
    """The request has no key, and the service requires one."""


class KeyInvalidError(AccessError, code="key_invalid"):
    """The key of the request is unknown, revoked or expired, or its JWT is not valid."""


class IssuerUnavailableError(AccessError, code="issuer_unavailable"):
    """The keys of the issuer of JWTs have not been read yet, so no JWT can be checked."""


class ScopeMissingError(AccessError, code="scope_missing"):
    """The key does not permit calls of this kind."""


class ModelNotPermittedError(AccessError, code="model_not_permitted"):
    """The key does not permit calls for this model."""


class CrossSiteError(AccessError, code="cross_site"):
    """A web page of another site sends the request, and its origin is not allowed."""


class SnapshotError(SoftstepError):
    """A snapshot or checkpoint cannot be read; it is derived from the log and can be made again."""


class ModelNotFoundError(SoftstepError, code="model_not_found"):
    """No model has the requested name."""


class VersionNotFoundError(ModelNotFoundError, code="version_not_found"):
    """The model has no such version."""


class ModelNotNamedError(ModelNotFoundError, code="model_not_named"):
    """The request names no model, and there is no single or default one."""


class ModelNotReadyError(SoftstepError, code="model_not_ready"):
    """The model is known but not served now."""


class LoadRefusedError(SoftstepError, code="load_refused"):
    """The newest version of a model that was to be loaded cannot be served."""


class LoadPendingError(ModelNotReadyError, code="load_pending"):
    """Not every worker has loaded or unloaded the model in the time that a caller may wait."""


class OverloadedError(SoftstepError, code="overloaded"):
    """The server has more requests than it can answer in time, or counts more limits than it can."""


class NotReachedError(SoftstepError, code="not_reached_yet"):
    """The served state does not hold the requested event yet."""


class VersionNotServedError(NotReachedError, code="version_not_served"):
    """The event or the token belongs to a version of the model that is not served."""


class StateForgottenError(SoftstepError, code="state_forgotten"):
    """The state is gone because a forgotten event was part of it."""


class StateIrreproducibleError(SoftstepError, code="state_irreproducible"):
    """The state was made by the fold of an earlier release and cannot be made again."""


class LogError(SoftstepError):
    """The feedback log cannot do what was asked now."""


class LearningOffError(LogError, code="learning_off"):
    """This service does not learn, by its settings or because its data directory is read-only."""


class LogDamagedError(LogError, code="log_damaged"):
    """Stored data differs from what was written, or part of it is missing."""


class LogUnsafeError(LogError, code="log_unsafe"):
    """This SQLite, disk or directory would not keep what is written to it."""


class LogFullError(LogError, code="log_full"):
    """The disk or the write-ahead log is too full to append; nothing was written."""


class LogUnavailableError(LogError, code="log_unavailable"):
    """The log cannot be opened, or another process holds it for too long; nothing was written."""


class QueueFullError(LogError, code="feedback_queue_full"):
    """Feedback arrives faster than it is written; nothing was written, and it may be sent again later."""


class LearnerBehindError(LogError, code="learner_behind"):
    """Feedback arrives faster than it is learned; nothing was written, and it may be sent again later."""


class OutcomeUnknownError(LogError, code="outcome_unknown"):
    """The disk failed during the write: events may be stored or not, and a retry with the same ids finds out."""


class RefusedError(SoftstepError):
    """The log works, but refuses this event."""


class IdConflictError(RefusedError, code="id_taken"):
    """The id already names another event of this model."""


class EventForgottenError(RefusedError, code="forgotten"):
    """The event was forgotten."""


class EventRolledBackError(RefusedError, code="rolled_back"):
    """A rollback has undone the event."""


class EventSkippedError(RefusedError, code="skipped"):
    """The event was skipped, because it could not be learned."""


class ClassesChangedError(RefusedError, code="classes_changed"):
    """The set of classes changed since the event was made."""


class SeqMovedError(RefusedError, code="seq_moved"):
    """The stream has moved on since the seq that the event requires."""


class StreamGoneError(RefusedError, code="stream_gone"):
    """The stream does not exist, or no longer exists."""


class ArtifactChangedError(RefusedError, code="artifact_changed"):
    """The model's files differ from those that its stream began with."""


class ClassesFixedError(RefusedError, code="classes_fixed"):
    """The model cannot have further classes."""


class RuleFixedError(RefusedError, code="rule_fixed"):
    """The model learns by the rule mixture, which no other rule continues."""


class ClassesMaxError(RefusedError, code="too_many_classes"):
    """The model would have more classes than the limit."""


class UnknownIdError(RefusedError, code="unknown_id"):
    """An id to forget or to correct names no feedback."""


class SeqNotFoundError(RefusedError, code="seq_not_found"):
    """The stream has no event with that seq."""


class UnknownSeqError(RefusedError, code="unknown_seq"):
    """A seq to roll back to, or to skip, is not valid."""


class EarlierReleaseError(RefusedError, code="earlier_release"):
    """The state was made by the fold of an earlier release, so nothing can roll back to it."""


class PayloadError(RefusedError):
    """The payload does not fit its kind of event; requests are checked before, so no client sees it."""


class InputError(SoftstepError):
    """The input cannot be used."""


class EncodingError(InputError, code="unsupported_encoding"):
    """The Content-Encoding of the body is not supported."""


class MediaTypeError(InputError, code="unsupported_media_type"):
    """The Content-Type of the body is not supported."""


class MalformedError(InputError, code="malformed_body"):
    """The bytes cannot be parsed."""


class DecodingError(MalformedError, code="malformed_encoding"):
    """The bytes are not of the Content-Encoding that the request names."""


class UnacceptableError(InputError, code="invalid_request"):
    """The bytes parse, but the model cannot accept them."""


class InvalidTokenError(UnacceptableError, code="invalid_token"):
    """A feedback token was altered, or neither this model nor this service issued it."""


class ExpiredTokenError(InvalidTokenError, code="token_expired"):
    """A feedback token is older than the limit."""


class OtherVersionTokenError(InvalidTokenError, code="token_of_other_version"):
    """A feedback token was issued by another version than the path names."""


class TooLargeError(InputError, code="request_too_large"):
    """The input is larger than a limit in settings.py."""


class BodyTooLargeError(TooLargeError, code="body_too_large"):
    """The body has more bytes than the limit."""
