"""Type aliases of the arrays that the service passes between modules."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
"""float32 or float64, the dtype of a model."""
Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]
