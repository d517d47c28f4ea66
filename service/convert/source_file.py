"""Open a file of another library: a regular file of a bounded size, of which nothing is run."""

import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Final

from service.errors import ConversionError

# A model of 2**26 weights as text, with the two numbers of its learning after each weight, has about so many bytes.
SOURCE_BYTES_MAX: Final = 4 << 30
# A ZIP archive begins with its first member.
ZIP_BEGINNING: Final = b"PK\x03\x04"


def open_source(path: Path, bytes_max: int = SOURCE_BYTES_MAX) -> BufferedReader:
    """Open a file for reading.

    Args:
        path: The file, or a link to it.
        bytes_max: Its largest size.

    Raises:
        ConversionError: It is missing, too large or no regular file, or cannot be read.
    """
    try:
        # Opening a named pipe would wait for a writer; with O_NONBLOCK it does not, and is refused below.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its name has a null character"
        raise ConversionError(f"the source cannot be read: {reason}") from None
    status = os.fstat(descriptor)
    problem = ""
    if not stat.S_ISREG(status.st_mode):
        problem = "the source is not a regular file"
    elif status.st_size > bytes_max:
        problem = f"the source has {status.st_size} bytes, and at most {bytes_max} are allowed"
    if problem:
        os.close(descriptor)
        raise ConversionError(problem)
    return os.fdopen(descriptor, "rb")
