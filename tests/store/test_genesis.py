"""What binds a stream to its model stays what it is from release to release, or no stream would be known again."""

from pathlib import Path

import pytest

from service.store.artifact import read_artifact
from service.store.genesis import genesis

MODELS = Path(__file__).parents[2] / "models"
GOLDEN = Path(__file__).parents[1] / "golden"
# By the first fold, as the release that made the model wrote it into its streams.
PINNED = {
PINS
}


@pytest.mark.parametrize("name", PINNED)
def test_the_genesis_of_a_shipped_model_stays(name: str) -> None:
    """Also that of the golden artifacts, with a stage, thresholds and a rule, and of networks."""
    folder = MODELS / name if name in {path.name for path in MODELS.iterdir()} else GOLDEN / name
    assert genesis(read_artifact(folder / "1", 1 << 20), 1).hex() == PINNED[name]


def test_every_shipped_model_is_pinned() -> None:
    """One that is added gets its line here."""
    assert {path.parent.name for path in MODELS.glob("*/1")} | {"artifact", "network"} == set(PINNED)
