"""How a stream stands, as the learner tells it: `<data>/streams/<model>/<version>/status`, a small JSON object.

    state         "following", "refolding" or "stalled"
    erased_epoch  the number of forgets whose events no file and no log holds any more
    target, refolded    while refolding: the seq that is on its way, and the share of the way that is done
    reason, seq         where it is stalled: why, and at which event

It is derived like a snapshot and replaced whole, so it needs no sync.
"""

import os
from pathlib import Path
from typing import Any, Final

import orjson

STATUS_NAME: Final = "status"


def read_status(folder: Path) -> dict[str, Any]:
    """What was told last of the stream with this folder; empty where nothing was, or nothing that can be read."""
    try:
        status = orjson.loads((folder / STATUS_NAME).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return status if isinstance(status, dict) else {}


def write_status(folder: Path, status: dict[str, Any]) -> None:
    """Tell something else.

    Raises:
        OSError: The disk refuses.
    """
    temporary = folder / f".{STATUS_NAME}.{os.getpid()}"
    temporary.write_bytes(orjson.dumps(status))
    temporary.rename(folder / STATUS_NAME)
