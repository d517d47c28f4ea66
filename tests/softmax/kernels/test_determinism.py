"""The same bits alone, in any batch, on another processor, in every release, and with a read-only cache.

    python -m tests.softmax.kernels.test_determinism

writes tests/golden/determinism.json, the bits that this release guarantees. A change of that file changes the replay of
every stored prediction, log and snapshot. It needs an entry in CHANGELOG.md and a commit of its own.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from importlib.metadata import packages_distributions, requires
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service import compiler
from service.softmax.input_stage import Delta, Stage
from service.softmax.linear_model import LinearModel
from tests import determinism
from tests.determinism import GOLDEN, run_probe, runs_here
from tests.support.budgets import examples
from tests.support.denormals import check_denormals
from tests.support.kernel_probe import digests
from tests.support.reference import DTYPES, HEADS, Array, targets

ROOT = Path(__file__).parents[3]


def python(*arguments: str, **environment: str) -> str:
    """Run Python in the root folder with a changed environment, and return its output."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=600,  # to compile all kernels takes 130 s of an idle core
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_bits_without_fused_operations(pytestconfig: pytest.Config) -> None:
    """Code for a processor without fused multiply-add computes the bits of this one; its kernels are kept between runs.

    It compiles what results in float32 need, half of all; `make determinism` compares all results on every processor.
    """
    if not runs_here("x86-64-v2"):
        pytest.skip("this processor cannot execute x86-64-v2")
    assert pytestconfig.cache is not None
    report = run_probe("late_kernels", "x86-64-v2", pytestconfig.cache.mkdir("kernels-x86-64-v2"))
    assert report["digests"] == digests((np.float32,))


def test_every_difference_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison of `make determinism` finds other bits, a missing kind of results and the wrong registers."""
    bits = json.loads(determinism.GOLDEN.read_text())
    right = {"target": "x86-64-v3", "digests": bits, "registers": {"zmm": 0, "ymm": 9, "xmm": 9, "vfmadd": 9}}
    wrong = {**right, "digests": {**bits, "labels": "other"}, "registers": {"zmm": 1, "ymm": 1, "xmm": 1, "vfmadd": 0}}
    del wrong["digests"]["losses"]
    found = []
    for report in (right, wrong):
        monkeypatch.setattr(determinism, "run_probe", lambda *_, report=report: report)
        found.append(determinism.compare("x86-64-v3"))
    assert (found[0]["differ"], found[0]["wrong_registers"]) == ([], [])
    assert (found[1]["differ"], found[1]["wrong_registers"]) == (["labels", "losses"], ["vfmadd", "zmm"])


def test_bits_of_this_release() -> None:
    """All results have the bits that are checked in; see the docstring of this module before changing them."""
    assert digests() == json.loads(GOLDEN.read_text())


def assert_same_rows(model: LinearModel, X: Array, Y: Array, start: int, stop: int) -> None:
    """Assert that rows start to stop, computed alone, have their bits of the whole batch."""
    part, wanted = X[start:stop].copy(), slice(start, stop)
    P, labels = model.classify(X)
    part_P, part_labels = model.classify(part)
    assert part_P.tobytes() == P[wanted].tobytes()
    assert part_labels == labels[wanted]
    assert model.logits(part).tobytes() == model.logits(X)[wanted].tobytes()
    assert model.log_probabilities(part).tobytes() == model.log_probabilities(X)[wanted].tobytes()
    assert model.losses(part, Y[wanted]).tobytes() == model.losses(X, Y)[wanted].tobytes()
    assert model.gradients(part, Y[wanted]).dX.tobytes() == model.gradients(X, Y).dX[wanted].tobytes()


@settings(deadline=None, max_examples=examples(400))
@given(st.data(), st.sampled_from(HEADS), st.sampled_from(DTYPES))
def test_bits_in_any_batch(data: st.DataObject, head: str, dtype: type[np.floating]) -> None:
    """Any split of a batch, and any single row, gives the bits of the whole batch."""
    B, N = data.draw(st.integers(1, 150)), data.draw(st.integers(1, 40))
    K = 1 if head == "sigmoid" else data.draw(st.integers(1, 60))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    X, W, b = (
        (rng.standard_normal(shape) * np.exp2(rng.integers(-20, 5, shape))).astype(dtype)
        for shape in ((B, N), (N, K), K)
    )
    stage = Stage(rng.standard_normal(N), np.exp(rng.standard_normal(N)), 2.0) if data.draw(st.booleans()) else None
    delta = None
    if data.draw(st.booleans()):
        learned = Stage(rng.standard_normal(N), np.exp(rng.standard_normal(N)), 1.25)
        delta = Delta(rng.standard_normal((N, K)).astype(dtype), learned)
    model, Y = LinearModel(head, W, b, stage, delta), targets(head, "soft", B, K, rng)
    cuts = sorted({0, B, *data.draw(st.lists(st.integers(0, B), max_size=4))})
    alone = data.draw(st.integers(0, B - 1))
    for start, stop in [*pairwise(cuts), (alone, alone + 1)]:
        assert_same_rows(model, X, Y, start, stop)


@pytest.mark.parametrize("head", HEADS)
def test_bits_of_every_row_alone(head: str) -> None:
    """Each of 150 rows, some of which overflow float32, has the same bits alone and in the batch."""
    K = 1 if head == "sigmoid" else 33
    rng = np.random.default_rng(0)
    X, W, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((150, 7), (7, K), K))
    X[::10], W[0] = 3e38, 5
    model = LinearModel(head, W, b)
    P, labels = model.classify(X)
    for i in range(150):
        alone, label = model.classify(X[i : i + 1])
        assert alone.tobytes() == P[i : i + 1].tobytes()
        assert label == labels[i : i + 1]


def test_denormals_are_exact() -> None:
    """Neither NumPy nor the kernels flush denormal numbers to zero, as operand or as result."""
    check_denormals()


def test_denormals_are_exact_with_other_libraries() -> None:
    """No dependency of the service switches the processor to flush denormals on import."""
    needed = {
        re.split(r"[^\w.-]", line)[0].lower().replace("-", "_")
        for line in requires("softstep") or ()
        if "extra ==" not in line
    }
    modules = sorted(
        module
        for module, owners in packages_distributions().items()
        if not module.startswith("_") and needed & {owner.lower().replace("-", "_") for owner in owners}
    )
    assert {"fastapi", "numba", "numpy", "orjson", "safetensors", "uvicorn"} <= set(modules)
    script = (
        f"import {', '.join(modules)}\n"
        "from tests.support.denormals import check_denormals\n"
        "check_denormals()\n"
        "print('exact')"
    )
    assert python("-c", script) == "exact\n"


def module_name(path: Path) -> str:
    """Return the name of a module of the service from its path."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_warm_start_writes_and_compiles_nothing() -> None:
    """With a read-only warm cache, every kernel is loaded and none is compiled."""
    script = (
        "from service import compiler\n"
        "def refuse(self): raise OSError('read-only')\n"
        "compiler.KernelLocator.ensure_cache_path = refuse\n"
        f"import {', '.join(map(module_name, compiler.sources(compiler.PACKAGE)))}\n"
        # The compiler's registry of kernels is private; the subprocess prints the length of its own.
        "print(compiler.cache_misses(), len(compiler._entries))"
    )
    misses, entries = python("-c", script, SOFTSTEP_KERNELS=str(compiler.CACHE)).split()
    assert int(misses) == 0
    assert int(entries) == sum(path.read_text().count("\n@kernel(") for path in compiler.sources(compiler.PACKAGE))


