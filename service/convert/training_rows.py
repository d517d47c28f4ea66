"""Add to a converted model the statistics of the rows that its source was trained on.

They decide how firm the weights are when the model learns (docs/rules.md):

    with fields    the number of rows, and the support: the sum of the squares of each column
    sparse rows    a lower rate too, if many columns of a row occur together
    features       the number of rows, and the mean and the scale of each feature, unless the source knows them
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from service.convert.converted_model import ConvertedModel, Doubles, Row
from service.convert.proof import model_encoder
from service.errors import ConversionError, InputError
from service.fields.row_encoder import RowEncoder
from service.softmax.sparse_rows import SparseRows
from service.store.artifact.learning_rules import CONSTANTS, SPARSE_RATE

# Rows that are encoded at once; one call has a limit of entries.
ROWS_AT_ONCE: Final = 256
# Logits: how far a training row whose error is 1 moves its own logit at most, on average. Losses of rows that the model
# is not trained on, each learned after it is predicted, then again with other labels: for flares 0.585 and 0.603 at the
# default rate, 0.433 and 0.513 at 1, 0.420 and 0.569 at 0.5; without learning 0.404. Hashed names of characters have
# 0.045 at each of them, then 4.2 at the default rate, 4.7 at 1 and 6.2 at 0.5.
LOGIT_STEP: Final = 1.0


def add_training_rows(model: ConvertedModel, rows: Sequence[Row], total: int | None = None) -> ConvertedModel:
    """Return a converted model with the statistics of its training rows.

    Args:
        model: The model.
        rows: B >= 1 rows that its source was trained on, all of them or a sample.
        total: The number of all rows that its source was trained on, or None for B. The support of a sample is
            multiplied by total / B.

    Raises:
        ConversionError: A row is no row of the model.
        ArtifactError: The model cannot be served.
    """
    total = total or len(rows)
    if model.fields is None:
        known = model.training or _describe_features(model, rows)
        return replace(model, training={**known, "rows": total})
    encoder = model_encoder(model)
    support = np.zeros(encoder.n_columns)
    for block in _encode_blocks(encoder, rows):
        np.add.at(support, block.columns, block.values**2)
    support *= total / len(rows)
    learning = _choose_learning(support, total) if model.to_artifact("float32").has_sparse_rows else None
    return replace(model, training={"rows": total}, support=support, learning=learning)


def _choose_learning(support: Doubles, total: int) -> dict[str, Any] | None:
    """Return AdaGrad with a lower rate than its default for sparse rows, or None if that one fits.

    A row x with the error 1 moves its logit by at most rate * sum(x² / sqrt(firmness * support)). The mean of that over
    the training rows is rate * sum(sqrt(support)) / (total * sqrt(firmness)); the bias is one more column.
    """
    firmness = CONSTANTS["adagrad"]["firmness"].default or 0.0
    rate = LOGIT_STEP * total * np.sqrt(firmness) / (np.sqrt(support).sum() + np.sqrt(total))
    return {"rule": "adagrad", "constants": {"rate": float(f"{rate:.2g}")}} if rate < SPARSE_RATE else None


def _encode_blocks(encoder: RowEncoder, rows: Sequence[Row]) -> Iterator[SparseRows]:
    for first in range(0, len(rows), ROWS_AT_ONCE):
        try:
            yield encoder.encode_objects(rows[first : first + ROWS_AT_ONCE]).rows
        except InputError as error:
            raise ConversionError(f"a training row is no row of the model: {error}") from None


def _describe_features(model: ConvertedModel, rows: Sequence[Row]) -> dict[str, Any]:
    """Return the mean and the population standard deviation of each feature; 1 for a constant one."""
    encoder = model_encoder(model)
    # Differences from the first row keep the variance of large numbers exact, and that of constant ones 0.
    origin: Doubles | None = None
    sums, squares = np.zeros(encoder.n_columns), np.zeros(encoder.n_columns)
    for block in _encode_blocks(encoder, rows):
        X = block.to_matrix(encoder.n_columns)
        origin = X[0] if origin is None else origin
        sums += (X - origin).sum(axis=0)
        squares += ((X - origin) ** 2).sum(axis=0)
    shift = sums / len(rows)
    scale = np.sqrt(np.maximum(squares / len(rows) - shift**2, 0))
    scale[scale == 0] = 1
    return {"mean": (shift + (0 if origin is None else origin)).tolist(), "scale": scale.tolist()}
