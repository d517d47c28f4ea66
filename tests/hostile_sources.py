"""Give hostile files to the importers and measure what they take; writes docs/hostile_sources.md.

    python -m tests.hostile_sources [--write]

Each file is read in a process of its own (tests/support/source_reader.py). Then the command `softstep import` reads the
file of each kind that took the most memory.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from service.convert.scikit.skops_source import PICKLE_ADVICE
from tests.convert.hostile_files import CASES, npy, weight_archive
from tests.convert.hostile_graphs import CASES as GRAPHS
from tests.support import hostile_skops
from tests.support.paths import ROOT

PAGE: Final = ROOT / "docs" / "hostile_sources.md"
MEMORY_MAX: Final = 256 << 20
FILES_MIN: Final = 150
SENTENCE_MAX: Final = 300
MIB: Final = 1 << 20
WIDTH: Final = 120
GOLDEN: Final = ROOT / "tests" / "golden"
# The kinds of cases whose names have no beginning.
OTHERS: Final = "files of no kind that is read"
# Runs a command, and prints its code and its largest memory in KiB.
STARTER: Final = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


class Outcome(NamedTuple):
    """What became of a file.

    Attributes:
        kind: Its kind.
        name: What is wrong with it.
        outcome: The sentence, "accepted", or an error that is no refusal.
        is_refused: Whether it was refused as sources are.
        seen: What was opened, imported, run or connected to meanwhile.
        seconds: The time of the processor.
        growth: The memory in bytes that it added to that of the imports.
    """

    kind: str
    name: str
    outcome: str
    is_refused: bool
    seen: list[str]
    seconds: float
    growth: int

    @property
    def is_good(self) -> bool:
        """Whether it was refused in one sentence, within the memory, and nothing else was touched."""
        one = self.outcome == PICKLE_ADVICE or (self.outcome.isprintable() and len(self.outcome) < SENTENCE_MAX)
        return self.is_refused and one and not self.seen and self.growth <= MEMORY_MAX


def write_cases(folder: Path) -> dict[str, tuple[str, str]]:
    """Write all hostile files; return the kind and the name of each by its file."""
    titles = {"npz": ".npz", "safetensors": "safetensors", "vowpal": "Vowpal Wabbit"}
    cases: list[tuple[str, str, Any]] = []
    for name, (write, _) in CASES.items():
        kind, colon, rest = name.partition(": ")
        cases.append((titles[kind], rest, write) if colon else (OTHERS, name, write))
    for kind, files in (
        (".skops: the archive", hostile_skops.archives()),
        (".skops: arrays", hostile_skops.arrays()),
        (".skops: the schema", hostile_skops.schemas()),
        ("pickles as .skops", hostile_skops.pickles()),
        ("ONNX", {name: raw for name, (raw, _) in GRAPHS.items()}),
    ):
        cases += [(kind, name, raw) for name, raw in files.items()]
    found = {}
    for number, (kind, name, content) in enumerate(sorted(cases, key=lambda case: case[0])):
        path = folder / f"{number:03}"
        if callable(content):
            content(path)
        else:
            path.write_bytes(content)
        found[path.name] = kind, name
    return found


def write_seeds(folder: Path) -> list[Path]:
    """Return a file of each kind that can be read."""
    skops = folder / "honest.skops"
    skops.write_bytes(hostile_skops.honest())
    arrays = weight_archive(folder / "honest.npz", npy(np.ones((3, 2))))
    return [skops, arrays, GOLDEN / "vowpal" / "l1.names.txt", GOLDEN / "graphs" / "table_one_hot.onnx"]


def read_all(folder: Path, seeds: list[Path]) -> dict[str, Any]:
    """Return what tests/support/source_reader.py reports about the files of a folder.

    Raises:
        RuntimeError: A file was made, changed or removed.
    """
    with tempfile.TemporaryDirectory() as work:
        before = list_files(folder)
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.source_reader", str(folder), *map(str, seeds)],
            cwd=work, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr)
        if list_files(folder) != before or list(Path(work).iterdir()):
            raise RuntimeError("a file was made, changed or removed")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def list_files(folder: Path) -> list[tuple[str, int, int]]:
    """Return the name, the size and the time of each file."""
    return sorted((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*"))


def measure_command(path: Path, models: Path) -> int:
    """Return the largest memory in bytes of `softstep import` with a file that it refuses.

    Raises:
        RuntimeError: It did not refuse the file, or wrote something.
    """
    program = str(Path(sys.executable).parent / "softstep")
    options = ["--name", "x", "--models", str(models), "--layers", "w,", "--weight-rows", "inputs"]
    command = [program, "import", str(path), *options]
    # The largest memory of a process is at least that of the one that starts it, which is a small one here.
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", STARTER, *command], capture_output=True, text=True, check=True
    )
    code, memory = map(int, done.stdout.split())
    if code != 1 or not done.stderr.startswith("softstep: ") or any(models.iterdir()):
        raise RuntimeError(f"softstep import did not refuse a file: {done.stderr}")
    return memory * 1024


def run_all() -> tuple[list[Outcome], int, dict[str, int]]:
    """Return the outcomes, the memory of the imports, and that of the command for the heaviest file of each kind."""
    with tempfile.TemporaryDirectory() as top:
        folders = files, honest, models = [Path(top, name) for name in ("files", "honest", "models")]
        for folder in folders:
            folder.mkdir()
        names = write_cases(files)
        report = read_all(files, write_seeds(honest))
        outcomes = [Outcome(*names[file], **result) for file, result in report["results"].items()]
        heaviest: dict[str, tuple[int, str]] = {}
        for file, one in zip(report["results"], outcomes, strict=True):
            heaviest[one.kind] = max(heaviest.get(one.kind, (-1, "")), (one.growth, file))
        commands = {kind: measure_command(files / file, models) for kind, (_, file) in heaviest.items()}
    return outcomes, report["imports"], commands


def render(outcomes: list[Outcome], imports: int, commands: dict[str, int]) -> str:
    """Return the page."""
    rows, lists = [], []
    for kind, memory in commands.items():
        chosen = [one for one in outcomes if one.kind == kind]
        rows.append(f"| {describe(kind, chosen)} | {memory / MIB:.0f} MiB |")
        names = ", ".join(one.name if one.name.isprintable() else ascii(one.name) for one in chosen)
        lists.append(textwrap.fill(f"**{kind}**: {names}.", WIDTH, break_on_hyphens=False, break_long_words=False))
    growth, seconds = max(one.growth for one in outcomes), max(one.seconds for one in outcomes)
    return f"""# Hostile sources

