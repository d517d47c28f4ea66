"""The field `mixture` of a manifest: what an export writes is read, and every contradiction is refused."""

from typing import Any

import pytest

from service.errors import ArtifactError
from service.learn.state import LearnerState
from service.store.artifact.artifact import Artifact
from tests.support.mixture_states import CLASSES, make_artifact, make_rows

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"frequencies": [0.5, 0.5]}, "one number for each class"),
    ({"frequencies": [0.5, 0.5, 1.5]}, "mixture.frequencies.2"),
    ({"weights": [0.25] * 7}, "two numbers for each expert"),
    ({"weights": [0.25] * 7 + [-1e-9]}, "from 0 to 1"),
    ({"weights": [0.25] * 7 + [1.5]}, "from 0 to 1"),
    ({"random_features": 100}, "multiple of 64"),
    ({"random_features": 128}, "shape"),
    ({"seed": -1}, "mixture.seed"),
    ({"linear": None}, "exactly those|shape|two numbers"),
    ({"base": "mixture.features"}, "tensor of its own"),
    ({"experts": 3}, "mixture.experts"),
]


@pytest.fixture(scope="module")
def exported() -> Artifact:
    """Return a learned mixture as an artifact."""
    X, labels = make_rows()
    state = LearnerState(make_artifact())
    state.fold_rows(X, labels)
    return state.export_artifact(CLASSES["softmax"], {})


def changed(artifact: Artifact, fields: dict[str, Any], **mixture: Any) -> Artifact:
    """Return an artifact with other fields, also in its mixture."""
    written = {"format_version", "tensors_sha256"}
    document = artifact.manifest.model_dump(mode="json", exclude_none=True, exclude=written)
    document["mixture"] |= mixture
    return Artifact.from_fields(document | fields, artifact.tensors)


@pytest.mark.parametrize(("mixture", "match"), WRONG)
def test_a_wrong_mixture_is_refused(exported: Artifact, mixture: dict[str, Any], match: str) -> None:
    """The reason names the field."""
    with pytest.raises(ArtifactError, match=match):
        changed(exported, {}, **mixture)


def test_other_heads_and_formats_have_no_mixture(exported: Artifact) -> None:
    """A mixture is of format 2 and has a softmax or a sigmoid head."""
    assert exported.manifest.format_version == 2
    with pytest.raises(ArtifactError, match="softmax or a sigmoid head"):
        changed(exported, {"head": "multilabel"})
    with pytest.raises(ArtifactError, match="format_version is 2 with a mixture"):
        changed(exported, {"format_version": 1})


def test_its_numbers_are_part_of_the_hash(exported: Artifact) -> None:
    """Other weights, frequencies or random features are another function."""
    assert exported.manifest.mixture is not None
    weights = exported.manifest.mixture.weights
    seed = {"learning": {"rule": "mixture", "constants": {"features": 64, "seed": 5}}}
    others = [
        changed(exported, {}, weights=[weights[0] + 1, *weights[1:]]),
        changed(exported, {}, frequencies=[0.2, 0.2, 0.6]),
        changed(exported, seed, seed=5),
    ]
    assert len({one.weights_sha256 for one in (exported, *others)}) == 4
