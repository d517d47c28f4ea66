"""What can go wrong, as one tree. Nothing here knows HTTP; the serve room maps each leaf to a status.

    SoftstepError
     ├─ ArtifactError        a model on disk cannot be served: its files are missing, damaged or contradictory
     ├─ ModelNotFoundError   no model, or no version of it, has the name that was asked for
     ├─ ModelNotReadyError   the model is known but is not served now
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


class InputError(SoftstepError):
    """What a caller sent cannot be used."""


class MalformedError(InputError):
    """The bytes cannot be parsed."""


class UnacceptableError(InputError):
    """The bytes parse, but the model cannot accept what they say."""


class TooLargeError(InputError):
    """The input is larger than a limit in settings.py."""
