"""The shipped models that are imported from other libraries, and the scripts that import them."""

from functools import cache
from types import ModuleType
from typing import Any

from service.store.artifact.artifact import Artifact, read_artifact
from tests.support.paths import SHIPPED
from tests.support.scripts import load_script

IMPORTED_NAMES = ("wine", "characters", "flares")
BYTES_MAX = 1 << 20


@cache
def script() -> ModuleType:
    """Import the script, which is in no package."""
    return load_script("models/imported_models.py")


@cache
def imported(name: str) -> Artifact:
    """Return the artifact in models/."""
    return read_artifact(SHIPPED / name / "1", BYTES_MAX)


@cache
def imported_data(name: str) -> Any:
    """Return the data set of a model, split as for its training."""
    return script().IMPORTED_DATA[name]()
