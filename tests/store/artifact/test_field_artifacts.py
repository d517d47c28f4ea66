"""Artifacts with fields: what they hold, what they refuse, and that nothing is allocated for a hostile one."""

import json
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.command_line import main
from service.errors import ArtifactError
from service.fields.column_blocks import FieldLimits
from service.softmax.sparse_rows import SparseRows
from service.softmax.sparse_weights import SPARSE_WEIGHTS_MAX
from service.store.artifact.artifact import Artifact, read_artifact, write_artifact
from service.store.artifact.artifact_loader import check_examples
from service.store.artifact.fingerprint import compute_genesis
from service.store.artifact.repository import Repository
from service.store.directory.bound_artifact import _content
from tests.support.artifact_files import (
    BYTES_MAX,
    GOLDEN_FIELDS,
    GOLDEN_SPARSE_FIELDS,
    HEAD_LAYER,
    HIDDEN_LAYER,
    edit_manifest,
    refusal,
    replace_tensors,
)
from tests.support.field_artifacts import (
    DENSE_COLUMNS,
    DENSE_FIELDS,
    SPARSE_COLUMNS,
    SPARSE_FIELDS,
    field_artifact,
    field_tensors,
    plain_fields,
)
from tests.support.field_lists import parse_fields

# What the encoder gives for the examples of the golden artifacts: ends, columns, values.
DENSE_ROWS = (
    [11, 15, 17],
    [0, 2, 5, 9, 10, 11, 12, 14, 15, 16, 17, 1, 3, 6, 13, 0, 7],
    [0.1, 1, 1, 0.3368607684266076, 0.8421519210665189, 0.42107596053325946, 2, 1.5, 0.5, 0.25, 1, 1, 1, 1, 2, 3, 1],
)
HASHED_ROWS = (
    [27, 29, 32],
    [
        *(30, 52, 53, 58, 59, 61, 65, 66, 71, 74, 75, 82, 83, 84, 88, 89, 92, 94, 98, 99, 101, 104, 111, 112, 115, 127),
        *(134, 26, 133, 30, 116, 143),
    ],
    [-1, 1, 2, 1, 1, 2, 1, 1, 2, 2, 2, 1, 1, 2, 1, 2, 1, 1, 1, 2, 1, 2, 1, 2, 1, 1, 0.1, 1, 1, -1, -1, 3],
)
NUMBER = {"name": "age", "kind": "number"}
KINDS = {"number", "boolean", "category", "text", "bag", "vector", "cross"}
HASHED = {"name": "h", "kind": "category", "bits": 4}
DENSE_NAMES = (
    "age",
    "age=missing",
    "member",
    "member=missing",
    "country=DE",
    "country=PT",
    "country=7",
    "country=true",
    "country=other",
    "subject: late",
    "subject: refund",
    "subject: überall",
    "basket: milk",
    "basket: bread",
    "basket=other",
    "picture[0]",
    "picture[1]",
    "picture[2]",
)


@pytest.mark.parametrize(
    ("fields", "columns", "is_sparse"), [(DENSE_FIELDS, DENSE_COLUMNS, False), (SPARSE_FIELDS, SPARSE_COLUMNS, True)]
)
def test_an_artifact_with_fields_reads_as_it_was_written(
    tmp_path: Path, fields: Any, columns: int, *, is_sparse: bool
) -> None:
    """Its format version is 2, and its inputs are the columns of the fields."""
    made = field_artifact(fields, others="ignore", training={"rows": 50, "support": "s"})
    write_artifact(tmp_path / "1", made)
    read = read_artifact(tmp_path / "1", BYTES_MAX)
    assert read.manifest == made.manifest
    assert (read.manifest.format_version, read.manifest.features, read.manifest.others) == (2, None, "ignore")
    assert (read.n_features, read.has_sparse_rows) == (columns, is_sparse)
    assert read.column_names == (() if is_sparse else DENSE_NAMES)
    assert list(read.weight_tensors) == ["weight", "bias"]
    assert list(read.fixed_tensors) == ["s", *field_tensors()]
    assert [tensor.dtype.name for tensor in read.fixed_tensors.values()] == [
        "float32",
        "uint8",
        "int64",
        *["float64"] * 3,
    ]
    assert all(np.array_equal(read.tensors[name], tensor) for name, tensor in made.tensors.items())
    assert not any(tensor.flags.writeable for tensor in read.tensors.values())


