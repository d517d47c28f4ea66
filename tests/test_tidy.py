"""Rules for the source: sizes, imports, names, plain words, and text that must not appear."""

import ast
import io
import re
import subprocess
import tokenize
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
SERVICE = sorted((ROOT / "service").rglob("*.py"))
HARNESSES = [
    path for folder in ("loadtest", "models", "docs", "tests/torture") for path in (ROOT / folder).rglob("*.py")
]
CLIENT = sorted((ROOT / "client").rglob("*.py"))
SOURCE = SERVICE + CLIENT + sorted(HARNESSES)
TRACKED = [
    ROOT / name
    for name in subprocess.run(  # git, with fixed arguments
        ["git", "-C", str(ROOT), "ls-files"],  # noqa: S607
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()
]  # fmt: skip
TEXT_ENDINGS = {".py", ".md", ".toml", ".lock", ".yaml", ".txt", ".lua", ".json", ""}

LINES_MAX = 300
FUNCTION_LINES_MAX = 60

TESTS = sorted((ROOT / "tests").rglob("*.py"))
PAGES = [
    ROOT / "README.md",
    ROOT / "ARCHITECTURE.md",
    ROOT / "SECURITY.md",
    ROOT / "client" / "README.md",
    ROOT / "loadtest" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]

Function = ast.FunctionDef | ast.AsyncFunctionDef


# A pattern, matched without regard to case and on word borders; a space matches any white space. Then what to write.
PHRASES = {
    # Archaic
    r"(is|are|was|were) none of": "does not belong to",
    r"none that there": "no …, or: unknown",
    r"that there (is|are|was|were)": "existing, available, or nothing",
    r"of which there": "a relative clause with its own subject",
    r"behind which": "after which",
    r"anew": "again",
    r"any ?more": "no longer",
    r"no more(?=[.;,:)]|$)": "no longer",
    r"whoever|whosoever|whomever": "a client, a caller, anyone who",
    r"(some|any)body": "a client, a caller, someone",
    r"nobody('s)?": "no client, no process, nothing",
    r"(whence|thence|whereof|thereof|wherein|whereby|thereby|lest|amidst|unto|whilst|amongst)": "a plain conjunction",
    r"in the (midst|middle) of an?": "during",
    r"to be had": "available",
    r"what (became|becomes|came|comes) of": "the outcome of",
    r"who would rather": "to …",
    r"so to speak|as it were": "nothing",
    r"and the like|of its like": "such as",
    # People and speech for programs
    r"(is|are|was|were|be|been|being) told": "receives, is reported",
    r"(tell|tells|told|telling) of": "report, describe",
    r"(is|are|was|were|be|been) asked of": "requires",
    r"(is|are|was|were|be|been|being) taught": "receives feedback, learns",
    r"(is|are|was|were|be|been) (taken for|held to)": "counts as, is compared with",
    r"(is|are|was|were|be|been) taken (away|out)": "is removed",
    r"taken from (it|them|its|their|the text|the request)": "removed from",
    r"let go|lets go|letting go": "release, start",
    r"acquit(s|ted)?": "clear",
    r"wish(es|ed)?": "request, option",
    r"who lives|who answers|who learns|who asks|who is measured": "the process that …",
    r"(dies|died|death|deaths)": "exit, crash, kill",
    # Metaphors with a term of the field
    r"(front|safe) door": "protocol, public call",
    r"scribe": "writer thread",
    r"ledger": "worker log",
    r"lottery": "chance",
    # British spelling
    r"\w*(standard|normal|recogn|initial|serial|minim|maxim|summar|general|special|regular|synchron|author|util)is"
    r"(e|es|ed|er|ers|ing|ation|ations|able)": "-iz-",
    r"optimis(e|es|ed|er|ing|ation|ations)": "optimiz-",
    r"(organ|real)is(e|es|ed|ing|ation)": "-iz-",
    r"analys(e|ed|er|ing)": "analyz-",
    r"\w*(behaviour|colour|neighbour|favour|honour)\w*": "-or",
    r"centre(s|d)?": "center",
    r"licence(s|d)?(?!\":)": "license; the shipped manifests have a member of that name",
    r"learnt|spelt": "learned, spelled",
    r"(label|model|signal|travel)l(ed|ing)": "one l",
    r"grey": "gray",
    r"artefact(s)?": "artifact",
    r"programme(s)?": "program",
    r"catalogue(s)?": "catalog",
}
PATTERNS = {
    re.compile(rf"(?<!\w)(?:{phrase})(?!\w)".replace(" ", r"\s+"), re.IGNORECASE): plain
    for phrase, plain in PHRASES.items()
}
# Whether a text has any of them: a single search, where each pattern by itself takes as long.
ANY_PHRASE = re.compile(rf"(?<!\w)(?:{'|'.join(PHRASES)})(?!\w)".replace(" ", r"\s+"), re.IGNORECASE)
# A docstring that starts with one of these describes its subject by a clause instead of naming it.
CLAUSES = re.compile(r"(What|Who|Whose|Whatever|Where|Why|When|Of|As)\b")


def relative(path: Path) -> str:
    """Return a path as it is written below the repository's root."""
    return str(path.relative_to(ROOT))


def repeated(names: list[str]) -> list[str]:
    """Return the names that occur more than once."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


class Module(NamedTuple):
    """What the rules look at in a module; the trees of all modules together would take too much memory.

    Attributes:
        long: The functions that are too long.
        late: The functions with an import in them.
        classes: The names of the classes.
        imports: The names of the modules, or of their members, that are imported.
        strings: The strings that have a space, with the number of their first line.
        clauses: The docstrings that start with a clause, as "file:line: first words".
    """

    long: list[str]
    late: list[str]
    classes: list[str]
    imports: list[str]
    strings: list[tuple[int, str]]
    clauses: list[str]


@cache
def read_module(path: Path) -> Module:
    """Parse a module, once for all rules."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    functions = [node for node in nodes if isinstance(node, Function)]
    constants = (node for node in nodes if isinstance(node, ast.Constant))
    return Module(
        [f.name for f in functions if (f.end_lineno or 0) - f.lineno + 1 > FUNCTION_LINES_MAX],
        [f.name for f in functions for node in ast.walk(f) if isinstance(node, ast.Import | ast.ImportFrom)],
        [node.name for node in nodes if isinstance(node, ast.ClassDef)],
        [name for node in nodes for name in imported_modules(node)],
        [(one.lineno, one.value) for one in constants if isinstance(one.value, str) and " " in one.value],
        clauses_in(nodes, path),
    )


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the texts of a file with the number of their first line: a page, or strings and comments of a module."""
    content = path.read_text()
    if path.suffix != ".py":
        yield 1, content
        return
    yield from read_module(path).strings
    for token in tokenize.generate_tokens(io.StringIO(content).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def phrases_in(path: Path) -> list[str]:
    """Return each phrase of a file that PHRASES lists, as "file:line: phrase (write: plain words)"."""
    found = (
        (line + text.count("\n", 0, match.start()), " ".join(match[0].split()), plain)
        for line, text in texts_of(path)
        if ANY_PHRASE.search(text)
        for pattern, plain in PATTERNS.items()
        for match in pattern.finditer(text)
    )
    return [f"{relative(path)}:{line}: {phrase} (write: {plain})" for line, phrase, plain in sorted(found)]


def clauses_in(nodes: list[ast.AST], path: Path) -> list[str]:
    """Return each docstring of a module that starts with a clause, as "file:line: first words"."""
    documented = ast.Module | ast.ClassDef | Function
    found = []
    for node in nodes:
        text = ast.get_docstring(node) if isinstance(node, documented) else None
        if text is not None and CLAUSES.match(text):
            found.append(f"{relative(path)}:{getattr(node, 'lineno', 1)}: {text[:40]}")
    return found


def imported_modules(node: ast.AST) -> list[str]:
    """Return the names of the modules, or of their members, that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


@pytest.mark.parametrize("path", SOURCE, ids=relative)
def test_modules_stay_short(path: Path) -> None:
    """A module has at most 300 lines."""
    assert len(path.read_text().splitlines()) <= LINES_MAX


@pytest.mark.parametrize("path", SOURCE, ids=relative)
def test_functions_stay_short_and_import_nothing(path: Path) -> None:
    """A function has at most 60 lines, and every import stands at the top of its file."""
    module = read_module(path)
    assert (module.long, module.late) == ([], [])


@pytest.mark.parametrize("package", [SERVICE, CLIENT], ids=["service", "client"])
def test_file_names_in_a_package_are_unique(package: list[Path]) -> None:
    """No two modules of service/, or of client/, share a name; commands/ names its modules after the commands."""
    modules = [path for path in package if path.name != "__init__.py" and path.parent.name != "commands"]
    assert repeated([path.name for path in modules]) == []


@pytest.mark.parametrize("package", [SERVICE, CLIENT], ids=["service", "client"])
def test_class_names_in_a_package_are_unique(package: list[Path]) -> None:
    """No two classes of service/, or of client/, share a name."""
    assert repeated([name for path in package for name in read_module(path).classes]) == []


def test_no_test_module_imports_another() -> None:
    """Helpers that test modules share are in tests/support; code in strings, for a subprocess, counts too."""
    module = re.compile(r"tests\..*(?<=\.)(test_\w+|conftest)(\.\w+)?")
    code = re.compile(r"(from|import) tests\.([\w.]+\.)?(test_|conftest\b)")
    imports = [
        relative(path)
        for path in TESTS
        if any(map(module.fullmatch, read_module(path).imports))
        or any(code.search(text) for _, text in read_module(path).strings)
    ]
    assert imports == []


# Methods of named tuples and of os that are public in spite of their names.
PUBLIC_NAMES = frozenset(("_replace", "_asdict", "_fields", "_make", "_exit"))
# Every use of a private attribute has this; most modules do not, and need not be parsed.
PRIVATE_NAME = re.compile(r"\.\s*_")
# A comment that is an instruction to a tool gives no reason.
TOOL_COMMENT = re.compile(r"# (noqa|type: ignore|fmt:)[^#]*$")


def private_uses(content: str) -> list[int]:
    """Return the lines that use a private attribute of another object, without a comment that says why.

    The comment is on the line itself, or on one of the three lines above it in the same function.
    """
    if not PRIVATE_NAME.search(content):
        return []
    reasons = {
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(content).readline)
        if token.type == tokenize.COMMENT and not TOOL_COMMENT.match(token.string)
    }
    found: set[int] = set()

    def visit(node: ast.AST, first_line: int) -> None:
        if isinstance(node, ast.ClassDef | Function):
            first_line = node.lineno
        if isinstance(node, ast.Attribute) and is_private(node):
            lines = range(max(first_line, node.lineno - 3), (node.end_lineno or node.lineno) + 1)
            found.update({node.lineno} if reasons.isdisjoint(lines) else ())
        for child in ast.iter_child_nodes(node):
            visit(child, first_line)

    visit(ast.parse(content), 1)
    return sorted(found)


