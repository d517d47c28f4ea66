"""The artifact format: what is written is read back, and whatever else lies on the disk is refused in one sentence."""

import copy
import hashlib
import json
import math
import os
import pickle
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import ArtifactError
from service.store.artifact.artifact import MANIFEST_BYTES_MAX, Artifact, read_artifact, write_artifact
from service.store.artifact.manifest import Manifest

GOLDEN = Path(__file__).parents[2] / "golden" / "artifact" / "1"
GOLDEN_NETWORK = Path(__file__).parents[2] / "golden" / "network" / "1"
golden = pytest.mark.parametrize("golden", [GOLDEN, GOLDEN_NETWORK], ids=["linear", "network"])
BYTES_MAX = 1 << 20
MakeArtifact = Callable[..., Artifact]
# A slow disk is no failure.
on_disk = settings(deadline=None)


def refusal(directory: Path, bytes_max: int = BYTES_MAX) -> str:
    """The reason why a folder is refused."""
    with pytest.raises(ArtifactError) as caught:
        read_artifact(directory, bytes_max)
    return str(caught.value)


def edit(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the manifest's JSON in place."""
    manifest = json.loads((directory / "model.json").read_text())
    change(manifest)
    (directory / "model.json").write_text(json.dumps(manifest))


def replace_tensors(directory: Path, raw: bytes) -> None:
    """Puts other bytes in place of the tensors, with the checksum that belongs to them."""
    (directory / "model.safetensors").write_bytes(raw)
    edit(directory, lambda manifest: manifest.update(tensors_sha256=hashlib.sha256(raw).hexdigest()))


def same(one: Artifact, other: Artifact) -> bool:
    """Whether two artifacts serve the same bits and say the same, the bytes of their tensor files apart."""
    manifests = [artifact.manifest.model_copy(update={"tensors_sha256": ""}) for artifact in (one, other)]
    return manifests[0] == manifests[1] and one.weights_sha256 == other.weights_sha256


# What is written and read back


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


@golden
def test_writing_a_golden_artifact_gives_the_same_bytes(tmp_path: Path, golden: Path) -> None:
    """What format 1 writes does not change from release to release."""
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
    assert same(read_artifact(directory, BYTES_MAX), artifact)


def test_tensors_are_own_aligned_contiguous_and_read_only(make_artifact: MakeArtifact, folder: Path) -> None:
    """Kernels may take an artifact's arrays as they are, and nobody can change them."""
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


# Writing


def test_writing_over_a_version_replaces_it(folder: Path, make_artifact: MakeArtifact) -> None:
    """A folder that exists gets the new pair, and nothing else is left beside it."""
    write_artifact(folder, make_artifact(bias=2.0))
    assert read_artifact(folder, BYTES_MAX).bias.tolist() == [2.0, 2.0, 2.0]
    assert [path.name for path in folder.parent.iterdir()] == ["1"]
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]


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
        write_artifact(folder, make_artifact(bias=2.0))
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


# Manifests that are refused