def encoded_examples(artifact: Artifact) -> SparseRows:
    """Return the rows of an artifact's examples."""
    assert artifact.row_encoder is not None
    assert artifact.manifest.examples is not None
    rows = [one.row if isinstance(one.row, dict) else list(one.row) for one in artifact.manifest.examples]
    return artifact.row_encoder.encode_objects(rows).rows


def test_the_golden_artifact_with_dense_fields_reads_as_it_always_did() -> None:
    """Format 2 stays readable, and its rows become the same numbers."""
    golden = read_artifact(GOLDEN_FIELDS, BYTES_MAX)
    manifest = golden.manifest
    assert (manifest.format_version, manifest.head, manifest.dtype, manifest.others) == (2, "ovr", "float64", "ignore")
    assert manifest.fields == parse_fields(*DENSE_FIELDS)
    assert manifest.training is not None
    assert (manifest.training.rows, manifest.training.support) == (7, "support")
    assert (golden.column_names, golden.has_sparse_rows) == (DENSE_NAMES, False)
    assert golden.weights_sha256 == "cc9e2d63521f693b6da8b859f229b496e201c3ccb98dcb8a71297e75aaf356fb"
    assert tuple(array.tolist() for array in encoded_examples(golden)) == DENSE_ROWS
    check_examples(golden)


def test_the_golden_artifact_with_sparse_fields_reads_as_it_always_did() -> None:
    """So does one with every kind of field."""
    golden = read_artifact(GOLDEN_SPARSE_FIELDS, BYTES_MAX)
    assert golden.manifest.fields == parse_fields(*SPARSE_FIELDS)
    assert {field.kind for field in golden.manifest.fields or ()} == KINDS
    assert (golden.column_names, golden.has_sparse_rows, golden.n_features) == ((), True, SPARSE_COLUMNS)
    assert golden.weights_sha256 == "04f7d245b0f6623348a92e48f42672d52ca29476a019a606aeeb58142cf29cba"
    rows = encoded_examples(golden)
    is_dense = rows.columns < DENSE_COLUMNS
    assert (rows.columns[is_dense].tolist(), rows.values[is_dense].tolist()) == DENSE_ROWS[1:]
    assert (rows.columns[~is_dense].tolist(), rows.values[~is_dense].tolist()) == HASHED_ROWS[1:]
    assert np.add(DENSE_ROWS[0], HASHED_ROWS[0]).tolist() == rows.ends.tolist()
    check_examples(golden)


def with_examples(golden: Artifact, *examples: object) -> Artifact:
    """Return the artifact with other examples."""
    return Artifact.from_fields(plain_fields(golden.manifest) | {"examples": list(examples)}, golden.tensors)