def is_private(node: ast.Attribute) -> bool:
    """Return whether an expression names a private attribute of another object."""
    own = isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}
    return node.attr.startswith("_") and not node.attr.startswith("__") and node.attr not in PUBLIC_NAMES and not own


def test_private_attributes_are_used_for_a_reason() -> None:
    """A test that uses a private attribute of another object has a comment that says why."""
    assert [f"{relative(path)}:{line}" for path in TESTS for line in private_uses(path.read_text())] == []


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("x._a", [1]),
        ("x._a  # why", []),
        ("# why\n\n\nx._a", []),
        ("# why\n\n\n\nx._a", [5]),
        ("# why\ndef f():\n    x._a", [3]),
        ("def f():\n    # why\n    x._a", []),
        ("def f():\n    self._a\n    x._replace()\n    x.__len__()", []),
        ("self.x._a", [1]),
        ("x._a  # type: ignore[attr-defined]", [1]),
        ("x._a  # noqa: SLF001  # why", []),
        ("x = '# why'; x._a", [1]),
    ],
)
def test_private_attributes_without_a_reason_are_found(content: str, lines: list[int]) -> None:
    """A use of a private attribute needs a comment near it in its own function."""
    assert private_uses(content) == lines


@pytest.mark.parametrize("path", [*SOURCE, *PAGES], ids=relative)
def test_the_text_is_plain(path: Path) -> None:
    """No docstring, message, comment or page uses a phrase of PHRASES."""
    assert phrases_in(path) == []


