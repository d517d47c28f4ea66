"""Configure Numba: the processor baseline of the kernels, and the cache of their machine code.

By default Numba compiles for the host's processor and caches the result beside the source, keyed by the processor's
name. But an image is built on one machine and runs on another, often with a read-only root. So Softstep compiles for
the fixed baselines of the x86-64 psABI and picks the best one that the processor supports. Every baseline gives the
same bits (docs/determinism.md); only the speed differs.

Importing this module configures Numba. Kernels use its decorators `kernel` and `inlined`; no other module changes
Numba's configuration.
"""

import hashlib
import os
import re
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numba
from llvmlite import binding
from numba.core.caching import _CacheLocator

# The processor features that a baseline needs, best baseline first. Every baseline includes those below it. The tile
# shapes in softmax/kernels/matmul.py depend on these features.
BASELINES: dict[str, tuple[str, ...]] = {
    "x86-64-v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx2", "fma", "bmi2"),
    "x86-64-v3": ("avx2", "fma", "bmi", "bmi2", "f16c", "lzcnt", "movbe"),
    "x86-64-v2": ("sse4.2", "popcnt", "ssse3"),
}

# The cache holds pickles, and a folder that others can write to would let them run code here. So it is the package's
# own folder, or one that the operator names.
CACHE = Path(os.environ.get("SOFTSTEP_KERNELS", Path(__file__).parent / "__pycache__" / "kernels"))
PACKAGE = Path(__file__).parent
# The imports of a source file, as ruff's style lets them be written: `from service.… import` and names, or names in
# parentheses.
IMPORT = re.compile(r"^from (service[\w.]*) import (\([^)]*\)|.*)$", re.MULTILINE)
NAME = re.compile(r"\w+")


def sources(package: Path) -> tuple[Path, ...]:
    """Return the source files of machine code: arithmetic, parsers, counters, payloads, buckets of limits."""
    serve = package / "serve"
    parsers = (serve / "wire" / "row_scanner.py", serve / "models" / "single_row.py")
    return (
        package / "compiler.py",
        *sorted(package.glob("softmax/kernels/*.py")),
        *sorted(package.glob("fields/kernels/*.py")),
        *parsers,
        serve / "metrics" / "counters.py",
        serve / "limits" / "bucket_kernels.py",
        package / "store" / "log" / "sparse_kernels.py",
    )


def _host_features() -> dict[str, bool]:
    try:
        return dict(binding.get_host_cpu_features())
    except RuntimeError:  # LLVM does not support some platforms; use the safest baseline there
        return {}


def host_baseline() -> str:
    """Return the best baseline of this processor; "generic" if it is not an x86-64."""
    features = _host_features()
    for name, needed in BASELINES.items():
        if all(features.get(feature, False) for feature in needed):
            return name
    return "generic"


def _choose_target() -> tuple[str, str]:
    """Return the processor name and feature string to compile for; NUMBA_CPU_NAME overrides the choice."""
    if numba.config.CPU_NAME is not None:
        return numba.config.CPU_NAME, numba.config.CPU_FEATURES or ""
    return host_baseline(), ""


def _family(name: str, features: str) -> str:
    """Return the vector registers of a target: "avx512", "avx2", "neon" or "none" (no fused multiply-add)."""
    level = name if name in BASELINES else host_baseline() if features or name != "generic" else "generic"
    if level == "generic":
        return "neon" if binding.get_default_triple().startswith(("aarch64", "arm64")) else "none"
    return {"x86-64-v4": "avx512", "x86-64-v3": "avx2"}.get(level, "none")


TARGET, FEATURES = _choose_target()
FAMILY = _family(TARGET, FEATURES)


def imported_sources(path: Path, package: Path, known: Collection[Path]) -> set[Path]:
    """Return the source files that a source file imports by name.

    Args:
        path: The source file.
        package: The folder of the package `service`.
        known: All source files.
    """
    found = set()
    for module, names in IMPORT.findall(path.read_text()):
        place = package.joinpath(*module.split(".")[1:])
        found |= {place.with_suffix(".py"), *(place / f"{name}.py" for name in NAME.findall(names))}
    return found.intersection(known)


