"""Artifacts are read back as they were written, and written completely or not at all."""

import hashlib
import math
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ArtifactError, ArtifactExistsError
from service.store.artifact.artifact import Artifact, read_artifact, write_artifact
from service.store.artifact.manifest import Manifest
from tests.support.artifact_files import (
    BYTES_MAX,
    GOLDEN,
    GOLDEN_NETWORK,
    MakeArtifact,
    each_golden,
    equal_artifacts,
    on_disk,
    refusal,
)


def test_the_golden_artifact_reads_as_it_always_did() -> None:
    """Format 1 stays readable: a checked-in artifact gives the values it was made of."""
    artifact = read_artifact(GOLDEN, BYTES_MAX)
    manifest = artifact.manifest
    assert (manifest.head, manifest.classes, manifest.features) == ("multilabel", ("røt", "b"), ("x", "y", "z"))
    assert artifact.weights.tolist() == [[0.5, -1.0], [2.0, 0.25], [-3.5, 1e-3]]
    assert artifact.bias.tolist() == [0.125, -0.0]
    assert manifest.thresholds == (0.25, 0.5)
    assert manifest.stage is not None
    assert (manifest.stage.mean, manifest.stage.scale, manifest.stage.clip) == ((1.0, 2.0, 3.0), (1.0, 0.5, 4.0), 5.0)
    assert manifest.training is not None
    assert manifest.training.rows == 7
    assert manifest.learning is not None
    assert (manifest.learning.rule, manifest.learning.constants) == ("sgd", {"rate": 0.1})
    assert manifest.provenance == {"data_set": "made by hand"}
    assert manifest.metrics == {"log_loss": 0.5}
    assert artifact.weights_sha256 == "1f1953fae2bbfa7366f5164000acd50792306240a6ca0aff1655e4cee7ba51be"


def test_the_golden_network_reads_as_it_always_did() -> None:
    """So does one with hidden layers: widths are those of the tensors, and the hash covers all layers in order."""
    artifact = read_artifact(GOLDEN_NETWORK, BYTES_MAX)
    assert [layer.activation for layer in artifact.manifest.hidden] == ["sigmoid", "tanh", "relu"]
    tensors = {name: tensor.tolist() for name, tensor in artifact.tensors.items()}
    assert list(tensors) == ["h0", "c0", "h1", "c1", "h2", "c2", "w", "b"]
    assert (tensors["h0"], tensors["c0"]) == ([[0.5, -1.0, 0.25], [2.0, 0.125, -3.5]], [0.5, 0.0, -0.5])
    assert (tensors["h1"], tensors["c1"]) == ([[1.0], [-2.0], [0.5]], [0.75])
    assert (tensors["h2"], tensors["c2"]) == ([[-1.5, 1.5]], [0.25, -0.25])
    assert (artifact.weights.tolist(), artifact.bias.tolist()) == ([[1.0], [-1.0]], [0.0625])
    assert artifact.weights_sha256 == "0a9fa44926b8e9cbe6513e1a48d5119ee0cf61229f96b87c05a9a0c7df2ff03a"


