"""The learner's status of a stream: `<data>/streams/<model>/<version>/status`, a small JSON object.

    state         "following", "refolding", "stalled", "held", "diverged" or, if nothing is folded here, "receiving"
    erased_epoch  the number of FORGET events whose rows are in no file and no log, of no replica
    erased_ms     when this replica erased rows last, in milliseconds since 1970; absent before
    target, refolded    while refolding: the seq to reach, and the share of the way that is done
    reason, seq         if stalled or diverged: why, and at which event; if held: why

It is derived like a snapshot and replaced whole, so it needs no sync.
"""

from pathlib import Path
from typing import Any, Final

import orjson

from service.store.filesystem import write_whole_file

STATUS_NAME: Final = "status"


def read_status(folder: Path) -> dict[str, Any]:
    """Return the status in a stream's folder; empty if there is none, or it cannot be read."""
    try:
        status = orjson.loads((folder / STATUS_NAME).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return status if isinstance(status, dict) else {}


def write_status(folder: Path, status: dict[str, Any]) -> None:
    """Replace the status in a stream's folder.

    Raises:
        OSError: The disk failed.
    """
    write_whole_file(folder / STATUS_NAME, [orjson.dumps(status)], durable=False)