LAYER = {"weight": "weight", "bias": "bias", "activation": "identity"}
HIDDEN = {"weight": "h", "bias": "c", "activation": "tanh"}
WRONG_FIELDS: list[tuple[str, Any, str]] = [
    ("format_version", 2, "format_version"),
    ("format_version", True, "format_version"),
    ("format_version", "1", "format_version"),
    ("format_version", 1.0, "format_version"),
    ("head", "relu", "head"),
    ("head", "sigmoid", "two classes"),
    ("classes", ["a"], "at least two classes"),
    ("classes", [], "classes"),
    ("classes", ["a", "b", "a"], "differ from each other"),
    ("classes", ["a", "b", ""], "classes.2"),
    ("classes", ["a", "b", 3], "classes.2"),
    ("classes", ["a", "b", "c" * 257], "classes.2"),
    ("classes", "abc", "classes"),
    ("classes", ["a", "b", "c", "d"], "shape"),
    ("features", ["x", "x"], "differ from each other"),
    ("features", ["x"], "shape"),
    ("features", [], "features"),
    ("features", None, "features"),
    ("dtype", "float16", "dtype"),
    ("dtype", "float64", "is float32"),
    ("layers", [], "layers"),
    ("layers", [LAYER, LAYER], "must be relu, sigmoid or tanh"),
    ("layers", [LAYER | {"activation": "relu"}], "its activation must be identity"),
    ("layers", [LAYER | {"activation": "softplus"}], "layers.0.activation"),
    ("layers", [LAYER | {"bias": "weight"}], "tensor of its own"),
    ("layers", [HIDDEN | {"bias": "bias"}, LAYER], "tensor of its own"),
    ("layers", [HIDDEN | {"bias": "h"}, LAYER], "tensor of its own"),
    ("layers", [HIDDEN, LAYER], "exactly those"),
    ("layers", [LAYER, HIDDEN], "its activation must be identity"),
    ("layers", [HIDDEN] * 127 + [LAYER], "tensor of its own"),
    ("layers", [HIDDEN] * 128 + [LAYER], "at most 128 items"),
    ("layers", [LAYER | {"weight": "../../etc/passwd"}], "exactly those"),
    ("layers", [{"weight": "weight"}], "layers.0.bias"),
    ("layers", [LAYER | {"weight": "__metadata__"}], "__metadata__"),
    ("thresholds", [0.5, 0.5, 0.5], "only a multilabel head"),
    ("stage", {"mean": [0, 0]}, "stage.scale"),
    ("stage", {"mean": [0, 0], "scale": [1, 0]}, "stage.scale.1"),
    ("stage", {"mean": [0, 0], "scale": [1, -1]}, "stage.scale.1"),
    ("stage", {"mean": [0], "scale": [1, 1]}, "stage.mean must hold one number for each feature"),
    ("stage", {"mean": [0, 0], "scale": [1, 1, 1]}, "stage.scale must hold one number for each feature"),
    ("stage", {"mean": [0, 0], "scale": [1, 1], "clip": 0}, "stage.clip"),
    ("stage", {"mean": [0, 0], "scale": [1, 1], "code": "x"}, "stage.code"),
    ("training", {"rows": 0, "mean": [0, 0], "scale": [1, 1]}, "training.rows"),
    ("training", {"rows": 1.5, "mean": [0, 0], "scale": [1, 1]}, "training.rows"),
    ("training", {"rows": 10**4000, "mean": [0, 0], "scale": [1, 1]}, "training.rows"),
    ("training", {"rows": 5, "mean": [0, True], "scale": [1, 1]}, "training.mean.1"),
    ("training", {"rows": 5, "mean": [0, 0], "scale": [1]}, "training.scale must hold"),
    ("learning", {"constants": {}}, "learning.rule"),
    ("learning", {"rule": "sgd", "constants": {"rate": "fast"}}, "learning.constants.rate"),
    ("provenance", {"when": 2024}, "provenance.when"),
    ("metrics", {"accuracy": "good"}, "metrics.accuracy"),
    ("tensors_sha256", "0" * 64, "tensors_sha256"),
    ("tensors_sha256", "A" * 64, "tensors_sha256"),
    ("tensors_sha256", "0" * 64 + "\n", "tensors_sha256"),
    ("loader", "os.system", "loader"),
    ("\u001b[31m\n" * 400, 1, "Extra inputs"),
]


@pytest.mark.parametrize(("field", "value", "reason"), WRONG_FIELDS)
def test_a_wrong_field_is_refused_by_name(folder: Path, field: str, value: Any, reason: str) -> None:
    """The reason names the field, is one printable line, and is short."""
    edit(folder, lambda manifest: manifest.update({field: value}))
    message = refusal(folder)
    assert reason in message
    assert message.isprintable()
    assert len(message) < 400


@pytest.mark.parametrize(
    "field", ["format_version", "head", "classes", "features", "dtype", "layers", "tensors_sha256"]
)
def test_a_missing_field_is_refused(folder: Path, field: str) -> None:
    """Each field without a meaning for its absence must be there."""
    edit(folder, lambda manifest: manifest.pop(field))
    assert refusal(folder) == f"model.json is not a valid manifest: {field}: Field required"