@pytest.mark.parametrize("path", SOURCE, ids=relative)
def test_docstrings_name_their_subject(path: Path) -> None:
    """No docstring starts with a clause in place of its subject."""
    assert read_module(path).clauses == []


def test_nothing_is_left_for_later() -> None:
    """No source file holds a note to finish it."""
    note = re.compile(r"\b(TO" + "DO|FIX" + r"ME|XX" + r"X)\b")
    assert [relative(path) for path in SOURCE if note.search(path.read_text())] == []


def test_no_file_names_a_package_registry_or_a_machine() -> None:
    """No tracked file holds the address of a package registry or a path of a developer's machine."""
    forbidden = re.compile(
        "py" + r"pi\.org|python" + r"hosted|registry\.np" + r"mjs|/ro" + r"ot/|/wo" + r"rk/|/ho" + "me/"
    )
    texts = (path for path in TRACKED if path.suffix in TEXT_ENDINGS and path.is_file() and path.name != "LICENSE")
    assert [relative(path) for path in texts if forbidden.search(path.read_text())] == []


def test_the_packages_are_locked_with_hashes() -> None:
    """Every locked requirement has a hash."""
    for name in ("requirements.lock", "requirements-dev.lock", "requirements-release.lock"):
        blocks = re.split(r"^(?=[a-z0-9])", (ROOT / name).read_text(), flags=re.MULTILINE)[1:]
        assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []


def serve_imports() -> dict[str, set[str]]:
    """Return which subpackages of serve/ each of them imports; worker.py and the leaves do not count."""
    folders = {path.parent.name for path in (ROOT / "service" / "serve").glob("*/__init__.py")}
    imports: dict[str, set[str]] = {folder: set() for folder in folders}
    for folder in folders:
        for path in (ROOT / "service" / "serve" / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("service.serve."):
                    imported = str(node.module).split(".")[2]
                    imports[folder] |= {imported} & folders - {folder}
    return imports


def test_the_longest_import_path_in_serve_has_six_packages() -> None:
    """A newcomer passes at most six packages from a socket down to the counters."""
    imports = serve_imports()

    def depth(folder: str) -> int:
        return 1 + max(map(depth, imports[folder]), default=0)

    assert max(map(depth, imports)) <= 6


def test_readme_is_short() -> None:
    """README has at most 120 lines, and five benchmark rows."""
    text = (ROOT / "README.md").read_text()
    table = text.split("<!-- bench:begin -->")[1].split("<!-- bench:end -->")[0]
    assert text.count("\n") <= 120
    assert len(re.findall(r"^\| L?\d", table, re.MULTILINE)) == 5
