"""Find out when a replica serves what its shared log had at the start: it is ready then."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Final

from service.errors import StreamGoneError
from service.store.log.feedback_log import FeedbackLog


class CatchUp:
    """The last event of each stream at the start, as far as it is not published yet.

    Args:
        log: The log.
    """

    def __init__(self, log: FeedbackLog) -> None:
        self._log: Final = log
        self._targets: dict[int, int] | None = None

    def is_done(self, streams: Collection[int], published: Mapping[int, int], halted: Collection[int]) -> bool:
        """Return whether all is published. Once this was true, do not call it again.

        Args:
            streams: The numbers of the streams that exist.
            published: The seq of the last snapshot of each stream that has one, by its number.
            halted: The numbers of the streams that have no more to publish, because they cannot be folded further.

        Raises:
            LogError: The log cannot be used now.
        """
        if self._targets is None:
            targets = {}
            for number in streams:
                with suppress(StreamGoneError):
                    targets[number] = self._log.stream_state(number).seq
            self._targets = targets
        for number, seq in list(self._targets.items()):
            if seq <= published.get(number, 0) or number in halted or number not in streams:
                del self._targets[number]
        return not self._targets
