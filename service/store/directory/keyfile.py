"""The key that seals feedback tokens: made once, `data/token.key`, and kept as long as the log is.

The file is text: one key or several, each 64 hexadecimal digits, separated by commas or white space. The first one
seals and all of them open, so a key is changed by putting a new one in front and taking the old one out once its last
tokens have expired. Who has the file can make tokens: only its owner may read it. A backup of the data directory holds
it, so that tokens outlive a restore.
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from service.errors import KeyFileError
from service.store.filesystem import sync_folder

KEY_BYTES: Final = 32
FILE_BYTES_MAX: Final = 1 << 16


def parse_keys(text: str) -> list[bytes]:
    """The keys of a text.

    Raises:
        KeyFileError: It is something else than keys; the message repeats nothing of it.
    """
    words = text.replace(",", " ").split()
    if set(map(len, words)) != {2 * KEY_BYTES}:
        raise KeyFileError(f"a key of feedback tokens has {2 * KEY_BYTES} hexadecimal digits")
    try:
        return list(map(bytes.fromhex, words))
    except ValueError:
        raise KeyFileError(f"a key of feedback tokens has {2 * KEY_BYTES} hexadecimal digits") from None


def read_or_make_keys(path: Path) -> list[bytes]:
    """The keys of a file, which is made with a new key where there is none.

    Any number of processes may do so at once, and all get the same keys; what is returned is on disk.

    Raises:
        KeyFileError: The file holds no keys, or cannot be read or made.
    """
    try:
        if not path.exists():
            _make(path)
        with path.open("r", encoding="ascii", errors="replace") as file:
            return parse_keys(file.read(FILE_BYTES_MAX))
    except OSError as error:
        raise KeyFileError(f"the key file {path.name} cannot be read or made: {error.strerror}") from error


def _make(path: Path) -> None:
    """Makes the file whole or not at all; another process may have made it meanwhile, and its key stands then."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:  # noqa: PTH123  # of a descriptor
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
