"""A check of denormal numbers, which a test also runs in a process that has imported other libraries."""

import numpy as np

from service.softmax.kernels.matmul import linear_forward, pack
from tests.support.reference import DTYPES


def check_denormals() -> None:
    """Raise AssertionError if NumPy or the kernels flush denormal numbers to zero, as operand or as result."""
    for dtype in DTYPES:
        tiny, normal = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).smallest_normal
        assert np.array([tiny]) * dtype(1) == tiny
        assert np.array([normal]) * dtype(0.5) == normal / 2 > 0
        W, b = np.array([[1, 0.5, 2.0**20]], dtype), np.zeros(3, dtype)
        panels = pack(W, b)
        Z = np.empty((2, panels.shape[2]), dtype)
        linear_forward(np.array([[tiny], [normal]], dtype), panels, Z)
        assert Z[:, :3].tolist() == [[tiny, 0, float(tiny) * 2**20], [normal, normal / 2, float(normal) * 2**20]]
