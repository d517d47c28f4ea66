"""The page on hostile sources: its script finds what is not refused, what is done meanwhile, and what takes memory."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests import hostile_sources
from tests.support import hostile_skops
from tests.support.paths import ROOT

# By statements that read a file: what is noted meanwhile, and whether the file is refused, and refused well.
READINGS: dict[str, tuple[str | None, bool, bool]] = {
    "open(path).close()": (None, True, True),
    "open(path, 'r+').close()": ("open", True, False),
    "open('/etc/passwd').close()": ("open", True, False),
    "import wave": ("import", True, False),
    "subprocess.run(['true'])": ("subprocess.Popen", True, False),
    "socket.socket().connect_ex(('127.0.0.1', 9))": ("socket.connect", True, False),
    "os.remove(path)": ("os.remove", True, False),
    "raise ConversionError('two\\nlines')": (None, True, False),
    "raise ConversionError('long ' * 100)": (None, True, False),
    "b'x' * (300 << 20)": (None, True, False),
    "raise MemoryError": (None, False, False),
    "os.abort()": (None, False, False),
}
# Reads files by these statements, each in a process of its own.
READER = """
import json, os, socket, subprocess, sys
from pathlib import Path
from service.errors import ConversionError
from tests.support import source_reader

def read_source(path, options):
    exec(path.read_bytes())
    raise ConversionError("it is refused")

source_reader.read_source = read_source
print(json.dumps([source_reader.fork_reader(path) for path in map(Path, sys.argv[1:])]))
"""


def test_other_readings_are_noted(tmp_path: Path) -> None:
    """The source alone may be opened, for reading; then one sentence comes out, within the memory."""
    paths = [tmp_path / str(i) for i in range(len(READINGS))]
    for path, statements in zip(paths, READINGS, strict=True):
        path.write_text(statements)
    command = [sys.executable, "-c", READER, *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    results: list[dict[str, Any]] = json.loads(done.stdout)
    for (statements, (seen, is_refused, is_good)), one in zip(READINGS.items(), results, strict=True):
        # The statements themselves are executed.
        noted = [event for event in one.pop("seen") if event != "exec"]
        outcome = hostile_sources.Outcome("a kind", "a name", seen=noted, **one)
        assert (statements, outcome.is_refused, outcome.is_good) == (statements, is_refused, is_good)
        assert seen in noted if seen else not noted


def test_files_are_read_as_the_command_reads_them(tmp_path: Path) -> None:
    """One that can be read is accepted, a pickle is refused, and both are left as they are."""
    folders = files, honest = [tmp_path / "files", tmp_path / "honest"]
    for folder in folders:
        folder.mkdir()
    (files / "0").write_bytes(hostile_skops.honest())
    (files / "1").write_bytes(hostile_skops.pickles()["a pickle of protocol 4"])
    report = hostile_sources.read_all(files, hostile_sources.write_seeds(honest))
    found = [hostile_sources.Outcome("a kind", name, **one) for name, one in report["results"].items()]
    assert [(one.outcome == "accepted", one.is_refused, one.is_good) for one in found] == [
        (True, False, False),
        (False, True, True),
    ]
    assert "| 2 | 1 | " in hostile_sources.render(found, report["imports"], {"a kind": 1})


def test_the_page_is_of_all_files() -> None:
    """docs/hostile_sources.md counts as many files of each kind as there are, all refused."""
    page = hostile_sources.PAGE.read_text()
    counts = {
        kind: (int(n), int(m)) for kind, n, m in re.findall(r"^\| (.+?) \| (\d+) \| (\d+) \|", page, re.MULTILINE)
    }
    assert all(files == refused for files, refused in counts.values())
    assert counts[".skops: the schema"][0] == len(hostile_skops.schemas())
    assert counts["ONNX"][0] == len(hostile_sources.GRAPHS)
    assert sum(files for files, _ in counts.values()) >= hostile_sources.FILES_MIN
