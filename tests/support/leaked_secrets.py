"""Find secrets and marked payload in text that the service writes: logs, metrics, error bodies and the audit log.

Secrets are found by their form, so that each one that any test makes counts. Payload is found by two marks, a text and
a number, which tests put into bodies.
"""

import logging
import re
from pathlib import Path
from typing import Final

from service.logs import JsonFormatter
from tests.support.json_numbers import CANARY, CANARY_NUMBER

# Each form in text that nobody may read, and its name.
FORMS: Final = {
    "an API key": re.compile(r"softstep_[2-9a-km-np-z]{8}_[0-9A-Za-z]{40,}"),
    "a JSON web token": re.compile(r"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"),
    # The first byte is 2, the format of tokens.
    "a feedback token": re.compile(r"(?<![\w-])A[g-v][\w-]{70,}"),
    "a private key": re.compile(r"BEGIN [A-Z ]*PRIVATE KEY"),
    "the value of Authorization": re.compile(r"(?i)\b(?:bearer|basic) [\w.~+/=-]{12,}"),
    "marked text": re.compile(CANARY),
    "a marked number": re.compile(rf"(?<!\d){CANARY_NUMBER}(?!\d)"),
}
# Files of a data directory that hold text for people; the log of feedback holds payload.
READABLE: Final = ("keys.json", "audit*")


def find_secrets(text: str) -> list[str]:
    """Return the names of the forms that a text has."""
    return [name for name, form in FORMS.items() if form.search(text)]


def check_text(text: str, place: str) -> None:
    """Fail if a text that the service has written has a secret; the message does not repeat it."""
    found = find_secrets(text)
    assert not found, f"{place} has {', '.join(found)}"


def check_data(folder: Path) -> None:
    """Fail if a file for people in a data directory has a secret."""
    for pattern in READABLE:
        for path in folder.glob(pattern):
            check_text(path.read_text(), path.name)


class SecretFinder(logging.Handler):
    """Collects what is wrong with the lines of the log that tests write in their own process."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.setFormatter(JsonFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        """Look for a secret in one line."""
        self.found += [f"{record.filename}:{record.lineno}: {name}" for name in find_secrets(self.format(record))]
