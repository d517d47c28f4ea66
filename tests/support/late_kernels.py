"""Hash the results in float32 with kernels that are compiled by their first call, for the signature that it needs.

    python -m tests.support.late_kernels

prints {"target": ..., "digests": {name: sha256}} as JSON, as tests/support/kernel_probe.py does for all results. The
service compiles a kernel for all its signatures when it is imported; half of them are needed here.
"""

import json
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numba
import numpy as np
from numba.core.registry import cpu_target
from numba.core.sigutils import normalize_signature

from service import compiler

# Kernels that call each other are compiled at once, because numba cannot call a late one.
CALLED = ("service.softmax.kernels.jacobians",)


class LateKernel:
    """A kernel, and those of its signatures that calls have needed."""

    def __init__(self, function: Callable[..., Any], signatures: tuple[Any, ...], *, unlocked: bool) -> None:
        self._signatures = [normalize_signature(signature)[0] for signature in signatures]
        self._compiled: set[Any] = set()
        self._entry = numba.njit(nogil=unlocked, cache=True, error_model="numpy")(function)

    def __call__(self, *arguments: Any) -> Any:
        """Call the kernel by the first signature that takes the arguments, as numba chooses among all of them."""
        types = [numba.typeof(argument) for argument in arguments]
        signature = next(signature for signature in self._signatures if _takes(signature, types))
        if signature not in self._compiled:
            self._entry.disable_compile(False)
            self._entry.compile(signature)
            # Else a call with an array that can be written would compile again where a signature has one that is read.
            self._entry.disable_compile()
            self._compiled.add(signature)
        return self._entry(*arguments)


def _takes(signature: tuple[Any, ...], types: list[Any]) -> bool:
    """Return whether arguments of these types can be passed by a signature."""
    convert = cpu_target.typing_context.can_convert
    return all(convert(given, wanted) is not None for given, wanted in zip(types, signature, strict=True))


def compile_late() -> None:
    """Have all kernels that are imported from now on compiled by their first call; none may be imported yet."""

    at_once = compiler.kernel

    def kernel(*signatures: Any, unlocked: bool = True) -> Callable[[Callable[..., Any]], Any]:
        def decorate(function: Callable[..., Any]) -> Any:
            if function.__module__ in CALLED:
                return at_once(*signatures, unlocked=unlocked)(function)
            return LateKernel(function, signatures, unlocked=unlocked)

        return decorate

    compiler.kernel = kernel  # type: ignore[assignment]


if __name__ == "__main__":
    compile_late()
    probe = import_module("tests.support.kernel_probe")  # only now, because it imports kernels
    print(json.dumps({"target": compiler.TARGET, "digests": probe.digests((np.float32,))}))  # noqa: T201
