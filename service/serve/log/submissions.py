"""The items that the event loop submits to the writer's thread: events of requests, and calls with the log."""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from service.serve.wire.feedback_body import PostedEvent
from service.store.log.events import Kind
from service.store.log.feedback_log import FeedbackLog

FEEDBACK: Final = Kind.FEEDBACK  # looking up a member of an enum takes longer than comparing it


class LearningVersion(NamedTuple):
    """A model version that learns, as it was served when a request came.

    Attributes:
        model: The model's name.
        version: The version's number.
        geneses: The hashes that bind its fold to its artifact: by this release's fold, then by each earlier one's.
        n_classes: The artifact's number of classes.
        class_epoch: The class epoch of the served state, with which labels were parsed.
        counters: FEEDBACK_EVENTS to FEEDBACK_REFUSALS of the version.
    """

    model: str
    version: int
    geneses: tuple[bytes, ...]
    n_classes: int
    class_epoch: int
    counters: memoryview


class Submission(NamedTuple):
    """The events of one request.

    Attributes:
        source: The model version.
        kind: The kind of the events.
        posts: The events.
        if_seq: The last seq of the stream that the events require, or None.
        size: The bytes of their payloads.
        on_result: Called in the event loop with a list of outcomes, or with an exception.
        actor: Who sent the request; empty in an open service.
    """

    source: LearningVersion
    kind: Kind
    posts: Sequence[PostedEvent]
    if_seq: int | None
    size: int
    on_result: Callable[[Any], None]
    actor: str


class JointSubmission(NamedTuple):
    """Submissions of one request for several versions, which are written in one transaction.

    Attributes:
        submissions: The submissions, each with a callback of its own.
    """

    submissions: Sequence[Submission]


class LogCall(NamedTuple):
    """A function that the thread calls with its log.

    Attributes:
        function: The function.
        on_result: Called in the event loop with what the function returned or raised.
        appends: Whether the function appends events; it then returns their outcomes.
    """

    function: Callable[[FeedbackLog], Any]
    on_result: Callable[[Any], None]
    appends: bool = False


Item = Submission | JointSubmission | LogCall
# A list of outcomes, the results of a joint submission, the return value of a call, or an exception.
Result = Any