@pytest.mark.parametrize("thresholds", [[0.5, 0.5], [0.5, 0.5, 1.5], [0.5, 0.5, -0.1], [0.5, 0.5, "1"]])
def test_multilabel_thresholds_are_one_probability_a_class(make_artifact: MakeArtifact, thresholds: list[Any]) -> None:
    """Thresholds of another number, or out of [0, 1], are refused."""
    with pytest.raises(ArtifactError, match="thresholds"):
        make_artifact(head="multilabel", thresholds=thresholds)


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


def test_seal_refuses_what_the_format_cannot_hold(make_artifact: MakeArtifact) -> None:
    """Making an artifact is checked like reading one."""
    with pytest.raises(ArtifactError, match="NaN is not a JSON number"):
        make_artifact(metrics={"accuracy": math.nan})
    with pytest.raises(ArtifactError, match="not finite"):
        make_artifact(bias=math.inf)
    with pytest.raises(ArtifactError, match="exactly those"):
        Artifact(make_artifact().manifest, {})


# Tensor files that are refused


def tensors(**changes: Any) -> bytes:
    """A tensor file like the fixture's, with some tensors changed, added, or (None) left out."""
    arrays = {"weight": np.zeros((2, 3), np.float32), "bias": np.zeros(3, np.float32)} | changes
    return safetensors.numpy.save({name: array for name, array in arrays.items() if array is not None})


def with_header(header: object, data: bytes = b"") -> bytes:
    """A tensor file with a header of our own making."""
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def spec(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    """One entry of such a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


class Bomb:
    """Its pickle leaves a mark when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.putenv, ("SOFTSTEP_PICKLE_RAN", "1"))


WRONG_TENSORS: list[tuple[bytes, str]] = [
    (b"", "not a whole safetensors file"),
    (pickle.dumps(Bomb()), "not a whole safetensors file"),
    (tensors()[:-1], "not a whole safetensors file"),
    (tensors() + b"\0", "not a whole safetensors file"),
    (struct.pack("<Q", 2**63) + b"{}", "not a whole safetensors file"),
    (struct.pack("<Q", 2**40) + b"{}", "not a whole safetensors file"),
    (struct.pack("<Q", 2) + b"[]", "not a whole safetensors file"),
    (with_header({}), "exactly those"),
    (tensors(bias=None), "exactly those"),
    (tensors(extra=np.zeros(1, np.float32)), "exactly those"),
    (tensors(**{"../../outside": np.zeros(1, np.float32)}), "exactly those"),
    (tensors(weight=np.zeros((3, 2), np.float32)), "has shape (3, 2), but model.json asks for (2, 3)"),
    (tensors(weight=np.zeros(6, np.float32)), "has shape (6,)"),
    (tensors(bias=np.zeros((1, 3), np.float32)), "has shape (1, 3)"),
    (tensors(bias=np.array(0, np.float32)), "has shape ()"),
    (tensors(weight=np.zeros((2, 3), np.float64)), "is float64, but model.json says float32"),
    (tensors(weight=np.zeros((2, 3), np.float16)), "is F16, but"),
    (tensors(weight=np.zeros((2, 3), np.int32)), "is I32, but"),
    (tensors(weight=np.full((2, 3), np.nan, np.float32)), "'weight' holds a number that is not finite"),
    (tensors(bias=np.array([0, 0, -np.inf], np.float32)), "'bias' holds a number that is not finite"),
    (with_header({"weight": spec("BF16", [2, 3], 0, 12), "bias": spec("F32", [3], 12, 24)}, b"\0" * 24), "is BF16"),
    (with_header({"weight": spec("F32", [1] * 99, 0, 4), "bias": spec("F32", [3], 4, 16)}, b"\0" * 16), "has shape"),
    (with_header({"weight": spec("F32", [0, 2**63], 0, 0), "bias": spec("F32", [3], 0, 12)}, b"\0" * 12), "has shape"),
    (
        with_header({"weight": spec("F32", [2**62, 8], 0, 0), "bias": spec("F32", [3], 0, 12)}, b"\0" * 12),
        "not a whole",
    ),
    (with_header({"weight": spec("F32", [2, 3], 0, 24), "bias": spec("F32", [3], 0, 12)}, b"\0" * 24), "not a whole"),
    (with_header({"weight": spec("F32", [2, 3], 24, 0), "bias": spec("F32", [3], 0, 12)}, b"\0" * 24), "not a whole"),
]


