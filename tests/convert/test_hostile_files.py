"""Hostile sources: refused in one sentence, with little memory, and without running or writing anything."""

import contextlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from service.convert.row_files import read_probabilities, read_rows
from service.convert.scikit.skops_source import PICKLE_ADVICE
from service.convert.source_kinds import read_source
from service.convert.source_options import SourceOptions
from service.errors import ConversionError
from service.fields.generated_rows import number_encoder
from tests.convert.hostile_files import CASES
from tests.support.budgets import examples
from tests.support.paths import ROOT

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


def seeds(folder: Path) -> dict[str, bytes]:
    """Return whole files of each kind, by their names."""
    tensors = {"w": np.arange(6.0).reshape(3, 2), "b": np.zeros(2, np.float32)}
    np.savez(folder / "seed.npz", **tensors)
    safetensors.numpy.save_file(tensors, folder / "seed.safetensors")
    golden = ROOT / "tests" / "golden" / "vowpal"
    paths = [folder / "seed.npz", folder / "seed.safetensors", golden / "oaa3.txt", golden / "l1.names.txt"]
    return {path.name: path.read_bytes()[:4000] if path.suffix == ".txt" else path.read_bytes() for path in paths}


@settings(max_examples=examples(800), deadline=None)
@given(st.integers(0, 3), st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=4)), max_size=6), st.floats(0, 1))
def test_damaged_files_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, number: int, changes: list[tuple[float, bytes]], length: float
) -> None:
    """Whatever bytes change and wherever a file ends, nothing but a sentence comes out."""
    folder = tmp_path_factory.getbasetemp()
    raw = bytearray(list(seeds(folder).values())[number])
    for place, new in changes:
        at = int(place * len(raw))
        raw[at : at + len(new)] = new
    path = folder / "damaged"
    path.write_bytes(raw[: round(len(raw) * (1 - length / 4))] if length > 0.5 else raw)
    options = SourceOptions(layers="w,b", weight_rows="inputs", namespaces=("user", "item"))
    with contextlib.suppress(ConversionError):
        read_source(path, options)


@settings(max_examples=examples(400), deadline=None)
@given(st.binary(max_size=60) | st.text(st.sampled_from('{}[]":,\n\r1.5eax \ufeff')).map(str.encode))
def test_any_bytes_are_rows_or_refused(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    """Files of rows and of probabilities."""
    path = tmp_path_factory.getbasetemp() / "rows"
    path.write_bytes(raw)
    encoder = number_encoder(["a", "x"], [0.0, 0.0], [1.0, 1.0])
    with contextlib.suppress(ConversionError):
        read_rows(path, encoder)
    with contextlib.suppress(ConversionError):
        read_probabilities(path, ["a", "x"])
