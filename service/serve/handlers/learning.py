"""The parts of a worker that learns, together."""

from typing import NamedTuple

from service.serve.handlers.admin import AdminHandler
from service.serve.handlers.corrections import CorrectionHandler
from service.serve.handlers.feedback import FeedbackHandler
from service.serve.handlers.past_states import PastStates
from service.serve.handlers.stream_status import StreamStatus
from service.serve.log.writer import Writer
from service.store.directory.data_directory import DataDirectory


class Learning(NamedTuple):
    """The parts of a worker that learns.

    Attributes:
        writer: Appends events to the log.
        feedback: Answers feedback.
        admin: Answers administrative calls.
        corrections: Answers corrections of labels.
        status: Reads the status of streams.
        past_states: Finds states of the past.
        data: The data directory.
    """

    writer: Writer
    feedback: FeedbackHandler
    admin: AdminHandler
    corrections: CorrectionHandler
    status: StreamStatus
    past_states: PastStates
    data: DataDirectory