@pytest.mark.parametrize(("raw", "reason"), WRONG_TENSORS, ids=range(len(WRONG_TENSORS)))
def test_a_wrong_tensor_file_is_refused(folder: Path, raw: bytes, reason: str) -> None:
    """A tensor file with a matching checksum must still be exactly what the manifest says, and no code runs."""
    replace_tensors(folder, raw)
    message = refusal(folder)
    assert reason in message
    assert len(message) < 400
    assert "SOFTSTEP_PICKLE_RAN" not in os.environ


def test_a_damaged_tensor_file_is_refused(folder: Path) -> None:
    """A bit that flipped in the numbers is seen by the checksum."""
    raw = bytearray((folder / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (folder / "model.safetensors").write_bytes(raw)
    assert "tensors_sha256" in refusal(folder)


def test_metadata_of_other_writers_is_accepted(folder: Path) -> None:
    """Tensor files written by other libraries carry a metadata entry; it is ignored."""
    arrays = {"weight": np.ones((2, 3), np.float32), "bias": np.zeros(3, np.float32)}
    replace_tensors(folder, safetensors.numpy.save(arrays, metadata={"format": "pt"}))
    assert read_artifact(folder, BYTES_MAX).weights.sum() == 6


def network(**changes: Any) -> bytes:
    """A tensor file of a network 2 -> 4 -> 1 -> 3, with some tensors changed."""
    shapes = {"h": (2, 4), "c": (4,), "i": (4, 1), "d": (1,), "weight": (1, 3), "bias": (3,)}
    arrays = {name: np.ones(shape, np.float32) for name, shape in shapes.items()} | changes
    return safetensors.numpy.save({name: array for name, array in arrays.items() if array is not None})


WRONG_LAYERS: list[tuple[bytes, str]] = [
    (network(c=None), "exactly those"),
    (network(i=np.ones((3, 1), np.float32)), "'i' has shape (3, 1), but model.json asks for (4, 1)"),
    (network(c=np.ones(3, np.float32)), "'h' has shape (2, 4), but model.json asks for (2, 3)"),
    (network(h=np.ones((3, 4), np.float32)), "'h' has shape (3, 4), but model.json asks for (2, 4)"),
    (network(weight=np.ones((4, 3), np.float32)), "asks for (1, 3)"),
    (network(c=np.ones((4, 1), np.float32)), "'c' has shape (4, 1), but a hidden layer's bias has 1 to 16384 numbers"),
    (network(c=np.ones((), np.float32)), "'c' has shape ()"),
    (network(h=np.ones((2, 0), np.float32), c=np.ones(0, np.float32)), "'c' has shape (0,)"),
    (network(c=np.ones(16385, np.float32)), "1 to 16384 numbers"),
    (network(d=np.ones(1, np.float64)), "'d' is float64"),
    (network(i=np.full((4, 1), np.nan, np.float32)), "'i' holds a number that is not finite"),
]


@pytest.fixture
def layered(folder: Path) -> Path:
    """A folder whose artifact is a network."""
    layers = [HIDDEN, {"weight": "i", "bias": "d", "activation": "relu"}, LAYER]
    edit(folder, lambda manifest: manifest.update(layers=layers))
    replace_tensors(folder, network())
    return folder


@pytest.mark.parametrize(("raw", "reason"), WRONG_LAYERS, ids=range(len(WRONG_LAYERS)))
def test_layers_that_do_not_fit_each_other_are_refused(layered: Path, raw: bytes, reason: str) -> None:
    """Each layer takes what the one before it gives, whose bias says how much that is."""
    assert len(read_artifact(layered, BYTES_MAX).tensors) == 6
    replace_tensors(layered, raw)
    message = refusal(layered)
    assert reason in message
    assert len(message) < 400


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"learning": {"rule": "newton"}}, "newton is for models without hidden layers"),
        ({"delta": {"weight": "z", "clip": 1.0}}, "training statistics"),
        ({"delta": {"weight": "z", "clip": 1.0}, "training": {"rows": 1, "mean": [0, 0], "scale": [1, 1]}}, "no delta"),
    ],
)
def test_what_a_network_does_not_have_is_refused(layered: Path, more: dict[str, Any], reason: str) -> None:
    """Its layers learn themselves."""
    edit(layered, lambda manifest: manifest.update(more))
    assert reason in refusal(layered)


