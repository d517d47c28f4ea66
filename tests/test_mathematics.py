"""docs/mathematics.md names what there is: functions and tests that exist, and every derivative in the code."""

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/mathematics.md"
NAMED = re.compile(r"`([a-z_/0-9]+\.py)::([A-Za-z_.0-9]+)`")
# The modules whose every function is a derivation of the page, and what derivatives of all others are called.
DERIVED = ("service/softmax/derivatives.py", "service/softmax/kernels/jacobians.py")
CALLED = re.compile("backward|gradient|jacobian|sensitivit|slope|parts|errors|fold_forward|_step$|_update$")


def names_of(path: Path) -> set[str]:
    """The functions of a module, and the methods of its classes behind their class."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
    return found


def sections() -> dict[str, list[tuple[str, str]]]:
    """What each section of the page names: pairs of a file and a name."""
    parts = re.split(r"^## (.+)$", PAGE.read_text(), flags=re.MULTILINE)[1:]
    return {title: NAMED.findall(body) for title, body in zip(parts[::2], parts[1::2], strict=True)}


SECTIONS = sections()


@pytest.mark.parametrize("title", SECTIONS)
def test_every_derivation_names_what_computes_and_what_proves_it(title: str) -> None:
    """Each section names a function of the service and a test, and all that it names is there."""
    named = SECTIONS[title]
    assert {path.split("/")[0] for path, _ in named} == {"service", "tests"}
    missing = [f"{path}::{name}" for path, name in named if name not in names_of(ROOT / path)]
    assert missing == []


@pytest.mark.parametrize("path", sorted(str(one.relative_to(ROOT)) for one in ROOT.glob("service/softmax/**/*.py")))
def test_every_derivative_is_derived(path: str) -> None:
    """None that others may use goes unnamed."""
    named = {name for pairs in SECTIONS.values() for file, name in pairs if file == path}
    public = {name for name in names_of(ROOT / path) if not name.rpartition(".")[2].startswith("_")}
    assert {name for name in public if path in DERIVED or CALLED.search(name)} - named == set()


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script that draws the pictures."""
    spec = importlib.util.spec_from_file_location("write_mathematics", ROOT / "docs/write_mathematics.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pictures_can_be_drawn(script: ModuleType, tmp_path: Path) -> None:
    """The script draws every picture of the page."""
    script.main(tmp_path)
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn == set(re.findall(r"mathematics/([\w-]+\.png)", PAGE.read_text()))
    assert drawn == {path.name for path in (PAGE.parent / "mathematics").iterdir()}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())


def test_the_pictured_row_is_told_as_it_is(script: ModuleType) -> None:
    """The page says which row it shows, and how sure the model is of it."""
    row, _, P = script.least_certain()
    first, second = sorted(range(10), key=lambda k: -P[k])[:2]
    text = " ".join(PAGE.read_text().split())
    assert f"row {row}, for which it gives {P[first]:.3f} to {first} and {P[second]:.3f} to {second}" in text
