"""The key file of feedback tokens, `data/token.key`: created once, and kept as long as the log.

The file is text: one key or several, each 64 hexadecimal digits, separated by commas or white space. The first key
encrypts, all keys decrypt. To change keys, put a new one in front, and remove the old one once its last tokens have
expired. Anyone who has the file can create tokens, so only its owner may read it. A backup of the data directory
contains it, so that tokens survive a restore. With a shared log the file is a copy of the keys that the log has.
"""

import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from service.errors import KeyFileError, LogUnavailableError, OutcomeUnknownError
from service.store.filesystem import write_whole_file
from service.store.log.shared_facts import SharedFacts

KEY_NAME: Final = "token.key"
KEY_BYTES: Final = 32
FILE_BYTES_MAX: Final = 1 << 16
# The fact of a shared log that has the keys, in the format of the file.
KEYS_FACT: Final = "token_key"


def parse_keys(text: str) -> list[bytes]:
    """Parse the keys of a text.

    Raises:
        KeyFileError: The text contains something else; the message repeats nothing of it.
    """
    words = text.replace(",", " ").split()
    if set(map(len, words)) != {2 * KEY_BYTES}:
        raise KeyFileError(f"a key of feedback tokens has {2 * KEY_BYTES} hexadecimal digits")
    try:
        return list(map(bytes.fromhex, words))
    except ValueError:
        raise KeyFileError(f"a key of feedback tokens has {2 * KEY_BYTES} hexadecimal digits") from None


def read_or_create_keys(path: Path) -> list[bytes]:
    """Read the keys of a file, and create the file with a new key if it is missing.

    Any number of processes may call this at once: all get the same keys, and these are on disk.

    Raises:
        KeyFileError: The file contains no keys, or cannot be read or created.
    """
    try:
        if not path.exists():
            create_key_file(path)
        with path.open("r", encoding="ascii", errors="replace") as file:
            return parse_keys(file.read(FILE_BYTES_MAX))
    except OSError as error:
        raise KeyFileError(f"the key file {path.name} cannot be read or created: {error.strerror}") from error


def read_or_share_keys(path: Path, facts: SharedFacts | None) -> list[bytes]:
    """Return the keys that all services of a shared log have, and write them to a file.

    The first service gives the log the keys of its own file. While the log cannot be used, those of the file count.

    Args:
        path: The file.
        facts: What the services of the log agree on; None if it is not shared.

    Raises:
        KeyFileError: The file or the log contains no keys, or the file cannot be read or written.
    """
    keys = read_or_create_keys(path)
    if facts is None:
        return keys
    text = ",".join(map(bytes.hex, keys)).encode()
    try:
        shared = parse_keys(facts.read_or_add(KEYS_FACT, text).decode("ascii", "replace"))
    except (LogUnavailableError, OutcomeUnknownError):
        return keys
    if shared != keys:
        text = ",".join(map(bytes.hex, shared)).encode()
        try:
            write_whole_file(path, [text, b"\n"], durable=True, private=True)
        except OSError as error:
            raise KeyFileError(f"the key file {path.name} cannot be written: {error.strerror}") from error
    return shared


def create_key_file(path: Path) -> None:
    """Create a file with a new key; a file that another process has created meanwhile stays."""
    key = secrets.token_hex(KEY_BYTES).encode()
    write_whole_file(path, [key, b"\n"], durable=True, private=True, replace=False)


def read_key_file(path: Path) -> bytes | None:
    """Return the text of a key file, or None if there is none."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        return file.read(FILE_BYTES_MAX)
    return None


def write_key_file(path: Path, text: bytes) -> None:
    """Replace a key file; only its owner may read it."""
    write_whole_file(path, [text], durable=True, private=True)


def copy_key_file(source: Path, target: Path) -> None:
    """Copy the key file, if there is one, from one data directory to another; only its owner may read the copy."""
    text = read_key_file(source / KEY_NAME)
    if text is not None:
        write_key_file(target / KEY_NAME, text)


def merge_keys(first: bytes, others: bytes | None) -> bytes:
    """Return the text of two key files as one, without keys that occur twice; the first key of the first encrypts.

    Raises:
        KeyFileError: One contains something else than keys.
    """
    texts = [text.decode("ascii", "replace") for text in (first, others) if text is not None]
    keys = dict.fromkeys(key for text in texts for key in parse_keys(text))
    return ",".join(key.hex() for key in keys).encode() + b"\n"
