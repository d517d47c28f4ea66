"""The parts of a worker that learns, put together."""

from typing import NamedTuple

from service.process.wakeup import Wakeup
from service.serve.handlers.admin import AdminHandler
from service.serve.handlers.branch_check import BranchCheck
from service.serve.handlers.corrections import CorrectionHandler
from service.serve.handlers.event_list import EventsHandler
from service.serve.handlers.event_responses import EventResponses
from service.serve.handlers.feedback import FeedbackHandler
from service.serve.handlers.feedback_context import FeedbackContexts
from service.serve.handlers.past_states import PastStates
from service.serve.handlers.stream_status import StreamStatus
from service.serve.handlers.token_feedback import TokenFeedback
from service.serve.handlers.turns import Turns
from service.serve.limits.limiter import Limiters
from service.serve.log.worker_log import WorkerLog
from service.serve.log.writer import Writer
from service.serve.log.writer_thread import WriterCallbacks
from service.serve.metrics.counters import WorkerCounters
from service.serve.models.registry import ModelRegistry
from service.serve.wire.feedback_tokens import TokenKeys
from service.settings import Settings
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
        branches: Checks served states against the log.
        events: Lists events.
        data: The data directory.
    """

    writer: Writer
    feedback: FeedbackHandler
    admin: AdminHandler
    corrections: CorrectionHandler
    status: StreamStatus
    past_states: PastStates
    branches: BranchCheck
    events: EventsHandler
    data: DataDirectory


def make_learning(  # the parts of a worker
    registry: ModelRegistry,
    limiters: Limiters,
    turns: Turns,
    counters: WorkerCounters,
    settings: Settings,
    *,
    log: WorkerLog,
    data: DataDirectory,
    keys: TokenKeys,
    learner_wakeup: Wakeup,
) -> Learning:
    """Make the parts of a worker that learns.

    Args:
        registry: The models that are served.
        limiters: The limits of feedback.
        turns: The turns in which large requests are answered.
        counters: The worker's counters.
        settings: The limits.
        log: The log, as the worker uses it.
        data: The data directory.
        keys: The keys of feedback tokens.
        learner_wakeup: Wakes the learner.
    """
    callbacks = WriterCallbacks(
        log.open_log, log.bind_artifact, log.mark_committed, learner_wakeup, counters.count_commit
    )
    writer = Writer(callbacks, settings.feedback_waiting_max, settings.feedback_waiting_bytes_max)
    contexts = FeedbackContexts(registry, keys, settings)
    responses = EventResponses(registry, writer, data, settings)
    tokens = TokenFeedback(registry, contexts, writer, turns, settings)
    return Learning(
        writer,
        FeedbackHandler(contexts, tokens, writer, responses, limiters, settings),
        AdminHandler(registry, contexts, writer, responses),
        CorrectionHandler(registry, contexts, writer, responses, data=data, settings=settings),
        StreamStatus(writer, data, counters, settings),
        PastStates(writer, data, settings),
        BranchCheck(writer, data, counters),
        EventsHandler(writer, data),
        data,
    )