def source_stamps(package: Path) -> dict[Path, str]:
    """Hash each source file with all that its machine code may come from: this module, and what it imports in turn.

    Numba stamps a cached function with its own file alone, so it would use code that was inlined from another file
    after an edit of that file. Here a change of any of these files invalidates the code of those that import it.
    """
    files = sources(package)
    imports = {path: imported_sources(path, package, files) for path in files}
    stamps = {}
    for path in files:
        needed, waiting = {package / "compiler.py"}, [path]
        while waiting:
            one = waiting.pop()
            if one not in needed:
                needed.add(one)
                waiting += imports[one]
        digest = hashlib.sha256(sys.version.encode())
        for one in sorted(needed):
            digest.update(one.read_bytes())
        stamps[path] = digest.hexdigest()
    return stamps


STAMPS = source_stamps(PACKAGE)


class KernelLocator(_CacheLocator):  # type: ignore[misc]  # Numba has no types
    """The cache folder of Softstep's kernels, in the interface that Numba expects.

    Numba's own locators test whether the folder is writable even for reading, which fails on a read-only root.
    """

    def __init__(self, py_func: Callable[..., Any], stamp: str) -> None:
        self._line = py_func.__code__.co_firstlineno
        self._stamp = stamp

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> "KernelLocator | None":
        """Return a locator for a function of these files; None for others, which Numba's own locators handle."""
        stamp = STAMPS.get(Path(py_file))
        return None if stamp is None else cls(py_func, stamp)

    def ensure_cache_path(self) -> None:
        """Create the folder; Numba calls this only before it saves."""
        CACHE.mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        """Return the folder of the cache files."""
        return str(CACHE)

    def get_source_stamp(self) -> str:
        """Return the stamp that must be unchanged for cached code to be used."""
        return self._stamp

    def get_disambiguator(self) -> str:
        """Return the line number, which distinguishes functions of one name."""
        return str(self._line)


def _cache_usable() -> bool:
    """Return whether compiled code can be read from, or written to, the cache folder."""
    folder = next(path for path in (CACHE, *CACHE.parents) if path.exists())
    return CACHE.exists() or os.access(folder, os.W_OK)


numba.config.CPU_NAME, numba.config.CPU_FEATURES = TARGET, FEATURES
numba.config.CACHE_LOCATOR_CLASSES = (
    f"{KernelLocator.__module__}.{KernelLocator.__qualname__},InTreeCacheLocator,UserWideCacheLocator"
)

_entries: list[Any] = []


def kernel(*signatures: object, unlocked: bool = True) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function for the given signatures, or load it from the cache.

    Args:
        signatures: The Numba signatures to compile for.
        unlocked: Whether to release the interpreter lock while it runs. Releasing takes 40 ns and may cost waiting for
            the lock afterwards, so very short kernels keep it.
    """

    def compile_entry(function: Callable[..., Any]) -> Any:  # noqa: ANN401  # a Numba dispatcher
        try:
            entry = numba.njit(list(signatures), nogil=unlocked, cache=_cache_usable(), error_model="numpy")(function)
        except OSError:  # the cache is read-only and lacks this baseline's code
            entry = numba.njit(list(signatures), nogil=unlocked, error_model="numpy")(function)
        _entries.append(entry)
        return entry

    return compile_entry


# Inline a function into each kernel that calls it. LLVM by itself did not inline the row functions, and calls load
# every constant of the polynomials again for each row (57 ns a row of 10 classes instead of 9). Only kernels call these
# functions, so they have no wrappers for callers in Python or C, which are a fifth of the time that compiling takes.
inlined = numba.njit(nogil=True, error_model="numpy", forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def cache_misses() -> int:
    """Count the kernel signatures that were compiled in this process instead of read from the cache."""
    return sum(sum(entry.stats.cache_misses.values()) for entry in _entries)