@each_golden
def test_writing_a_golden_artifact_gives_the_same_bytes(tmp_path: Path, golden: Path) -> None:
    """The bytes of format 1 do not change from release to release."""
    write_artifact(tmp_path / "1", read_artifact(golden, BYTES_MAX))
    for name in ("model.json", "model.safetensors"):
        assert (tmp_path / "1" / name).read_bytes() == (golden / name).read_bytes()


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def artifacts(draw: st.DrawFn) -> Artifact:
    """Any artifact that the format can hold, with few features."""
    head = draw(st.sampled_from(["softmax", "sigmoid", "multilabel", "ovr"]))
    least, most = {"sigmoid": (2, 2), "multilabel": (1, 4)}.get(head, (2, 4))
    classes = draw(st.lists(names, min_size=least, max_size=most, unique=True))
    features = draw(st.lists(names, min_size=1, max_size=5, unique=True))
    widths = draw(st.lists(st.integers(1, 4), max_size=3))
    depth = len(widths) + 1
    tensors = draw(st.lists(names, min_size=2 * depth, max_size=2 * depth, unique=True))
    activations = [draw(st.sampled_from(["relu", "sigmoid", "tanh"])) for _ in widths]
    n, k = len(features), 1 if head == "sigmoid" else len(classes)
    shapes: list[tuple[int, ...]] = []
    for inputs, outputs in pairwise([n, *widths, k]):
        shapes += [(inputs, outputs), (outputs,)]
    sizes = [math.prod(shape) for shape in shapes]
    dtype = draw(st.sampled_from(["float32", "float64"]))
    width = 32 if dtype == "float32" else 64
    number = st.floats(allow_nan=False, allow_infinity=False, width=width)
    values = np.array(draw(st.lists(number, min_size=sum(sizes), max_size=sum(sizes))), dtype=dtype)
    each = st.lists(numbers, min_size=n, max_size=n)
    positive = st.floats(min_value=1e-300, allow_infinity=False)
    scales = st.lists(positive, min_size=n, max_size=n)
    fields: dict[str, Any] = {
        "head": head,
        "classes": classes,
        "features": features,
        "dtype": dtype,
        "layers": [
            {"weight": weight, "bias": bias, "activation": activation}
            for weight, bias, activation in zip(tensors[::2], tensors[1::2], [*activations, "identity"], strict=True)
        ],
        "provenance": draw(st.dictionaries(names, names, max_size=2)),
        "metrics": draw(st.dictionaries(names, numbers, max_size=2)),
        "stage": draw(st.none() | st.fixed_dictionaries({"mean": each, "scale": scales, "clip": st.none() | positive})),
        "training": draw(
            st.none() | st.fixed_dictionaries({"rows": st.integers(1, 2**53), "mean": each, "scale": scales})
        ),
        "learning": draw(
            st.none() | st.fixed_dictionaries({"rule": names, "constants": st.dictionaries(names, numbers, max_size=2)})
        ),
    }
    if head == "multilabel":
        fields["thresholds"] = draw(st.none() | st.lists(st.floats(0, 1), min_size=k, max_size=k))
    parts = np.split(values, np.cumsum(sizes)[:-1])
    shaped = (part.reshape(shape) for part, shape in zip(parts, shapes, strict=True))
    return Artifact.from_fields(fields, dict(zip(tensors, shaped, strict=True)))


@on_disk
@given(artifacts())
def test_any_artifact_survives_the_disk(tmp_path_factory: pytest.TempPathFactory, artifact: Artifact) -> None:
    """Writing and reading gives an equal manifest and the same bits."""
    directory = tmp_path_factory.mktemp("any") / "1"
    write_artifact(directory, artifact)
    assert equal_artifacts(read_artifact(directory, BYTES_MAX), artifact)


def test_tensors_are_own_aligned_contiguous_and_read_only(make_artifact: MakeArtifact, folder: Path) -> None:
    """Kernels may use an artifact's arrays as they are, and the arrays are immutable."""
    for artifact in (read_artifact(folder, BYTES_MAX), make_artifact()):
        for tensor in artifact.tensors.values():
            assert tensor.flags.owndata
            assert tensor.flags.aligned
            assert tensor.flags.c_contiguous
            assert not tensor.flags.writeable
        with pytest.raises(TypeError):
            artifact.tensors["weight"] = artifact.bias  # type: ignore[index]


def test_an_artifact_does_not_follow_its_maker(make_artifact: MakeArtifact) -> None:
    """Arrays that were handed in, in any memory order, may change afterwards."""
    manifest = make_artifact().manifest
    weight = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    artifact = Artifact(manifest, {"bias": np.zeros(3, np.float32), "weight": weight})
    weight[:] = 9
    assert artifact.weights.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert list(artifact.tensors) == ["weight", "bias"]


@pytest.mark.parametrize(("dtype", "code"), [("float32", "<9f"), ("float64", "<9d")])
def test_weights_sha256_hashes_little_endian_rows(make_artifact: MakeArtifact, dtype: str, code: str) -> None:
    """The weights' hash covers weight, then bias, row by row, in the served type."""
    expected = hashlib.sha256(struct.pack(code, 0, 1, 2, 3, 4, 5, 0.5, 0.5, 0.5)).hexdigest()
    assert make_artifact(dtype=dtype).weights_sha256 == expected


def test_shapes_follow_the_head(make_artifact: MakeArtifact) -> None:
    """An artifact tells its width, its weights and its bias."""
    artifact = make_artifact()
    assert (artifact.n_features, artifact.weights.shape, artifact.bias.shape) == (2, (2, 3), (3,))
    assert artifact.manifest.n_outputs == 3


