"""The first weights of an added class: the mean of the others, with a lower bias."""

from typing import Any, Final

import numpy as np

from service.softmax.arrays import Floats

# A new class starts at the mean logit of the others minus ln 100. By the inequality of the arithmetic and geometric
# means its softmax probability is then at most 1 / (100 K) in every row.
NEW_CLASS: Final = -4.605170185988092


def append_mean_columns(columns: Any, count: int) -> Any:  # noqa: ANN401  # arrays of one dtype, in and out
    """Return columns (M, K) and `count` more, each the mean of the first K, summed in order in float64."""
    means = np.add.accumulate(columns.astype(np.float64), axis=1)[:, -1:] / columns.shape[1]
    return np.hstack([columns, np.repeat(means, count, axis=1).astype(columns.dtype)])


def extend_bias(bias: Floats, count: int) -> Floats:
    """Return a bias (K + count,) whose new classes are at the mean minus ln 100."""
    extended = append_mean_columns(bias[None].astype(np.float64), count)[0]
    extended[bias.size :] += NEW_CLASS
    return np.asarray(extended.astype(bias.dtype))


def extend_layer(rows: Any, count: int, *, lower: bool = True) -> Any:  # noqa: ANN401  # arrays of one dtype
    """Return bias and weights (D, K), the bias first, with `count` more classes.

    Args:
        rows: Bias and weights.
        count: The number of new classes.
        lower: Whether their biases are lower; no if the layer is added to one that has them already.
    """
    extended = append_mean_columns(rows.astype(np.float64), count)
    if lower:
        extended[0, rows.shape[1] :] += NEW_CLASS
    return extended.astype(rows.dtype)
