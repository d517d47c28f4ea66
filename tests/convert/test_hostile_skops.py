"""Hostile .skops files are refused in one sentence: nothing is run, imported or written, within 256 MB."""

import json
import subprocess
import sys

import pytest

from service.convert.scikit.skops_source import PICKLE_ADVICE
from tests.support.hostile_skops import honest, hostile_files

# Beyond the 240 MB that importing the program takes for a moment.
MEMORY_MAX = 256 << 20
SENTENCE_MAX = 250

# Reads each file of a folder, and reports what a hook of the interpreter sees meanwhile.
READER = """
import codecs, json, os, sys
from pathlib import Path

from service.convert.scikit.skops_source import read_skops_model
from service.errors import SoftstepError
from tests.support.peak_memory import peak_memory

# The codec of names in archives without a flag.
codecs.lookup("cp437")
watched = (
    "import", "exec", "os.system", "os.remove", "os.mkdir", "os.rename", "os.symlink",
    "pickle.find_class", "socket.connect", "subprocess.Popen",
)
seen = []

def hook(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        writes = isinstance(mode, str) and set(mode) & set("wax+") or (flags or 0) & (os.O_WRONLY | os.O_RDWR)
        if writes or not str(path).startswith(sys.argv[1]):
            seen.append(f"open {path}")
    elif event in watched:
        seen.append(f"{event} {arguments[0]}")

results = {}
paths = sorted(Path(sys.argv[1]).iterdir())
before = peak_memory()
sys.addaudithook(hook)
for path in paths:
    seen.clear()
    kind = ""
    try:
        with path.open("rb") as file:
            model = read_skops_model(file, path).model
        outcome = "accepted" if all(map(str, model.classes)) and len(set(model.classes)) > 1 else "no classes"
    except SoftstepError as error:
        outcome = str(error)
    except BaseException as error:
        outcome, kind = f"{type(error).__name__}: {error}", "raised"
    results[path.name] = [outcome, list(seen), kind]
print(json.dumps({"results": results, "memory": peak_memory() - before}))
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("hostile")
    names = {}
    for number, (name, raw) in enumerate({"honest": honest(), **hostile_files()}.items()):
        path = folder / f"{number:03}.skops"
        path.write_bytes(raw)
        names[path.name] = name
    before = sorted(folder.iterdir())
    done = subprocess.run(
        [sys.executable, "-c", READER, folder], capture_output=True, text=True, check=True, cwd=folder
    )
    assert sorted(folder.iterdir()) == before
    report = json.loads(done.stdout)
    report["results"] = {names[path]: result for path, result in report["results"].items()}
    return report


def test_an_honest_file_is_read(outcomes: dict) -> None:
    assert outcomes["results"].pop("honest")[0] == "accepted"


def test_each_is_refused_in_one_sentence(outcomes: dict) -> None:
    results = {name: result for name, result in outcomes["results"].items() if name != "honest"}
    assert len(results) >= 130
    accepted = [name for name, (outcome, _, _) in results.items() if outcome == "accepted"]
    assert accepted == []
    raised = {name: outcome for name, (outcome, _, kind) in results.items() if kind}
    assert raised == {}
    long = {
        name: outcome
        for name, (outcome, _, _) in results.items()
        if outcome != PICKLE_ADVICE and ("\n" in outcome or len(outcome) > SENTENCE_MAX)
    }
    assert long == {}


REASONS = {
    "a circle": "contains itself",
    "a circle of ten nodes": "contains itself",
    "200 nodes within each other": "64 within each other",
    "100,000 lists": "nests too deep",
    "a schema that is longer than its file": "and the limit is 50331648",
    "700,000 objects": "more values than are allowed for its size",
    "5,000,000 values": "more values than are allowed for its size",
    "a member twice": "a member twice",
    "two members of one name": "two members of one name",
    "a link": "a link",
    "a member '../x.npy'": "a path",
    "a member '/etc/passwd'": "a path",
    "an encrypted member": "is encrypted",
    "bzip2": "a method other than deflate",
    "a bomb": "expands to",
    "a bomb within an archive": "expands to",
    "many members": "more than",
    "50 bombs within an archive": "asked for too often",
    "an array named 50 times": "asked for too often",
    "1,000,000 members": "more members than are allowed for the size of the file",
    "640,000 members": "has no id",
    "objects": "objects would run code",
    "a huge shape": "another size than its header says",
    "NaN": "not finite",
    "another number of columns": "a shape that does not fit",
    "a class of another package": "of the package posix",
    "protocol 3": "another protocol",
    "columns without end": "a row must have from 1 to",
    "a pattern that is code": "which is code",
    "a file outside": "a member that the archive names is missing",
    "keys of an unknown type": "keys of unknown types",
    "an array of objects of another shape": "another shape than its values",
}


@pytest.mark.parametrize("name", REASONS)
def test_the_reason_is_named(outcomes: dict, name: str) -> None:
    assert REASONS[name] in outcomes["results"][name][0]


def test_nothing_is_run_or_opened(outcomes: dict) -> None:
    assert {name: seen for name, (_, seen, _) in outcomes["results"].items() if seen} == {}


def test_memory_stays_within_its_bound(outcomes: dict) -> None:
    assert outcomes["memory"] <= MEMORY_MAX
