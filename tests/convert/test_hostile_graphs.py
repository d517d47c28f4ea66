"""Hostile ONNX files are refused in one sentence, within bounds; nothing is run, and no other file is opened."""

import os
import resource
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.convert.graphs.graph_parser import GRAPH_BYTES_MAX
from service.convert.graphs.graph_source import read_graph
from service.errors import ConversionError
from tests.convert.hostile_graphs import CASES, GOOD
from tests.support.paths import ROOT

GOLDEN = Path(__file__).parents[1] / "golden" / "graphs"


@pytest.mark.parametrize("name", CASES)
def test_hostile_files_are_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    """Each by what is wrong with it; no file beside it is opened, and none is written."""
    raw, sentence = CASES[name]
    path = tmp_path / "model.onnx"
    path.write_bytes(raw)
    with opened_files() as opened, pytest.raises(ConversionError) as caught:
        read_graph(path)
    message = str(caught.value)
    assert sentence in message
    assert len(message) < 300
    assert message.isprintable()
    assert opened <= {str(path)}
    assert list(tmp_path.iterdir()) == [path]


def test_there_are_enough_of_them() -> None:
    """Figure T6 counts them."""
    assert len(CASES) >= 60


def test_large_files_and_other_files_are_refused(tmp_path: Path) -> None:
    """A file above the bound is not read, and neither are pipes and folders."""
    large = tmp_path / "large.onnx"
    with large.open("wb") as file:
        file.truncate(GRAPH_BYTES_MAX + 1)
    pipe = tmp_path / "pipe.onnx"
    os.mkfifo(pipe)
    for path, sentence in (
        (large, "bytes, and at most"),
        (pipe, "not a regular file"),
        (tmp_path, "not a regular file"),
        (tmp_path / "missing.onnx", "cannot be read"),
    ):
        with pytest.raises(ConversionError, match=sentence):
            read_graph(path)


def test_damaged_bytes_are_refused_or_read(tmp_path: Path) -> None:
    """Any byte of a model may be any other one; only ConversionError is raised."""
    rng, path = np.random.default_rng(4), tmp_path / "model.onnx"
    originals = [GOOD, *((GOLDEN / f"{name}.onnx").read_bytes() for name in ("table_one_hot", "gradient"))]
    refused = 0
    for i in range(900):
        raw = bytearray(originals[i % 3])
        for _ in range(int(rng.integers(1, 4))):
            raw[int(rng.integers(len(raw)))] = int(rng.integers(256))
        path.write_bytes(raw)
        try:
            read_graph(path)
        except ConversionError as error:
            refused += str(error).isprintable()
    assert 200 < refused < 900


def test_hostile_files_take_little_memory(tmp_path: Path) -> None:
    """All cases in one process of their own: what it takes above its imports is within 256 MiB."""
    for i, (raw, _) in enumerate(CASES.values()):
        (tmp_path / f"{i}.onnx").write_bytes(raw)
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from service.convert.graphs.graph_source import read_graph\n"
        "from service.errors import ConversionError\n"
        "from tests.support.peak_memory import peak_memory\n"
        "before = peak_memory()\n"
        "for path in Path(sys.argv[1]).iterdir():\n"
        "    try:\n"
        "        read_graph(path)\n"
        "    except ConversionError:\n"
        "        continue\n"
        "print((peak_memory() - before) >> 20)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 256
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0


class opened_files:  # noqa: N801  # used as a function
    """The paths that this thread opens within a block; threads of other tests may still follow files of theirs."""

    _sets: dict[int, set[str]] = {}  # noqa: RUF012  # by thread; one hook serves all blocks

    def __enter__(self) -> set[str]:
        opened = self._sets[threading.get_ident()] = set()
        return opened

    def __exit__(self, *_: object) -> None:
        del self._sets[threading.get_ident()]

    @classmethod
    def note(cls, event: str, arguments: tuple[Any, ...]) -> None:
        """Note a file that is opened; sys.addaudithook calls it."""
        if event == "open" and isinstance(arguments[0], str | os.PathLike):
            cls._sets.get(threading.get_ident(), set()).add(os.fspath(arguments[0]))


sys.addaudithook(opened_files.note)
