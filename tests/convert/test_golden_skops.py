"""Files of three releases of scikit-learn are read, with the probabilities that each release gave."""

import json
from pathlib import Path

import numpy as np
import pytest

from service.convert.proof import prove_expected
from service.convert.scikit.skops_source import read_skops_model
from tests.support.converted_models import predict_in_float64
from tests.support.paths import ROOT

GOLDEN = sorted((ROOT / "tests" / "golden" / "skops").rglob("*.skops"))


def test_there_are_files_of_three_releases() -> None:
    assert [path.name for path in sorted((ROOT / "tests" / "golden" / "skops").iterdir())] == ["1.5", "1.7", "1.9"]
    assert len(GOLDEN) == 12


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name} {path.stem}")
def test_the_probabilities_are_those_of_the_release(path: Path) -> None:
    expected = json.loads(path.with_suffix(".json").read_bytes())
    P = np.array(expected["probabilities"])
    with path.open("rb") as file:
        model = read_skops_model(file, path).model
    assert abs(predict_in_float64(model, expected["rows"]) - P).max() < 1e-9
    assert prove_expected(model, expected["rows"], P).difference < 1e-5