def copy_package(folder: Path) -> Path:
    """Copy the compiler and the kernels into a folder, as an importable package `service`."""
    package = folder / "service"
    package.mkdir()
    for name in ("__init__.py", "errors.py"):
        shutil.copy(ROOT / "service" / name, package)
    for path in compiler.sources(ROOT / "service"):
        copy = package / path.relative_to(ROOT / "service")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return package


def test_an_edit_of_an_imported_file_invalidates_the_cache(tmp_path: Path) -> None:
    """A copy with a copied cache compiles nothing, and everything after an edit of a file that it imports."""
    package = copy_package(tmp_path)
    shutil.copytree(compiler.CACHE, tmp_path / "kernels")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import service.softmax.kernels.exp_log\n"
        "from service import compiler\n"
        "assert compiler.__file__.startswith(sys.path[0])\n"
        "print(compiler.cache_misses())"
    )
    for name, misses in (("matmul", "0"), ("lanes", "4")):
        assert python("-c", script, SOFTSTEP_KERNELS=str(tmp_path / "kernels")) == "0\n"
        with (package / "softmax" / "kernels" / f"{name}.py").open("a") as source:
            source.write("# edited\n")
        assert python("-c", script, SOFTSTEP_KERNELS=str(tmp_path / "kernels")) == f"{misses}\n"


SOURCES = [str(path.relative_to(compiler.PACKAGE)) for path in compiler.sources(compiler.PACKAGE)]


@cache
def imported(path: Path) -> frozenset[Path]:
    """Return the source files that a source file imports, as Python's own parser finds them."""
    names = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    parts = {part for name in names for part in (name, name.rpartition(".")[0])}
    return frozenset({ROOT.joinpath(*part.split(".")).with_suffix(".py") for part in parts} & compiler.STAMPS.keys())


def needed_sources(path: Path) -> set[Path]:
    """Return a source file and all that it imports in turn."""
    needed, waiting = set[Path](), [path]
    while waiting:
        one = waiting.pop()
        needed.add(one)
        waiting += imported(one) - needed
    return needed


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_is_in_the_stamps(source: str, tmp_path: Path) -> None:
    """An edit of a source file changes the stamps of itself and of all files that import it, and no other."""
    package = copy_package(tmp_path)
    before = compiler.source_stamps(package)
    assert list(before.values()) == list(compiler.STAMPS.values()), "the same files in another folder keep the stamps"
    with (package / source).open("a") as file:
        file.write("# edited\n")
    after = compiler.source_stamps(package)
    changed = {str(path.relative_to(package)) for path in before if after[path] != before[path]}
    edited = compiler.PACKAGE / source
    expected = {one for one in SOURCES if edited in needed_sources(compiler.PACKAGE / one)}
    assert changed == (set(SOURCES) if source == "compiler.py" else expected)


def test_make_knows_every_source() -> None:
    """An edit of any of these files has `make` compile the kernels before the tests."""
    done = subprocess.run(
        ["make", "--no-print-directory", "--eval=print: ; @echo $(KERNELS)", "print"],  # noqa: S607
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert sorted(done.stdout.split()) == sorted(f"service/{source}" for source in SOURCES)


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(digests(), indent=2) + "\n")
