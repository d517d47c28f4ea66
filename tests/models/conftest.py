"""Fixtures: models/train.py as a module, and models without fields, trained again as their manifests say."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from service.store.artifact.artifact import Artifact, read_artifact
from tests.support.scripts import load_script

MODELS = Path(__file__).parent.parent.parent / "models"
NAMES = ["iris", "breast-cancer", "digits", "digits-mlp", "phishing", "segment", "yeast"]


@pytest.fixture(scope="session")
def train() -> ModuleType:
    """Import the training script, which is in no package."""
    return load_script("models/train.py")


@pytest.fixture(scope="session", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """Return the name of each shipped model without fields in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def shipped(name: str) -> Artifact:
    """Return the artifact in models/."""
    return read_artifact(MODELS / name / "1", 1 << 20)


@pytest.fixture(scope="session")
def fit_again(train: ModuleType) -> Callable[[str, float], Any]:
    """Return `train.fit`, cached so that each model is trained once in a test run."""
    return cache(train.fit)


@pytest.fixture(scope="session")
def trained(name: str, shipped: Artifact, fit_again: Callable[[str, float], Any]) -> Any:
    """Train the model with the strength of regularization in the shipped manifest."""
    return fit_again(name, float(shipped.manifest.provenance["C"]))
