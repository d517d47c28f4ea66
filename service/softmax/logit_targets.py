"""Convert targets of classes to targets of logits."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.softmax.arrays import Doubles
from service.softmax.classifier import Head


def logit_targets(targets: NDArray[Any], head: Head) -> Doubles:
    """Return the targets of a head's logits.

    Args:
        targets: (B, K) numbers: distributions over the K classes, or sets of classes.
        head: The model's head.

    Returns:
        (B, K) float64; (B, 1) for a sigmoid head, whose only logit is that of its second class.
    """
    Y = targets.astype(np.float64)
    return np.ascontiguousarray(Y[:, 1:]) if head == "sigmoid" else Y
