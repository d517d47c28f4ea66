"""docs/mathematics.md and docs/mathematics/ name functions and tests that exist, and every derivative in the code."""

import ast
import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.scripts import load_script

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs/mathematics"
TEXT = "\n".join(page.read_text() for page in sorted(FOLDER.glob("*.md")))
NAMED = re.compile(r"`([a-z_/0-9]+\.py)::([A-Za-z_.0-9]+)`")
# The modules in which every function is derived, and the names of derivatives in all others.
DERIVED = ("service/softmax/derivatives.py", "service/softmax/kernels/jacobians.py")
CALLED = re.compile("backward|gradient|jacobian|sensitivit|slope|parts|errors|fold_forward|_step$|_update$")


def names_of(path: Path) -> set[str]:
    """Return the functions of a module, and the methods of its classes as Class.method."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
    return found


def sections() -> dict[str, list[tuple[str, str]]]:
    """Return the pairs of a file and a name that each section names."""
    parts = re.split(r"^## (.+)$", TEXT, flags=re.MULTILINE)[1:]
    return {title: NAMED.findall(body) for title, body in zip(parts[::2], parts[1::2], strict=True)}


SECTIONS = sections()


@pytest.mark.parametrize("title", SECTIONS)
def test_every_derivation_names_what_computes_and_what_proves_it(title: str) -> None:
    """Each section names a function of the service and a test, and both exist."""
    named = SECTIONS[title]
    assert {path.split("/")[0] for path, _ in named} == {"service", "tests"}
    missing = [f"{path}::{name}" for path, name in named if name not in names_of(ROOT / path)]
    assert missing == []


@pytest.mark.parametrize("path", sorted(str(one.relative_to(ROOT)) for one in ROOT.glob("service/softmax/**/*.py")))
def test_every_derivative_is_derived(path: str) -> None:
    """Every public derivative of a module is named in a section."""
    named = {name for pairs in SECTIONS.values() for file, name in pairs if file == path}
    public = {name for name in names_of(ROOT / path) if not name.rpartition(".")[2].startswith("_")}
    assert {name for name in public if path in DERIVED or CALLED.search(name)} - named == set()


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """Import docs/write_mathematics.py."""
    return load_script("docs/write_mathematics.py")


def test_the_pictures_can_be_drawn(script: ModuleType, tmp_path: Path) -> None:
    """The script draws every picture of the pages."""
    script.main(tmp_path)
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn == set(re.findall(r'"([\w-]+\.png)"', TEXT))
    assert drawn == {path.name for path in FOLDER.glob("*.png")}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())


def test_the_pages_describe_the_pictured_row(script: ModuleType) -> None:
    """The page names the row of the picture and its two largest probabilities."""
    row, _, P = script.least_certain()
    first, second = sorted(range(10), key=lambda k: -P[k])[:2]
    text = " ".join(TEXT.split())
    assert f"row {row}, for which it gives {P[first]:.3f} to {first} and {P[second]:.3f} to {second}" in text
