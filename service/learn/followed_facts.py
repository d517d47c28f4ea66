"""Follow the facts of a shared log that change: each is handed on when it has another version."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from service.errors import LogUnavailableError
from service.learn.followed_keys import FollowedKeys
from service.store.log.shared_facts import API_KEYS_FACT, SharedFacts

# Between two looks, so that a change is in force everywhere within a second. A look is one short query.
LOOK_SECONDS: Final = 0.25

Follow = Callable[[bytes], None]
"""Uses the new value of a fact; it raises nothing, whatever the value."""


class FollowedFacts:
    """The facts of a log as one replica has them; a log that is not shared has none.

    Args:
        facts: The facts.
        follow: What is done with the values, by the names of the facts. Each is called with the first value too.
        keys: The API keys, or None if the replica has a file of its own.
    """

    def __init__(
        self, facts: SharedFacts | None, follow: Mapping[str, Follow], keys: FollowedKeys | None = None
    ) -> None:
        self._facts: Final = facts
        self._follow: Final = follow
        self._keys: Final = keys
        self._versions: Final = dict.fromkeys(follow if keys is None else (*follow, API_KEYS_FACT), 0)
        self._due = 0.0

    def look(self, now: float) -> None:
        """Hand on the facts that have changed, if a look is due; nothing changes while the log cannot be reached.

        Args:
            now: The time, in seconds of a monotonic clock.

        Raises:
            LogError: The log cannot be used at all.
        """
        if self._facts is None or now < self._due:
            return
        self._due = now + LOOK_SECONDS
        if self._keys is not None and not self._keys.is_current:
            self._versions[API_KEYS_FACT] = 0
        with suppress(LogUnavailableError):
            for name, (version, value) in self._facts.read_changed(self._versions).items():
                if name in self._follow:
                    self._follow[name](value)
                elif self._keys is None or not self._keys.follow(value):
                    continue
                self._versions[name] = version
            if self._keys is not None and self._versions[API_KEYS_FACT] == 0:
                self._keys.note_missing()