# Files that are refused


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    """A folder without one of the two files is refused."""
    (folder / name).unlink()
    assert refusal(folder) == f"{name} is missing"


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    """So is a folder that is not there."""
    assert refusal(tmp_path / "nowhere") == "model.json is missing"


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_what_is_not_a_regular_file_is_refused(folder: Path, name: str) -> None:
    """A directory or a named pipe in a file's place is refused, at once."""
    (folder / name).unlink()
    (folder / name).mkdir()
    assert refusal(folder) == f"{name} is not a regular file"
    (folder / name).rmdir()
    os.mkfifo(folder / name)
    assert refusal(folder) == f"{name} is not a regular file"


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    """Even where it leads to good content."""
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    assert refusal(folder) == f"{name} is a link that leads out of its folder"


def test_links_within_the_folder_are_followed(folder: Path) -> None:
    """Kubernetes mounts files as links to a hidden folder beside them."""
    (folder / "..2024").mkdir()
    for name in ("model.json", "model.safetensors"):
        (folder / name).rename(folder / "..2024" / name)
        (folder / name).symlink_to(f"..data/{name}")
    (folder / "..data").symlink_to("..2024")
    assert read_artifact(folder, BYTES_MAX).n_features == 2


def test_a_loop_of_links_is_refused(folder: Path) -> None:
    """A link to itself is refused in a sentence like everything else."""
    (folder / "model.json").unlink()
    (folder / "model.json").symlink_to("model.json")
    assert refusal(folder).startswith("model.json cannot be read: ")


def test_files_above_their_limits_are_refused_unread(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size is compared before a byte is read."""
    size = (folder / "model.safetensors").stat().st_size
    assert read_artifact(folder, size).n_features == 2
    assert refusal(folder, size - 1) == f"model.safetensors has {size} bytes, more than the limit of {size - 1}"
    os.truncate(folder / "model.json", MANIFEST_BYTES_MAX + 1)
    monkeypatch.setattr(json, "loads", lambda *_arguments, **_options: pytest.fail("it was parsed"))
    assert "more than the limit of 16777216" in refusal(folder)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_that_changes_size_while_it_is_read_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: int
) -> None:
    """What was measured and what was read must be of one size."""
    fstat = os.fstat

    def as_before(descriptor: int) -> os.stat_result:
        fields = list(fstat(descriptor))
        fields[6] += change
        return os.stat_result(fields)

    monkeypatch.setattr(os, "fstat", as_before)
    assert refusal(folder) == "model.json changed while it was read"


def test_no_refusal_keeps_a_file_open(folder: Path) -> None:
    """The repository asks again and again; descriptors must not run out."""
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    os.close(descriptor)
    refusal(folder)
    assert os.open(folder, os.O_RDONLY) == descriptor
    os.close(descriptor)


# Anything at all


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
    """A copy of the golden artifact, for damaging; each example puts both files anew."""
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
        write_artifact(directory, artifact)
        reason = "" if same(read_artifact(directory, BYTES_MAX), artifact) else "\n"
    assert reason.isprintable()
    assert len(reason) < 500


@golden
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


@golden
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


@golden
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


def test_manifest_is_public_and_frozen(make_artifact: MakeArtifact) -> None:
    """A manifest cannot be changed under those who hold it."""
    manifest = make_artifact().manifest
    assert isinstance(manifest, Manifest)
    with pytest.raises(ValueError, match="frozen"):
        manifest.head = "ovr"  # type: ignore[misc]
