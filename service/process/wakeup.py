"""How one process wakes another: a pipe that carries no message, made before the fork.

What there is to look at stands elsewhere, on disk or on the board; a bell only says that it is worth a look. Rings that
come before the other has looked are one. Any process may ring, one listens.
"""

import contextlib
import os
from typing import Final

UNHEARD_BYTES: Final = 1 << 12


class Wakeup:
    """One bell; `fd` becomes readable when it rings, for `select` or an event loop."""

    def __init__(self) -> None:
        self.fd, self._rope = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._rope, False)

    def ring(self) -> None:
        """Wake the listener; a pipe that is full of rings wakes it as well."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._rope, b"\0")

    def hush(self) -> None:
        """Take the rings that have come, before looking."""
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self.fd, UNHEARD_BYTES)) == UNHEARD_BYTES:
                pass
