"""Wake another process of the service: a pipe without a message, made before the fork.

What there is to do is in files or in shared memory; a wakeup only says that it is worth a look. Notifications that come
before the other process has looked are merged. Any process may notify; one process waits.
"""

import contextlib
import os
import weakref
from typing import Final

READ_BYTES: Final = 1 << 12


class Wakeup:
    """A pipe whose `fd` becomes readable after `notify`, for `select` or an event loop; closed with the object."""

    def __init__(self) -> None:
        self.fd, self._write_fd = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write_fd, False)
        weakref.finalize(self, _close, self.fd, self._write_fd)

    def notify(self) -> None:
        """Wake the waiting process; a full pipe wakes it as well."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._write_fd, b"\0")

    def clear(self) -> None:
        """Discard the notifications so far; call it before looking for work."""
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self.fd, READ_BYTES)) == READ_BYTES:
                pass


def _close(*fds: int) -> None:
    for fd in fds:
        os.close(fd)