Files that were made to harm the person who imports them: bombs, names with `..`, links, pickles and arrays of objects
in disguise, circles, deep JSON, huge shapes, numbers that are not finite, data in other files. `make hostile-sources`
gives each one to the importers of `softstep import`, in a process of its own, and writes this page.

- {sum(one.is_refused for one in outcomes)} of {len(outcomes)} files were refused in one sentence.
- {sum(bool(one.seen) for one in outcomes)} of them caused anything else: an import, a process, a connection, or another
  file that was opened or written.
- A file took at most {growth / MIB:.0f} MiB and {seconds:.1f} s of a processor; the target is {MEMORY_MAX // MIB} MiB.

The imports alone take {imports / MIB:.0f} MiB if those of all kinds are in one process: NumPy, Numba, onnx and
onnxruntime. The command imports what its source needs. The last column is the largest memory of `softstep import` as a
whole, with its imports, for the file of each kind that took the most.

| kind | files | refused | processor time | added memory | the whole command |
|---|---:|---:|---:|---:|---:|
{chr(10).join(rows)}

## The files

{(chr(10) * 2).join(lists)}
"""


def describe(kind: str, chosen: list[Outcome]) -> str:
    """Return the first cells of a row of the table."""
    seconds, growth = max(one.seconds for one in chosen), max(one.growth for one in chosen)
    refused = sum(one.is_refused for one in chosen)
    return f"{kind} | {len(chosen)} | {refused} | {seconds:.2f} s | {growth / MIB:.0f} MiB"


def main() -> None:
    """Read all files, and write or print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write docs/hostile_sources.md")
    options = parser.parse_args()
    start = time.monotonic()
    outcomes, imports, commands = run_all()
    page = render(outcomes, imports, commands)
    if options.write:
        PAGE.write_text(page)
    sys.stdout.write(f"{page}\n{time.monotonic() - start:.0f} s\n")
    bad = [f"{one.kind}: {one.name}: {one.outcome} {one.seen}" for one in outcomes if not one.is_good]
    if bad or len(outcomes) < FILES_MIN:
        raise SystemExit("\n".join(["not refused as they must be:", *bad]))


if __name__ == "__main__":
    main()
