"""A .skops file is read without scikit-learn and skops, and gives the model of the pipeline in memory."""

import io
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skops.io

from service.convert.proof import prove
from service.convert.scikit.estimator import convert_estimator
from service.convert.scikit.plain_object import plain_object
from service.convert.scikit.skops_file import SCHEMA_BYTES_MAX
from service.convert.scikit.skops_source import read_skops_model
from service.errors import ConversionError
from tests.support.hostile_skops import SCHEMA, honest, members_of, node, nodes, pack
from tests.support.scikit_pipelines import fit_pipeline

# Reads a file while imports of what could run code of it fail.
ISOLATED = """
import sys
from pathlib import Path

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"sklearn", "skops", "joblib", "_pickle", "cloudpickle", "pandas"}:
            raise ImportError(name)

from service.convert.scikit.skops_source import read_skops_model
import pickle
sys.meta_path.insert(0, Forbidden())
pickle.load = pickle.loads = pickle.Unpickler = None
path = Path(sys.argv[1])
with path.open("rb") as file:
    print(len(read_skops_model(file, path).model.classes))
print([name for name in ("sklearn", "skops", "joblib", "pandas") if name in sys.modules])
"""


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 9, 20, 28])
def test_a_file_is_the_pipeline_in_memory(seed: int, tmp_path: Path) -> None:
    estimator = fit_pipeline(seed).estimator
    path = tmp_path / "model.skops"
    skops.io.dump(estimator, path)
    expected = convert_estimator(plain_object(estimator)).model
    with path.open("rb") as file:
        model = read_skops_model(file, path).model
    assert model.fields == expected.fields
    assert model.features == expected.features
    assert model.classes == expected.classes
    assert model.training == expected.training
    for layer, other in zip(model.layers, expected.layers, strict=True):
        assert np.array_equal(layer.weight, other.weight)
        assert np.array_equal(layer.bias, other.bias)
    for name, tensor in expected.field_tensors.items():
        assert np.array_equal(model.field_tensors[name], tensor)


def test_scikit_learn_answers_in_a_process_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    skops.io.dump(fit_pipeline(21).estimator, path)
    with path.open("rb") as file:
        model, source = read_skops_model(file, path)
    assert prove(model, source).difference < 1e-5


def test_nothing_of_scikit_learn_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    skops.io.dump(fit_pipeline(13).estimator, path)
    result = subprocess.run([sys.executable, "-c", ISOLATED, path], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[1] == "[]"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_is_refused_with_the_way_out(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    path.write_bytes(pickle.dumps(fit_pipeline(0).estimator, protocol))
    with path.open("rb") as file, pytest.raises(ConversionError, match=r"skops\.io\.dump\(joblib\.load"):
        read_skops_model(file, path)


def test_a_large_vocabulary_is_read(tmp_path: Path) -> None:
    """A schema of more than 48 MiB, which wide indents make of fewer terms."""
    terms = [f"term{i:06}" for i in range(20_000)]
    members = members_of(honest("texts"))
    schema = json.loads(members[SCHEMA])
    parts = list(nodes(schema))
    vocabulary = next(one["content"]["vocabulary_"] for one in parts if "vocabulary_" in (one.get("content") or ()))
    vocabulary["content"] = {term: node("JsonNode", str(i), is_json=True) for i, term in enumerate(terms)}
    vocabulary["key_types"]["content"] = [node("TypeNode", __id__=1) for _ in terms]
    coefficients = next(one["content"]["coef_"]["file"] for one in parts if "coef_" in (one.get("content") or ()))
    buffer = io.BytesIO()
    np.save(buffer, np.arange(len(terms))[None] / len(terms))
    path = tmp_path / "model.skops"
    text = json.dumps(schema, indent=40).encode()
    assert len(text) > SCHEMA_BYTES_MAX
    path.write_bytes(pack({**members, coefficients: buffer.getvalue(), SCHEMA: text}))
    with path.open("rb") as file:
        model = read_skops_model(file, path).model
    assert model.layers[0].weight.shape == (len(terms), 1)
    assert model.layers[0].weight[-1] == pytest.approx(1 - 1 / len(terms))


def test_a_compressed_pickle_is_known_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    path.write_bytes(b"\x00 something else")
    with path.open("rb") as file, pytest.raises(ConversionError, match="is a pickle"):
        read_skops_model(file, path)
