"""The example of docs/learning.md, run as its reader would: two digits are learned, and a kill loses nothing."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np

from tests.serve.harness import ROOT


def example() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("new_digits", ROOT / "docs" / "examples" / "new_digits.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_two_digits_are_learned_and_a_kill_loses_nothing(tmp_path: Path) -> None:
    """Every row is learned once, though the service was killed; the loss of the new digits falls by far."""
    rows = 400
    told = example().run(rows, tmp_path)
    assert told.again == 1
    assert told.metadata["progressive"]["events"] == told.metadata["progressive"]["rows"] == rows
    assert told.metadata["seq"] == rows + 1  # and the event that added the classes
    new = np.array([loss for loss, digit in zip(told.losses, told.digits, strict=True) if digit >= 8])
    assert np.isfinite(new).all()
    assert new[-20:].mean() < new[:20].mean() / 3