@pytest.mark.parametrize("path", [GOLDEN_FIELDS, GOLDEN_SPARSE_FIELDS], ids=["dense", "sparse"])
def test_an_example_that_is_off_is_refused(path: Path) -> None:
    """By more than 1e-4 in any probability; the sentence names the example and the difference."""
    golden = read_artifact(path, BYTES_MAX)
    first, second, *_ = plain_fields(golden.manifest)["examples"]
    for class_ in range(3):
        for change, reason in ((9e-5, None), (2e-4, "a probability of example 1 is off by 0.0002, and at most 0.0001")):
            probabilities = list(second["probabilities"])
            probabilities[class_] += change
            made = with_examples(golden, first, second | {"probabilities": probabilities})
            if reason is None:
                check_examples(made)
                continue
            with pytest.raises(ArtifactError, match=reason):
                check_examples(made)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"age": "41"}, 'Row 1: "age" must be a number or null'),
        ({"subject": 3}, 'Row 1: "subject" must be a text or null'),
        ({"surname": "x"}, "has a name that is no field"),
        ([41], "Row 1 has 1 values; this model takes"),
        ({"age": 10**400}, "age"),
    ],
)
def test_an_example_that_is_no_row_is_refused(row: object, reason: str) -> None:
    """With the sentence of the encoder."""
    golden = read_artifact(GOLDEN_SPARSE_FIELDS, BYTES_MAX)
    first, second, *_ = plain_fields(golden.manifest)["examples"]
    with pytest.raises(ArtifactError) as caught:
        check_examples(with_examples(golden, first, second | {"row": row}))
    assert str(caught.value).startswith("an example is no row of the model: ")
    assert reason in str(caught.value)


def test_an_example_is_read_as_others_and_the_limits_say() -> None:
    """The names that are no field, and the entries of a row."""
    golden = read_artifact(GOLDEN_FIELDS, BYTES_MAX)
    first, *_ = plain_fields(golden.manifest)["examples"]
    made = with_examples(golden, first | {"row": first["row"] | {"surname": "x"}})
    check_examples(made)
    refusing = Artifact.from_fields(plain_fields(made.manifest) | {"others": "refuse"}, made.tensors)
    with pytest.raises(ArtifactError, match="has a name that is no field"):
        check_examples(refusing)
    narrow = Artifact(made.manifest, made.tensors, FieldLimits(entries_max=10))
    with pytest.raises(ArtifactError, match="Row 0 has more than 10 entries"):
        check_examples(narrow)


