"""The JSON of a manifest: one strict grammar."""

import math
from pathlib import Path

import pytest

from service.errors import ArtifactError
from service.store.artifact.artifact import Artifact
from tests.support.artifact_files import MakeArtifact, refusal

WRONG_JSON: list[tuple[bytes, str]] = [
    (b"", "Expecting value"),
    (b"[]", "Input should be"),
    (b"null", "Input should be"),
    (b"{", "Expecting property name"),
    (b"\xef\xbb\xbf{}", "BOM"),
    ("{}".encode("utf-16"), "UTF-8"),
    (b"\xff", "UTF-8"),
    (b'{"head": "softmax", "head": "ovr"}', "same key twice"),
    (b'{"metrics": {"a": 1, "a": 2}}', "same key twice"),
    (b'{"metrics": {"a": NaN}}', "NaN is not a JSON number"),
    (b'{"metrics": {"a": -Infinity}}', "-Infinity is not a JSON number"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"provenance": {"a": "\\ud800"}}', "model.json"),
    (b'{"a\\u0000": 1}', "model.json"),
    (b"{} {}", "Extra data"),
    (b'{"metrics": {"a": 1e999}, "head": 1}', "model.json"),
    (b"9" * 5000, "model.json"),
]


@pytest.mark.parametrize(("raw", "reason"), WRONG_JSON, ids=range(len(WRONG_JSON)))
def test_wrong_json_is_refused(folder: Path, raw: bytes, reason: str) -> None:
    """One grammar: UTF-8 without byte order mark, no key twice, numbers only, bounded depth."""
    (folder / "model.json").write_bytes(raw)
    assert reason in refusal(folder)


def test_infinite_numbers_are_refused_in_the_manifest(folder: Path) -> None:
    """A decimal that overflows float64 is not a finite number."""
    text = (folder / "model.json").read_text().replace('"metrics": {}', '"metrics": {"a": 1e999}')
    (folder / "model.json").write_text(text)
    assert "metrics.a: Input should be a finite number" in refusal(folder)


def test_making_an_artifact_checks_it(make_artifact: MakeArtifact) -> None:
    """Making an artifact is checked like reading one."""
    with pytest.raises(ArtifactError, match="NaN is not a JSON number"):
        make_artifact(metrics={"accuracy": math.nan})
    with pytest.raises(ArtifactError, match="not finite"):
        make_artifact(bias=math.inf)
    with pytest.raises(ArtifactError, match="exactly those"):
        Artifact(make_artifact().manifest, {})
