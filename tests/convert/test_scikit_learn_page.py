"""The page on scikit-learn shows what its code prints, and names every part that can be converted."""

import contextlib
import io
import re
from itertools import pairwise
from pathlib import Path

import pytest

from service.convert.scikit.pipeline import KNOWN_CLASSES
from service.store.artifact.artifact import read_artifact
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "scikit_learn.md"
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_page_shows_what_its_code_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = [match.groups() for match in BLOCK.finditer(PAGE.read_text())]
    shown = [after for (kind, _), (following, after) in pairwise(blocks) if kind == "python" and following == "text"]
    names: dict[str, object] = {}
    printed = []
    for kind, code in blocks:
        if kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(compile(code, str(PAGE), "exec"), names)  # noqa: S102  # the page's code
            printed.append(output.getvalue())
    assert [text for text in printed if text] == shown
    assert read_artifact(Path("models/refunds/1"), 1 << 20).manifest.examples


def test_the_page_names_every_part() -> None:
    text = PAGE.read_text()
    kin = {"HalvingGridSearchCV", "HalvingRandomSearchCV", "RFECV", "SequentialFeatureSelector", "FunctionTransformer"}
    kin |= {"SelectPercentile", "SelectFdr", "SelectFpr", "SelectFwe"}
    assert [name for name in sorted(KNOWN_CLASSES - kin) if f"`{name}" not in text] == []