def test_features_may_be_a_number(make_artifact: MakeArtifact) -> None:
    """A number of features stands for generated names."""
    artifact = make_artifact()
    fields = artifact.manifest.model_dump(mode="json", exclude_none=True, exclude={"tensors_sha256", "format_version"})
    named = Artifact.from_fields({**fields, "features": 2}, artifact.tensors)
    assert named.manifest.features == ("feature_0", "feature_1")
    assert named.weights_sha256 == artifact.weights_sha256
    for wrong in (0, -1, True, 3):
        with pytest.raises(ArtifactError):
            Artifact.from_fields({**fields, "features": wrong}, artifact.tensors)


OPTIONAL = (
    "fields",
    "others",
    "thresholds",
    "stage",
    "training",
    "delta",
    "mixture",
    "learning",
    "examples",
    "calibration",
    "provenance",
    "metrics",
)


def test_optional_fields_may_be_absent_or_none(make_artifact: MakeArtifact) -> None:
    """An artifact of the required fields alone equals one whose optional fields are None."""
    artifact = make_artifact()
    required = ("head", "classes", "features", "dtype", "layers")
    fields = artifact.manifest.model_dump(mode="json", include=set(required))
    least = Artifact.from_fields(fields, artifact.tensors)
    assert set(Manifest.model_fields) == {*required, *OPTIONAL, "format_version", "tensors_sha256"}
    assert Artifact.from_fields({**fields, **dict.fromkeys(OPTIONAL)}, artifact.tensors).manifest == least.manifest


def test_writing_over_a_version_replaces_it(folder: Path, make_artifact: MakeArtifact) -> None:
    """A folder that exists gets the new pair if that is wanted, and nothing else is left beside it."""
    with pytest.raises(ArtifactError, match="has a version already"):
        write_artifact(folder, make_artifact(bias=2.0))
    assert read_artifact(folder, BYTES_MAX).bias.tolist() != [2.0, 2.0, 2.0]
    write_artifact(folder, make_artifact(bias=2.0), overwrite=True)
    assert read_artifact(folder, BYTES_MAX).bias.tolist() == [2.0, 2.0, 2.0]
    assert [path.name for path in folder.parent.iterdir()] == ["1"]
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]


def test_one_of_several_writers_of_a_version_wins(tmp_path: Path, make_artifact: MakeArtifact) -> None:
    """Of writers that start together, one writes its whole version, and each of the others gets an error."""
    for number in range(20):
        folder, barrier = tmp_path / str(number) / "1", Barrier(4)

        def write(bias: float, folder: Path = folder, barrier: Barrier = barrier) -> float | None:
            barrier.wait()
            try:
                write_artifact(folder, make_artifact(bias=bias))
            except ArtifactExistsError:
                return None
            return bias

        with ThreadPoolExecutor(4) as pool:
            written = [bias for bias in pool.map(write, (1.0, 2.0, 3.0, 4.0)) if bias is not None]
        assert read_artifact(folder, BYTES_MAX).bias.tolist() == written * 3
        assert [path.name for path in folder.parent.iterdir()] == ["1"]


def test_a_new_version_fits_a_folder_that_has_none(tmp_path: Path, make_artifact: MakeArtifact) -> None:
    """The folder may be empty, may have other files, which stay, and may be a link."""
    for name in ("empty", "used"):
        (tmp_path / name).mkdir()
    (tmp_path / "used" / "notes.txt").write_text("kept")
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to("target")
    for name in ("empty", "used", "link"):
        write_artifact(tmp_path / name, make_artifact(bias=2.0))
        assert read_artifact(tmp_path / name, BYTES_MAX).bias.tolist() == [2.0, 2.0, 2.0]
    assert (tmp_path / "used" / "notes.txt").read_text() == "kept"
    assert sorted(path.name for path in (tmp_path / "target").iterdir()) == ["model.json", "model.safetensors"]


def test_a_write_that_stops_halfway_is_refused_by_its_checksum(
    folder: Path, make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New tensors beside an old manifest are never served as either version."""
    replace = Path.replace

    def fail_on_the_manifest(path: Path, target: Path) -> Path:
        if target.name == "model.json":
            raise OSError("no space left")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fail_on_the_manifest)
    with pytest.raises(OSError, match="no space left"):
        write_artifact(folder, make_artifact(bias=2.0), overwrite=True)
    assert "tensors_sha256" in refusal(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["1"]


def test_a_new_version_is_not_there_before_it_is_whole(
    tmp_path: Path, make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk fails before the rename, neither the folder nor anything temporary stays."""

    def fail(_descriptor: int) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        write_artifact(tmp_path / "iris" / "1", make_artifact())
    assert list((tmp_path / "iris").iterdir()) == []
