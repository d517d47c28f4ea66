"""Any damage to an artifact is refused or harmless."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ArtifactError
from service.store.artifact.artifact import read_artifact, write_artifact
from tests.support.artifact_files import (
    BYTES_MAX,
    GOLDEN,
    each_golden,
    equal_artifacts,
    on_disk,
    refusal,
    replace_tensors,
)


@st.composite
def damage(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """A way to damage bytes: flip bits, cut, repeat, insert, overwrite."""
    kind = draw(st.sampled_from(["flip", "cut", "insert", "overwrite", "repeat"]))
    at, bit = draw(st.floats(0, 1, exclude_max=True)), draw(st.integers(0, 7))
    garbage = draw(
        st.binary(min_size=1, max_size=12) | st.sampled_from([b"\xff" * 8, b"9" * 400, b"[" * 3000, b"null"])
    )

    def apply(raw: bytes) -> bytes:
        index = int(at * len(raw))
        before, after = raw[:index], raw[index:]
        return {
            "flip": lambda: before + bytes([after[0] ^ (1 << bit)]) + after[1:],
            "cut": lambda: before,
            "insert": lambda: before + garbage + after,
            "overwrite": lambda: before + garbage + after[len(garbage) :],
            "repeat": lambda: before + after + after,
        }[kind]()

    return apply


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the golden artifact to damage; each example writes both files again."""
    directory = tmp_path_factory.mktemp("victim") / "1"
    write_artifact(directory, read_artifact(GOLDEN, BYTES_MAX))
    return directory


def loads_equal_or_is_refused(directory: Path) -> None:
    """The one thing that holds for any two files."""
    try:
        artifact = read_artifact(directory, BYTES_MAX)
    except ArtifactError as error:
        reason = str(error)
    else:
        write_artifact(directory, artifact, overwrite=True)
        reason = "" if equal_artifacts(read_artifact(directory, BYTES_MAX), artifact) else "\n"
    assert reason.isprintable()
    assert len(reason) < 500


@each_golden
@on_disk
@given(damages=st.lists(damage(), min_size=1, max_size=3))
def test_any_damage_to_the_manifest_is_refused_or_harmless(
    victim: Path, golden: Path, damages: list[Callable[[bytes], bytes]]
) -> None:
    """No bytes in place of the manifest raise anything but ArtifactError."""
    raw = (golden / "model.json").read_bytes()
    for apply in damages:
        raw = apply(raw) or b" "
    (victim / "model.json").write_bytes(raw)
    (victim / "model.safetensors").write_bytes((golden / "model.safetensors").read_bytes())
    loads_equal_or_is_refused(victim)


@each_golden
@on_disk
@given(damages=st.lists(damage(), min_size=1, max_size=3), sealed=st.booleans())
def test_any_damage_to_the_tensors_is_refused_or_harmless(
    victim: Path,
    golden: Path,
    damages: list[Callable[[bytes], bytes]],
    sealed: bool,  # noqa: FBT001
) -> None:
    """Without a matching checksum damage is always refused; with one, by everything behind it."""
    original = (golden / "model.safetensors").read_bytes()
    raw = original
    for apply in damages:
        raw = apply(raw) or b" "
    (victim / "model.json").write_bytes((golden / "model.json").read_bytes())
    (victim / "model.safetensors").write_bytes(raw)
    if sealed:
        replace_tensors(victim, raw)
    elif raw != original:
        assert "tensors_sha256" in refusal(victim)
    loads_equal_or_is_refused(victim)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@each_golden
@on_disk
@given(data=st.data())
def test_any_change_of_the_manifest_is_refused_or_harmless(victim: Path, golden: Path, data: st.DataObject) -> None:
    """Any JSON value in any place of the manifest is refused in a sentence, or read."""
    manifest = copy.deepcopy(json.loads((golden / "model.json").read_text()))
    place: Any = manifest
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(json_values)
    (victim / "model.json").write_text(json.dumps(manifest))
    (victim / "model.safetensors").write_bytes((golden / "model.safetensors").read_bytes())
    loads_equal_or_is_refused(victim)
