"""Small artifacts whose rows have fields, dense and sparse."""

from typing import Any

import numpy as np

from service.store.artifact.artifact import Artifact
from service.store.artifact.manifest import Manifest
from tests.support.artifact_files import HEAD_LAYER
from tests.support.field_lists import parse_fields
from tests.support.reference import Array

# One field of each kind without hashed columns; the vocabulary of the text is in tensors.
TERMS = ("late", "refund", "überall")
DENSE_FIELDS: tuple[dict[str, Any], ...] = (
    {"name": "age", "kind": "number", "mean": 40.0, "scale": 10.0, "clip": 3.0, "flag": True},
    {"name": "member", "kind": "boolean", "missing": "column"},
    {"name": "country", "kind": "category", "values": ["DE", "PT", 7, True], "unknown": "other"},
    {
        "name": "subject",
        "kind": "text",
        "words": [1, 1],
        "terms": {"bytes": "subject.bytes", "ends": "subject.ends"},
        "idf": "subject.idf",
        "norm": "l2",
    },
    {"name": "basket", "kind": "bag", "terms": ["milk", "bread"], "unknown": "other"},
    {"name": "picture", "kind": "vector", "size": 3, "mean": "picture.mean", "scale": "picture.scale"},
)
# The kinds with hashed columns.
HASHED_FIELDS: tuple[dict[str, Any], ...] = (
    {"name": "city", "kind": "category", "bits": 5, "seed": 3, "signed": True},
    {"name": "body", "kind": "text", "chars": [1, 3], "within_words": True, "accents": "strip", "bits": 6},
    {"name": "tags", "kind": "bag", "hashing": "vw", "bits": 4},
    {"name": "country and age", "kind": "cross", "fields": ["country", "age"], "bits": 4},
)
SPARSE_FIELDS = DENSE_FIELDS + HASHED_FIELDS
DENSE_COLUMNS = 2 + 2 + 5 + 3 + 3 + 3
SPARSE_COLUMNS = DENSE_COLUMNS + 32 + 64 + 16 + 16


def field_tensors() -> dict[str, Array]:
    """Return the tensors of the fields."""
    terms = [term.encode() for term in TERMS]
    return {
        "subject.bytes": np.frombuffer(b"".join(terms), np.uint8),
        "subject.ends": np.cumsum([len(term) for term in terms]),
        "subject.idf": np.array([1.0, 2.5, 1.25]),
        "picture.mean": np.array([0.5, 0.0, -0.5]),
        "picture.scale": np.array([1.0, 2.0, 0.25]),
    }


def field_artifact(
    fields: tuple[dict[str, Any], ...] = DENSE_FIELDS,
    *,
    head: str = "softmax",
    dtype: str = "float32",
    seed: int | None = 0,
    **more: Any,
) -> Artifact:
    """Return an artifact with fields and random weights.

    Args:
        fields: The fields, as in a manifest; those of DENSE_FIELDS have tensors.
        head: The head; its classes are "a", "b" and, except for a sigmoid head, "c".
        dtype: The dtype of the weights.
        seed: The seed of the weights; None for weights of 0.
        more: Other fields of the manifest. With `training.support` there is such a tensor.
    """
    classes = ["a", "b"] if head == "sigmoid" else ["a", "b", "c"]
    manifest = {
        "head": head,
        "classes": classes,
        "fields": list(fields),
        "dtype": dtype,
        "layers": [HEAD_LAYER],
        **more,
    }
    tensors = {name: tensor for name, tensor in field_tensors().items() if name.split(".")[0] in names_of(fields)}
    sizes = {name: tensor.shape for name, tensor in tensors.items()}
    N = sum(field.count_columns(sizes) for field in parse_fields(*fields))
    K = 1 if head == "sigmoid" else len(classes)
    rng = np.random.default_rng(seed)
    weights, bias = (rng.standard_normal(shape) * (seed is not None) for shape in ((N, K), K))
    tensors |= {"weight": weights.astype(dtype), "bias": bias.astype(dtype)}
    support = (more.get("training") or {}).get("support")
    if support is not None:
        tensors[support] = rng.integers(0, 100, N).astype(dtype)
    return Artifact.from_fields(manifest, tensors)


def names_of(fields: tuple[dict[str, Any], ...]) -> set[str]:
    """Return the names of fields."""
    return {field["name"] for field in fields}


def plain_fields(manifest: Manifest) -> dict[str, Any]:
    """Return the fields of a manifest as `Artifact.from_fields` takes them."""
    return manifest.model_dump(mode="json", exclude_none=True, exclude={"format_version", "tensors_sha256"})
