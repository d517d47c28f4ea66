"""Compare the bits of all results between machine code for different processors.

    make determinism                                every processor that this one can execute; writes docs/equal_bits.md
    python -m tests.determinism --only x86-64-v2    one of them, printed only

For each processor, a process compiles all kernels and prints the hash of each kind of result
(tests/support/kernel_probe.py). The hashes must be those of tests/golden/determinism.json, and the machine code must
use the vectors of that processor. `--write` keeps the results in docs/benchmarks/determinism.json and writes the page.
"""

import argparse
import json
import os
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from llvmlite import binding

from service import __version__, compiler
from tests.support.paths import ROOT

GOLDEN: Final = ROOT / "tests" / "golden" / "determinism.json"
PAGE: Final = ROOT / "docs" / "equal_bits.md"
RESULTS: Final = ROOT / "docs" / "benchmarks" / "determinism.json"
KERNELS: Final = ROOT / "build" / "determinism"
HOST: Final = "host"
# Substrings that the assembly of a target must contain, and must not.
REGISTERS: Final[dict[str, tuple[set[str], set[str]]]] = {
    "x86-64-v2": ({"xmm"}, {"ymm", "zmm", "vfmadd"}),
    "x86-64-v3": ({"ymm", "vfmadd"}, {"zmm"}),
    "x86-64-v4": ({"zmm", "vfmadd"}, set()),
}
TARGETS: Final = (*REGISTERS, HOST)
PROBE_SECONDS: Final = 1800  # to compile all kernels takes 150 s of an idle core
HEAD: Final = """# Equal bits on every processor

`make determinism` compiles all kernels for each processor of this table, in processes of their own, and compares the
hashes of all results with those of the release (`tests/golden/determinism.json`). It also counts the vector registers
in the machine code, so that the processes have really run different code. `host` is the processor that ran them, with
all its features. [Determinism](determinism.md) says why the bits are equal.

"""
KINDS: Final = "The results are of these kinds, over all heads, rules, shapes and both types of numbers:"
WIDTH: Final = 120


def host() -> tuple[str, str]:
    """Return the name and the features of this processor, as in LLVM."""
    return binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()


def runs_here(target: str) -> bool:
    """Return whether this processor can execute code for a target."""
    # As the compiler does, on platforms too that LLVM does not support.
    has = compiler._host_features()
    return target == HOST or all(has.get(feature, False) for feature in compiler.BASELINES[target])


def run_probe(module: str, target: str, kernels: Path) -> dict[str, Any]:
    """Run a probe of tests/support/ for a target, with its machine code in a folder; return what it prints."""
    name, features = host() if target == HOST else (target, "")
    variables = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features, "SOFTSTEP_KERNELS": str(kernels)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", f"tests.support.{module}"],
        cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["target"] == name
    return report


def compare(target: str) -> dict[str, Any]:
    """Return the result of one target: its kinds of results, those with other bits, and faults of its registers."""
    started = time.monotonic()
    kernels = compiler.CACHE if target == compiler.TARGET else KERNELS / target
    report = run_probe("kernel_probe", target, kernels)
    golden, found = json.loads(GOLDEN.read_text()), report["digests"]
    expected, forbidden = REGISTERS.get(compiler.host_baseline() if target == HOST else target, (set(), set()))
    used = {name for name, count in report["registers"].items() if count}
    return {
        "kinds": sorted(golden),
        "differ": sorted(name for name in {*golden, *found} if golden.get(name) != found.get(name)),
        "registers": sorted(used),
        "wrong_registers": sorted((expected - used) | (forbidden & used)),
        "seconds": round(time.monotonic() - started),
        "release": __version__,
        "date": datetime.now(UTC).date().isoformat(),
    }


def main(arguments: list[str]) -> int:
    """Compare the targets; return 1 if any bit differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=TARGETS, help="processors to compile for")
    parser.add_argument("--write", action="store_true", help="keep the results and write the page")
    options = parser.parse_args(arguments)
    targets = [target for target in options.only if runs_here(target)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = dict(zip(targets, pool.map(compare, targets), strict=True))
    for target, result in results.items():
        sys.stdout.write(f"{target}: differ: {result['differ']}, wrong registers: {result['wrong_registers']}\n")
    if options.write:
        kept = {**(json.loads(RESULTS.read_text()) if RESULTS.exists() else {}), **results}
        RESULTS.write_text(json.dumps({target: kept[target] for target in TARGETS if target in kept}, indent=1) + "\n")
        PAGE.write_text(render_page(json.loads(RESULTS.read_text())))
    return int(any(result["differ"] or result["wrong_registers"] for result in results.values()))


def render_page(results: dict[str, dict[str, Any]]) -> str:
    """Return the page with one row for each target."""
    head = [
        "| processor | registers and instructions | kinds of results | different | date |",
        "|---|---|---:|---:|---|",
    ]
    rows = [
        f"| {target} | {', '.join(one['registers'])} | {len(one['kinds'])} | {len(one['differ'])} | {one['date']} |"
        for target, one in results.items()
    ]
    kinds = textwrap.fill(f"{KINDS} {', '.join(next(iter(results.values()))['kinds'])}.", WIDTH)
    return HEAD + "\n".join([*head, *rows, "", kinds, ""])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
