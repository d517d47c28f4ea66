"""What can go wrong, as one tree. Nothing here knows HTTP; the serve room maps each leaf to a status.

    SoftstepError
     ├─ ArtifactError        a model on disk cannot be served: its files are missing, damaged or contradictory
     ├─ ModelNotFoundError   no model, or no version of it, has the name that was asked for
     ├─ ModelNotReadyError   the model is known but is not served now
     ├─ NotReachedError      the model has not learned as far as a caller asks for
     ├─ GoneError            a state cannot be had any more: a forgotten event was a part of it
     ├─ LogError             the feedback log cannot do what was asked now
     │   ├─ LogDamagedError    what is stored is not what was written, or a part of it is missing
     │   ├─ LogUnsafeError     this SQLite, disk or directory would not keep what is written
     │   ├─ LogFullError       the disk or the write-ahead log is too full to take more; nothing was written
     │   ├─ LogUnavailableError  it cannot be opened, or another process holds it; nothing was written
     │   ├─ BehindError        feedback comes faster than it is written or learnt; nothing was written
     │   └─ OutcomeUnknownError  the disk failed: what was to be written may be there or not; a retry tells
     ├─ RefusedError         the log is well, but refuses this one event
     │   ├─ IdConflictError    the id names another event of this model
     │   ├─ ClassesMovedError  the class set changed since the event was made
     │   ├─ SeqMovedError      the stream has gone on since the seq that the event asks for
     │   ├─ StreamGoneError    there is no such stream, or no more
     │   ├─ ArtifactMovedError the model's files are not those that its stream began with
     │   ├─ ClassesFixedError  the model can have no further classes
     │   ├─ ClassesMaxError    the model would have more classes than any may have
     │   ├─ UnknownIdError     an id to forget names no feedback of this stream
     │   ├─ UnknownSeqError    a seq to go back to, or to skip, is none that can be
     │   ├─ EarlierError       a state was made by an earlier release, and this one cannot make it again
     │   └─ PayloadError       the payload is not what its kind of event holds
     ├─ KeyFileError         the key of feedback tokens is missing or is none
     ├─ SnapshotError        a published or checkpointed state cannot be read; it is derived and made anew
     └─ InputError           what a caller sent cannot be used; the message says what to change
         ├─ MalformedError   it cannot be parsed at all
         ├─ UnacceptableError  it parses, but this model cannot accept it
         └─ TooLargeError    it is larger than a limit in settings.py

Every message is one sentence for the person who sent the input and never repeats that input.
"""


class SoftstepError(Exception):
    """The root of every error that Softstep raises on purpose."""


class ArtifactError(SoftstepError):
    """A model on disk cannot be served; the message is the reason shown to operators."""


class ModelNotFoundError(SoftstepError):
    """No model, or no version of it, has the name that was asked for."""


class ModelNotReadyError(SoftstepError):
    """The model is known but is not served now."""


class NotReachedError(SoftstepError):
    """The model has not learned as far as a caller asks for."""


class GoneError(SoftstepError):
    """A state cannot be had any more, because a forgotten event was a part of it."""


class LogError(SoftstepError):
    """The feedback log cannot do what was asked now."""


class LogDamagedError(LogError):
    """What is stored is not what was written, or a part of it is missing."""


class LogUnsafeError(LogError):
    """This SQLite, disk or directory would not keep what is written to it."""


class LogFullError(LogError):
    """The disk or the write-ahead log is too full to take more; nothing was written."""


class LogUnavailableError(LogError):
    """The log cannot be opened, or another process holds it for too long; nothing was written."""


class BehindError(LogError):
    """Feedback comes faster than it is written or learnt; nothing was written, and it may be sent again later."""


class OutcomeUnknownError(LogError):
    """The disk failed in the middle: events may be written or not, and a retry with the same ids tells."""


class RefusedError(SoftstepError):
    """The log is well, but refuses this one event."""


class IdConflictError(RefusedError):
    """The id names another event of this model."""


class ClassesMovedError(RefusedError):
    """The class set changed since the event was made."""


class SeqMovedError(RefusedError):
    """The stream has gone on since the seq that the event asks for."""


class StreamGoneError(RefusedError):
    """There is no such stream, or no more."""


class ArtifactMovedError(RefusedError):
    """The model's files are not those that its stream began with."""


class ClassesFixedError(RefusedError):
    """The model can have no further classes."""


class ClassesMaxError(RefusedError):
    """The model would have more classes than any may have."""


class UnknownIdError(RefusedError):
    """An id to forget names no feedback of this stream."""


class UnknownSeqError(RefusedError):
    """A seq to go back to, or to skip, is none that can be."""


class EarlierError(RefusedError):
    """A state was made by the fold of an earlier release, and cannot be made again by this one."""


class PayloadError(RefusedError):
    """The payload is not what its kind of event holds."""


class KeyFileError(SoftstepError):
    """The key of feedback tokens cannot be read, or is none."""


class SnapshotError(SoftstepError):
    """A published or checkpointed state cannot be read; it is derived from the log and can be made anew."""


class InputError(SoftstepError):
    """What a caller sent cannot be used."""


class MalformedError(InputError):
    """The bytes cannot be parsed."""


class UnacceptableError(InputError):
    """The bytes parse, but the model cannot accept what they say."""


class TooLargeError(InputError):
    """The input is larger than a limit in settings.py."""
