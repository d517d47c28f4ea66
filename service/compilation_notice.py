"""Say on standard error, once, that kernels are being compiled: a new installation does so for minutes.

Importing this module is all it takes, before anything that imports kernels. Numba reports each compilation to a
listener, and nothing if it reads machine code from the cache.
"""

import os
import sys
from contextlib import suppress
from typing import Any, Final

from numba.core.event import Listener, register

from service.compiler import CACHE, TARGET

PACKAGE: Final = __name__.partition(".")[0]


class CompilationNotice(Listener):  # type: ignore[misc]  # Numba has no types
    """A listener that writes a sentence when the first kernel of this package is compiled."""

    def __init__(self) -> None:
        self._is_written = False

    def on_start(self, event: Any) -> None:  # noqa: ANN401  # a Numba event
        """Write the sentence, unless it was written before or the function belongs to another package."""
        module = str(event.data["dispatcher"].py_func.__module__)
        if self._is_written or module.partition(".")[0] != PACKAGE:
            return
        self._is_written = True
        with suppress(AttributeError, OSError):  # there is no standard error, or nothing reads it
            sys.stderr.write(f"softstep: {describe_compilation()}\n")
            sys.stderr.flush()

    def on_end(self, event: Any) -> None:  # noqa: ANN401  # a Numba event
        """Do nothing."""


def describe_compilation() -> str:
    """Return what happens, how long it takes, and whether it happens at the next start too."""
    folder = next(path for path in (CACHE, *CACHE.parents) if path.exists())
    if os.access(folder, os.W_OK):
        later = "later starts read them from a cache"
    else:
        later = "each start does so, because their folder cannot be written; name another in SOFTSTEP_KERNELS"
    return f"compiling kernels for {TARGET}, which takes up to three minutes; {later}"


register("numba:compile", CompilationNotice())
