"""The script of the page on exports compares models of every kind, and finds an export that is wrong."""

import re
from pathlib import Path

import pytest

from service.convert.graphs.graph_export import make_onnx
from tests import exports
from tests.support.model_artifacts import make_artifact


def test_models_of_every_kind_are_compared() -> None:
    """A few of each: the other ways answer what the service answers, and the page counts them."""
    found = exports.compare_all(8, 16)
    for kind, comparisons in found.items():
        asked = {way for one in comparisons for way in one.ways}
        assert asked == ({exports.NUMPY} if kind == "learned mixtures" else set(exports.WAYS))
        assert exports.largest(comparisons) <= exports.TARGET
    page = exports.render(found)
    for kind, comparisons in found.items():
        rows = re.findall(rf"^\| {kind} \| float\d\d \| (\d+) \|", page, re.MULTILINE)
        assert sum(map(int, rows)) == len(comparisons)


def test_the_page_is_of_models_of_every_kind_within_the_target() -> None:
    """docs/exports.md has a row for each kind, and no larger difference than the target."""
    page = exports.PAGE.read_text()
    assert {kind for kind in exports.KINDS_OF_MODELS if f"| {kind} | float32 |" in page} == {*exports.KINDS_OF_MODELS}
    cells = re.findall(r"\d, (\d\.\de[+-]\d\d)", page)
    assert len(cells) > 20
    assert max(map(float, cells)) <= exports.TARGET


def test_a_wrong_export_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph with other weights differs, and so does what is imported from it; the files are right."""
    right, wrong = (make_artifact("softmax", 3, ["a", "b"], "float64", seed=seed) for seed in (1, 2))
    assert exports.largest([exports.compare(right, tmp_path, 0)]) < 1e-12
    monkeypatch.setattr(exports, "make_onnx", lambda _: make_onnx(wrong))
    ways = exports.compare(right, tmp_path, 0).ways
    assert {way for way, (_, off) in ways.items() if off > 0.1} == {exports.ONNXRUNTIME, exports.IMPORTED}
