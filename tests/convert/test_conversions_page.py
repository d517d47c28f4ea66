"""The page of conversions: which parts its random pipelines have, and how near their models are."""

import re

from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "conversions.md").read_text()
COVERED = (ROOT / "docs" / "scikit_learn.md").read_text().partition("## What is covered\n")[2].partition("\n\nHow")[0]
ROW = re.compile(r"^\| `(\w+)`(?:, )?(\w*) \| (\d+) \| \S+ \| (\S+) \|$", re.MULTILINE)
OPTIONS = {
    ("ColumnTransformer", "remainder"), ("ColumnTransformer", "selector"), ("SimpleImputer", "indicator"),
    ("OneHotEncoder", "drop"), ("OneHotEncoder", "infrequent"), ("OneHotEncoder", "unknown"),
}  # fmt: skip


def test_each_part_is_in_five_pipelines() -> None:
    """Each class that is said to be covered, and each option with a meaning of its own."""
    counts = {(name, option): int(count) for name, option, count, _ in ROW.findall(PAGE)}
    classes = set(re.findall(r"`([A-Z]\w+)", COVERED)) - {"Pipeline"}
    assert len(classes) > 30
    missing = {part for part in OPTIONS | {(name, "") for name in classes} if counts.get(part, 0) < 5}
    assert missing == set()


def test_each_part_is_near() -> None:
    """No model is off by more than the target of the page."""
    assert max(float(difference) for *_, difference in ROW.findall(PAGE)) <= 1e-5


def test_each_source_of_another_kind_is_compared() -> None:
    """None of them is refused."""
    counts = re.findall(r"^\| [^|]+ \| (\d+) \| (\d+) \| \S+ \|$", PAGE, re.MULTILINE)
    assert len(counts) == 3
    assert all(made == compared for made, compared in counts)
