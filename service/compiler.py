"""For which processor the kernels are compiled, and where their machine code is kept.

Numba compiles for the processor it runs on and keeps the result beside the source, keyed by the processor's name.
An image is built on one machine and runs on another, often with a read-only root, so Softstep compiles for the
fixed baselines of the x86-64 psABI instead and picks the best one that the processor has. The arithmetic is written
so that every baseline gives the same bits (docs/determinism.md); only the speed differs.

This module sets Numba up when it is imported; the kernels take `kernel` and `inlined` from here, and nothing else
in the service talks to Numba's configuration.
"""

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from llvmlite import binding
from numba.core.caching import _CacheLocator

# Features by which a processor is counted to a baseline, best first. Every baseline includes those below it; the
# listed features are the ones that the tile shapes in softmax/kernels/matmul.py depend on.
BASELINES: dict[str, tuple[str, ...]] = {
    "x86-64-v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx2", "fma", "bmi2"),
    "x86-64-v3": ("avx2", "fma", "bmi", "bmi2", "f16c", "lzcnt", "movbe"),
    "x86-64-v2": ("sse4.2", "popcnt", "ssse3"),
}

# The cache holds pickles, so a folder that others can write to would let them run code here: it is the package's own
# folder, or one that the operator names.
CACHE = Path(os.environ.get("SOFTSTEP_KERNELS", Path(__file__).parent / "__pycache__" / "kernels"))
PACKAGE = Path(__file__).parent


def sources(package: Path) -> tuple[Path, ...]:
    """The files that machine code comes from: the arithmetic, and the readers of request bodies."""
    readers = (package / "serve" / "wire" / "row_scanner.py", package / "serve" / "models" / "single_row.py")
    return package / "compiler.py", *sorted(package.glob("softmax/kernels/*.py")), *readers


def _host_features() -> dict[str, bool]:
    try:
        return dict(binding.get_host_cpu_features())
    except RuntimeError:  # LLVM cannot tell on some platforms; the safest baseline is used then
        return {}


def host_baseline() -> str:
    """Name the best baseline of this processor; "generic" where it is not an x86-64."""
    features = _host_features()
    for name, needed in BASELINES.items():
        if all(features.get(feature, False) for feature in needed):
            return name
    return "generic"


def _choose() -> tuple[str, str]:
    """Give the processor name and feature string to compile for; NUMBA_CPU_NAME overrides the choice."""
    if numba.config.CPU_NAME is not None:
        return numba.config.CPU_NAME, numba.config.CPU_FEATURES or ""
    return host_baseline(), ""


def _family(name: str, features: str) -> str:
    """Name the vector registers that a target offers: "avx512", "avx2", "neon" or "none" (no fused multiply-add)."""
    level = name if name in BASELINES else host_baseline() if features or name != "generic" else "generic"
    if level == "generic":
        return "neon" if binding.get_default_triple().startswith(("aarch64", "arm64")) else "none"
    return {"x86-64-v4": "avx512", "x86-64-v3": "avx2"}.get(level, "none")


TARGET, FEATURES = _choose()
FAMILY = _family(TARGET, FEATURES)


def source_stamp(package: Path) -> str:
    """Hash every source file that machine code may come from.

    Numba stamps a cached function with its own file alone, and would serve code that was inlined from an edited
    neighbour. Here any change to one of these files makes the whole cache stale.
    """
    digest = hashlib.sha256(sys.version.encode())
    for path in sources(package):
        digest.update(path.read_bytes())
    return digest.hexdigest()


SOURCES = frozenset(sources(PACKAGE))
STAMP = source_stamp(PACKAGE)


class KernelLocator(_CacheLocator):  # type: ignore[misc]  # Numba has no types
    """Where Numba keeps the machine code of Softstep's kernels.

    Numba's own locators probe the folder for writing even to read from it, which fails on a read-only root.
    """

    def __init__(self, py_func: Callable[..., Any]) -> None:
        self._line = py_func.__code__.co_firstlineno

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> "KernelLocator | None":
        """Return a locator for a function of these files; None leaves any other to Numba's own locators."""
        return cls(py_func) if Path(py_file) in SOURCES else None

    def ensure_cache_path(self) -> None:
        """Make the folder; Numba calls this only before it saves."""
        CACHE.mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        """Return the folder of the cache files."""
        return str(CACHE)

    def get_source_stamp(self) -> str:
        """Return what must be unchanged for cached code to be used."""
        return STAMP

    def get_disambiguator(self) -> str:
        """Return what tells apart two functions of one name."""
        return str(self._line)


def _can_keep() -> bool:
    """Whether compiled code can be read from, or written to, the cache folder."""
    folder = next(path for path in (CACHE, *CACHE.parents) if path.exists())
    return CACHE.exists() or os.access(folder, os.W_OK)


numba.config.CPU_NAME, numba.config.CPU_FEATURES = TARGET, FEATURES
numba.config.CACHE_LOCATOR_CLASSES = (
    f"{KernelLocator.__module__}.{KernelLocator.__qualname__},InTreeCacheLocator,UserWideCacheLocator"
)

_entries: list[Any] = []


def kernel(*signatures: object, unlocked: bool = True) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function for the given signatures, or take it from the cache.

    It runs with the interpreter unlocked, unless it is over before another thread could use that (unlocking takes 40 ns
    and may cost a turn of the interpreter).
    """

    def compile_entry(function: Callable[..., Any]) -> Any:  # noqa: ANN401  # a Numba dispatcher
        try:
            entry = numba.njit(list(signatures), nogil=unlocked, cache=_can_keep(), error_model="numpy")(function)
        except OSError:  # a cache that can be read, but lacks this processor's code and cannot be written
            entry = numba.njit(list(signatures), nogil=unlocked, error_model="numpy")(function)
        _entries.append(entry)
        return entry

    return compile_entry


# A function that becomes part of each kernel that calls it. LLVM's own judgement left the row functions as calls, which
# load every constant of the polynomials again for each row (57 ns a row of 10 classes instead of 9).
inlined = numba.njit(nogil=True, error_model="numpy", forceinline=True)


def cache_misses() -> int:
    """Count the kernel signatures that were compiled in this process instead of read from the cache."""
    return sum(sum(entry.stats.cache_misses.values()) for entry in _entries)