def test_examples_are_computed_by_each_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the repository, and by `softstep check`; with a field that was read otherwise they would differ."""
    folder = tmp_path / "model" / "1"
    golden = read_artifact(GOLDEN_FIELDS, BYTES_MAX)
    write_artifact(folder, golden)
    check = ["check", str(folder)]
    assert main(check) == 0
    assert capsys.readouterr().out.startswith("valid: ovr, 6 fields, 18 columns, 3 classes, weights cc9e2d63")
    repository = Repository(tmp_path, BYTES_MAX, 256)
    assert [version.state for version in repository.scan().versions.values()] == ["READY"]
    edit_manifest(folder, lambda manifest: manifest["fields"][0].update(mean=41.0))
    reason = "a probability of example 0 is off by "
    (version,) = repository.scan().versions.values()
    assert version.artifact is not None  # the one that was loaded before
    assert version.reason is not None
    assert version.reason.startswith(reason)
    assert main(check) == 1
    assert capsys.readouterr().err.startswith(f"invalid: {reason}")


def test_the_hash_of_the_weights_and_the_genesis() -> None:
    """Fields make the row, so they change what a stream is about, and not the hash of the weights."""
    made, other = field_artifact(), field_artifact((DENSE_FIELDS[0] | {"mean": 41.0}, *DENSE_FIELDS[1:]))
    assert made.weights_sha256 == other.weights_sha256
    assert compute_genesis(made) != compute_genesis(other)
    tensors = field_tensors() | {"subject.idf": np.array([1.0, 2.5, 1.5])}
    idf = Artifact.from_fields(plain_fields(made.manifest), {**made.tensors, **tensors})
    assert made.weights_sha256 == idf.weights_sha256
    assert compute_genesis(made) != compute_genesis(idf)
    assert _content(made) != _content(idf)
    example = {"row": [], "probabilities": [0.5, 0.25, 0.25]}
    for free in ({"others": "ignore"}, {"examples": [example]}, {"provenance": {"a": "b"}}):
        assert compute_genesis(field_artifact(**free)) == compute_genesis(made)


def test_limits_are_those_of_the_reader(tmp_path: Path) -> None:
    """A service refuses what exceeds its settings; a reader of what a service accepted does not."""
    write_artifact(tmp_path / "1", field_artifact())
    for limits, reason in (
        (FieldLimits(fields_max=5), "there are 6 fields, and the limit is 5"),
        (FieldLimits(columns_max=DENSE_COLUMNS - 1), "more than 17 columns"),
    ):
        with pytest.raises(ArtifactError, match=reason):
            read_artifact(tmp_path / "1", BYTES_MAX, limits)
    limits = FieldLimits(6, DENSE_COLUMNS, 10)
    assert read_artifact(tmp_path / "1", BYTES_MAX, limits).limits == limits
    assert read_artifact(tmp_path / "1", BYTES_MAX).n_features == DENSE_COLUMNS


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"features": ["x"]}, "either features or fields"),
        ({"stage": {"mean": [0], "scale": [1]}}, "fields scale their columns themselves"),
        ({"training": {"rows": 5, "mean": [0]}}, "fields scale their columns themselves"),
        ({"training": {"rows": 5, "scale": [1]}}, "fields scale their columns themselves"),
        ({"training": {"rows": 5, "support": "weight"}}, "tensor of its own"),
        ({"training": {"rows": 5, "support": "subject.idf"}}, "tensor of its own"),
        ({"training": {"support": "s"}}, "training.rows"),
        ({"layers": [HEAD_LAYER | {"weight": "subject.bytes"}]}, "tensor of its own"),
        ({"others": "drop"}, "others"),
        ({"examples": []}, "examples"),
        ({"examples": [{"row": [1], "probabilities": [1, 0, 0]}] * 17}, "examples"),
        ({"examples": [{"row": [1], "probabilities": [1, 0]}]}, "one number for each class"),
        ({"examples": [{"row": [1], "probabilities": [1, 0, 1.5]}]}, "examples.0.probabilities.2"),
        ({"examples": [{"row": "x", "probabilities": [1, 0, 0]}]}, "examples.0.row"),
        ({"examples": [{"row": None, "probabilities": [1, 0, 0]}]}, "examples.0.row"),
        ({"examples": [{"probabilities": [1, 0, 0]}]}, "examples.0.row"),
    ],
)
def test_what_contradicts_fields_is_refused(more: dict[str, Any], reason: str) -> None:
    """In one sentence."""
    fields = plain_fields(field_artifact().manifest) | more
    with pytest.raises(ArtifactError) as caught:
        Artifact.from_fields(fields, dict(field_artifact().tensors))
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"layers": [HIDDEN_LAYER, HEAD_LAYER]}, "without hidden layers, delta or mixture"),
        ({"delta": {"weight": "d", "clip": 1.0}}, "without hidden layers, delta or mixture"),
        ({"dtype": "float64"}, "must be float32"),
        ({"learning": {"rule": "newton"}}, "learns by adagrad, ftrl or sgd"),
        ({"learning": {"rule": "mixture"}}, "learns by adagrad, ftrl or sgd"),
    ],
)
def test_a_model_of_sparse_rows_is_linear_in_float32(more: dict[str, Any], reason: str) -> None:
    """Hidden layers, a delta, float64 and rules with matrices are refused in a sentence."""
    tensors = {name: np.ones(1, np.float32) for name in ("h", "c") if "layers" in more}
    tensors |= {"d": np.ones(1, np.float32)} if "delta" in more else {}
    made = field_artifact((NUMBER, HASHED))
    fields = plain_fields(made.manifest)
    with pytest.raises(ArtifactError, match=reason):
        Artifact.from_fields(fields | more, {**made.tensors, **tensors})
    assert Artifact.from_fields(fields, made.tensors).has_sparse_rows


@pytest.mark.parametrize(("classes", "width"), [(2, 2), (3, 4), (9, 16), (16, 16), (17, 32)])
def test_the_weights_of_sparse_rows_are_limited(tmp_path: Path, classes: int, width: int) -> None:
    """By N times K rounded up, from the manifest and the header alone."""
    for bits in range(1, 27):
        fits = (1 << bits) * width <= SPARSE_WEIGHTS_MAX
        fields = [{"name": "h", "kind": "category", "bits": bits}]
        folder = hostile(tmp_path / f"{bits}", fields, classes=classes)
        assert ("has at most" in refusal(folder)) != fits


def hostile(
    folder: Path, fields: object, header: dict[str, Any] | None = None, data: bytes = b"", classes: int = 3
) -> Path:
    """Write an artifact of given fields, whose weights are of one column, past all checks."""
    write_artifact(folder, field_artifact((NUMBER,)), overwrite=True)
    named = {"classes": [str(k) for k in range(classes)]}
    edit_manifest(folder, lambda manifest: manifest.update(fields=fields, **named))
    if header is not None:
        whole = {
            "weight": {"dtype": "F32", "shape": [1, classes], "data_offsets": [0, 4 * classes]},
            "bias": {"dtype": "F32", "shape": [classes], "data_offsets": [4 * classes, 8 * classes]},
        }
        begin = 8 * classes
        for name, entry in header.items():
            end = begin + entry.pop("bytes")
            whole[name] = entry | {"data_offsets": [begin, end]}
            begin = end
        raw = json.dumps(whole).encode()
        replace_tensors(folder, struct.pack("<Q", len(raw)) + raw + bytes(8 * classes) + data)
    return folder


TERMS = {"name": "t", "kind": "text", "words": [1, 1], "terms": {"bytes": "b", "ends": "e"}}
BAG = {"name": "g", "kind": "bag", "terms": {"bytes": "b", "ends": "e"}, "unknown": "other"}
VECTOR = {"name": "v", "kind": "vector", "size": 3}
BYTES = {"dtype": "U8", "shape": [2], "bytes": 2}


def ends_of(dtype: str, shape: list[int], size: int) -> dict[str, Any]:
    """Return the headers of two tensors of terms."""
    return {"b": dict(BYTES), "e": {"dtype": dtype, "shape": shape, "bytes": size}}


def of_kind(kind: str, **more: Any) -> dict[str, Any]:
    """Return a field of a kind."""
    return {"name": "x", "kind": kind, **more}


def text(**more: Any) -> dict[str, Any]:
    """Return a text with hashed columns, and more."""
    return of_kind("text", words=[1, 1], bits=4) | more


def cross(*names: str, **more: Any) -> dict[str, Any]:
    """Return a cross."""
    return {"name": "x", "kind": "cross", "fields": list(names), "bits": 4} | more


BIG = [2**31, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64, 10**30, -1, 0, 1.5, "8", None, True, [8], {"n": 8}]
HOSTILE: list[tuple[object, dict[str, Any] | None]] = [
    # Fields that are no list of fields.
    *[
        (value, None)
        for value in (None, 1, "x", [], {}, [[]], [None], [1], ["number"], {"name": "x", "kind": "number"})
    ],
    *[
        ([of_kind(kind)], None)
        for kind in ("", "regex", "NUMBER", "pickle", "__class__", "cross", "category", "vector")
    ],
    *[([{"name": name, "kind": "number"}], None) for name in ("", 3, None, [], "n" * 257)],
    ([NUMBER, NUMBER], None),
    ([NUMBER | {"code": "os.system"}], None),
    ([{"name": f"{n}", "kind": "number"} for n in range(65_537)], None),
    # Widths that overflow, and no widths.
    *[([text(bits=bits)], None) for bits in (*BIG[:-2], 31, 63, 64)],
    *[([of_kind("category", bits=bits)], None) for bits in BIG if bits is not None],
    *[([of_kind("vector", size=size)], None) for size in BIG],
    *[([cross("age", "h", bits=bits), HASHED], None) for bits in (2**63, 31, 0)],
    ([{"name": f"{n}", "kind": "category", "bits": 30} for n in range(1024)], None),
    ([{"name": f"{n}", "kind": "vector", "size": 65_536} for n in range(2048)], None),
    # Crosses that are no crosses of fields above them.
    ([NUMBER, HASHED, cross("x", "age")], None),
    ([NUMBER, cross("age", "y"), cross("x", "age") | {"name": "y"}], None),
    ([NUMBER, HASHED, cross("age", "h"), cross("x", "age") | {"name": "y"}], None),
    ([cross("age", "h"), NUMBER, HASHED], None),
    ([NUMBER, HASHED, cross("age", "age")], None),
    ([NUMBER, HASHED, cross("age")], None),
    ([NUMBER, HASHED, cross("age", "h", "age", "h")], None),
    ([NUMBER, HASHED, cross("age", "nobody")], None),
    # Numbers, lists and options that are none.
    *[([of_kind("number", scale=scale)], None) for scale in (0, -1, "1", None, 10**400)],
    *[([of_kind("vector", size=2, mean=mean)], None) for mean in ([0], [0, 0, 0], [0, "x"], 1, {})],
    *[([of_kind("vector", size=2, scale=scale)], None) for scale in ([1, 0], [1, -1])],
    *[([of_kind("category", values=values)], None) for values in ([], ["a", "a"], [1.5], [None], "ab", [["a"]])],
    *[([text(words=words)], None) for words in ([2, 1], [0, 1], [1], [1, 2, 3], [1, 2**63], None, "1")],
    *[([text(**more)], None) for more in ({"terms": ["a"]}, {"idf": [1.0]}, {"seed": 2**32}, {"counts": "regex"})],
    # Tensors that are missing, of another kind or of another size.
    ([TERMS], None),
    ([TERMS, BAG], ends_of("I64", [1], 8)),
    ([TERMS | {"terms": {"bytes": "b", "ends": "b"}}], {"b": dict(BYTES)}),
    ([TERMS | {"terms": {"bytes": "weight", "ends": "bias"}}], {}),
    *[([TERMS], ends_of(dtype, [1], size)) for dtype, size in (("I32", 4), ("F64", 8), ("U64", 8), ("BOOL", 1))],
    ([TERMS], ends_of("I64", [1, 1], 8)),
    ([TERMS], ends_of("I64", [], 8)),
    ([TERMS], ends_of("I64", [0], 0)),
    ([BAG], ends_of("I64", [2], 16)),
    ([TERMS], ends_of("I64", [2**40], 8)),
    ([TERMS], {"b": {"dtype": "F32", "shape": [1], "bytes": 4}, "e": {"dtype": "I64", "shape": [1], "bytes": 8}}),
    ([TERMS | {"idf": "i"}], ends_of("I64", [1], 8) | {"i": {"dtype": "F32", "shape": [1], "bytes": 4}}),
    ([TERMS | {"idf": "i"}], ends_of("I64", [1], 8) | {"i": {"dtype": "F64", "shape": [2], "bytes": 16}}),
    ([VECTOR | {"mean": "m"}], {"m": {"dtype": "F64", "shape": [2], "bytes": 16}}),
    ([VECTOR | {"mean": "m", "scale": "m"}], {"m": {"dtype": "F64", "shape": [3], "bytes": 24}}),
    ([VECTOR], None),
]


def test_there_are_a_hundred_hostile_manifests() -> None:
    """At least."""
    assert len(HOSTILE) >= 100


@pytest.mark.parametrize(("fields", "header"), HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_manifest_is_refused_and_nothing_is_allocated(
    tmp_path: Path, fields: object, header: dict[str, Any] | None
) -> None:
    """In one short printable line, and within memory of the size of its file."""
    size = sum(entry["bytes"] for entry in (header or {}).values())
    folder = hostile(tmp_path / "1", fields, json.loads(json.dumps(header)), bytes(size))
    file_bytes = (folder / "model.json").stat().st_size
    tracemalloc.start()
    try:
        message = refusal(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert message.isprintable()
    assert "\n" not in message
    assert len(message) < 400
    assert peak < 40 * file_bytes + (1 << 20)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tensors: tensors.update(s=-tensors["s"] - 1), "negative number"),
        (lambda tensors: tensors.update(s=tensors["s"][1:]), "has shape"),
        (lambda tensors: tensors.update(s=tensors["s"].astype(np.float64)), "is float64"),
        (lambda tensors: tensors.update(s=tensors["s"] * np.nan), "not finite"),
        (lambda tensors: tensors.update({"subject.idf": tensors["subject.idf"] * np.inf}), "not finite"),
        (lambda tensors: tensors.update({"subject.idf": tensors["subject.idf"].astype(np.float32)}), "is float32"),
        (lambda tensors: tensors.update({"subject.bytes": tensors["subject.bytes"].astype(np.int8)}), "is int8"),
        (lambda tensors: tensors.update({"picture.mean": np.zeros(4)}), "one number for each column"),
        (lambda tensors: tensors.update({"more": np.zeros(4)}), "exactly those"),
        (lambda tensors: tensors.pop("picture.mean"), "exactly those"),
        (lambda tensors: tensors.update(weight=tensors["weight"][1:]), "asks for (18, 3)"),
        (lambda tensors: tensors["subject.ends"].put(1, 3), "must ascend to the end of the bytes"),
        (lambda tensors: tensors["subject.ends"].put(2, 100), "must ascend to the end of the bytes"),
        (lambda tensors: tensors["subject.ends"].put(0, -1), "must ascend to the end of the bytes"),
        (lambda tensors: tensors["subject.ends"].put(0, 2**62), "must ascend to the end of the bytes"),
        (lambda tensors: tensors["subject.ends"].put(1, 11), "begins within a character"),
        (lambda tensors: tensors["subject.bytes"].put(0, 255), "are not UTF-8"),
        (
            lambda tensors: tensors.update(
                {
                    "subject.bytes": np.frombuffer(b"refundrefundrefuse", np.uint8),
                    "subject.ends": np.array([6, 12, 18]),
                }
            ),
            "has a term twice",
        ),
        (lambda tensors: tensors["picture.scale"].put(1, 0.0), "picture"),
        (lambda tensors: tensors["picture.scale"].put(1, -1.0), "picture"),
    ],
)
def test_tensors_that_do_not_fit_fields_are_refused(change: Callable[[Any], object], reason: str) -> None:
    """By name, dtype, shape and number."""
    made = field_artifact(training={"rows": 50, "support": "s"})
    tensors = {name: tensor.copy() for name, tensor in made.tensors.items()}
    change(tensors)
    with pytest.raises(ArtifactError) as caught:
        Artifact.from_fields(plain_fields(made.manifest), tensors)
    assert reason in str(caught.value)


def test_dense_and_sparse_fields_are_served(tmp_path: Path) -> None:
    """The repository loads both."""
    write_artifact(tmp_path / "dense" / "1", field_artifact())
    write_artifact(tmp_path / "sparse" / "1", field_artifact(SPARSE_FIELDS))
    view = Repository(tmp_path, BYTES_MAX, 256).scan()
    assert {key[0]: (version.state, version.reason) for key, version in view.versions.items()} == {
        "dense": ("READY", None),
        "sparse": ("READY", None),
    }


def test_the_repository_has_the_limits_of_the_settings(tmp_path: Path) -> None:
    """A model with more fields or columns is listed with its reason."""
    write_artifact(tmp_path / "dense" / "1", field_artifact())
    for limits, reason in ((FieldLimits(5), "there are 6 fields"), (FieldLimits(columns_max=3), "more than 3 columns")):
        (version,) = Repository(tmp_path, BYTES_MAX, 256, limits).scan().versions.values()
        assert version.reason is not None
        assert reason in version.reason
    (version,) = Repository(tmp_path, BYTES_MAX, 256, FieldLimits()).scan().versions.values()
    assert version.artifact is not None
    assert version.artifact.limits == FieldLimits()
