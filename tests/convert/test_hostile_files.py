"""Hostile sources: refused in one sentence, with little memory, and without running or writing anything."""

import tracemalloc
from pathlib import Path

import pytest

from service.convert.scikit.skops_source import PICKLE_ADVICE
from service.convert.source_kinds import read_source
from service.convert.source_options import SourceOptions
from service.errors import ConversionError
from tests.convert.hostile_files import CASES

PEAK_MAX = 256 << 20


@pytest.mark.parametrize("name", CASES)
def test_hostile_files_are_refused(tmp_path: Path, name: str) -> None:
    """The sentence names the problem, and neither a path nor a value of the file."""
    write, word = CASES[name]
    path = write(tmp_path / "source")
    before = sorted(tmp_path.rglob("*"))
    tracemalloc.start()
    try:
        with pytest.raises(ConversionError) as caught:
            read_source(path, SourceOptions(layers="w,"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    sentence = str(caught.value)
    assert word in sentence
    assert sentence == PICKLE_ADVICE or sentence.isprintable()
    assert len(sentence) < 300
    assert str(tmp_path) not in sentence
    assert peak < PEAK_MAX
    assert sorted(tmp_path.rglob("*")) == before
