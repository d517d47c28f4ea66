"""Follow the key set of an issuer, in a file or at a URL.

A thread of its own reads it, so that a disk or a server that hangs stops nothing else. Keys that were read once stay
until others have been read. A file is read twice a second. A URL is read every SOFTSTEP_JWT_KEYS_SECONDS, and earlier
if a JWT names an unknown key or the last reading failed, but with a pause: strangers must not make this service send
a request for each of theirs.
"""

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from service.access.jwks_url import FETCH_SECONDS, fetch_jwks
from service.access.signing_keys import JWKS_BYTES_MAX, SigningKey, parse_jwks
from service.errors import SigningKeysError
from service.log_events import logger

FILE_SECONDS: Final = 0.5
# Between two requests to one URL. An issuer that changes its keys publishes the new one long before it signs with it.
PAUSE_SECONDS: Final = 5.0


class JwksSource:
    """Holds the keys that were read last.

    Args:
        read: Returns the bytes of the set, or raises SigningKeysError.
        pause_seconds: The shortest time between two readings.
        seconds: The longest.

    Attributes:
        keys: The keys, replaced whole when the set has changed; None until it was read once.
    """

    def __init__(self, read: Callable[[], bytes], pause_seconds: float, seconds: float) -> None:
        self.keys: tuple[SigningKey, ...] | None = None
        self._read: Final = read
        self._pause_seconds: Final = pause_seconds
        self._seconds: Final = max(seconds, pause_seconds)
        self._content: bytes | None = None
        self._reported: Final[set[str]] = set()
        self._wanted: Final = threading.Event()
        self._tried: Final = threading.Event()

    @classmethod
    def of(cls, location: str, seconds: float) -> "JwksSource":
        """Return the source of a location as the setting has it: a URL, or the path of a file."""
        if "://" in location:
            return cls(partial(fetch_jwks, location), PAUSE_SECONDS, seconds)
        return cls(partial(read_jwks_file, Path(location)), FILE_SECONDS, FILE_SECONDS)

    def start(self) -> None:
        """Start the thread; it ends with the process."""
        threading.Thread(target=self._follow, name="softstep-jwks", daemon=True).start()

    def wait_until_tried(self) -> None:
        """Wait until the set was read once or could not be read."""
        self._tried.wait(2 * FETCH_SECONDS)

    def want_keys(self) -> None:
        """Have the set read as soon as the pause allows it."""
        self._wanted.set()

    def update(self) -> bool:
        """Read the set, and report whether that succeeded; log each reason for a failure once until it does."""
        try:
            content = self._read()
            if content != self._content:
                self.keys = parse_jwks(content)
                self._content = content
                logger.event("jwks_read", keys=len(self.keys))
        except SigningKeysError as error:
            reason = str(error)
            if reason not in self._reported:
                self._reported.add(reason)
                logger.event("jwks_not_read", reason=reason)
            return False
        self._reported.clear()
        return True

    def _follow(self) -> None:
        while True:
            self._wanted.clear()
            done = self.update()
            self._tried.set()
            time.sleep(self._pause_seconds)
            if done:
                self._wanted.wait(self._seconds - self._pause_seconds)


def read_jwks_file(path: Path) -> bytes:
    """Return the bytes of a key set.

    Raises:
        SigningKeysError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(JWKS_BYTES_MAX + 1)
    except OSError as error:
        raise SigningKeysError(f"the file cannot be read: {error.strerror}") from None
