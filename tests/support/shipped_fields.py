"""The shipped models with fields: their data, split and encoded as for training, and what their weights answer."""

from functools import cache
from typing import Any

import numpy as np
import scipy.sparse

from service.softmax.arrays import Doubles
from service.store.artifact.artifact import Artifact, read_artifact
from service.train.held_out_rows import HeldOutRows
from tests.support.paths import SHIPPED
from tests.support.scripts import load_script

FIELD_NAMES = ("penguins", "languages")
# Larger than the tensors of languages, which has 2^18 columns of 13 classes.
FIELD_BYTES_MAX = 1 << 24


@cache
def shipped_fields(name: str) -> Artifact:
    """Return the artifact in models/."""
    return read_artifact(SHIPPED / name / "1", FIELD_BYTES_MAX)


@cache
def prepared(name: str) -> Any:
    """Return the data set of a model, split and encoded as for its training."""
    script = load_script("models/field_models.py")
    if name != "penguins":
        return script.prepare(name)
    data, fields = script.FIELD_DATA[name](), shipped_fields(name).manifest.describe_fields()
    held_out = HeldOutRows("hash", 0).mark(0, len(data.rows))
    return script.Prepared(
        data, np.flatnonzero(~held_out), np.flatnonzero(held_out), fields, script.encode(fields, data.rows)
    )


def held_out_rows(name: str) -> list[dict[str, Any]]:
    """Return the rows that the model was not trained on, with gaps where they have any."""
    return [prepared(name).data.rows[i] for i in prepared(name).test]


def exact_probabilities(artifact: Artifact, X: scipy.sparse.csr_array) -> Doubles:
    """Return the probabilities (B, K) of encoded rows (B, N) by the weights of an artifact, in float64."""
    logits = X @ artifact.weights.astype(np.float64) + artifact.bias
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
