"""Artifacts of sparse rows that all processes map."""

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.store.artifact.artifact import Artifact
from service.store.artifact.fingerprint import compute_geneses
from service.store.artifact.mapped_artifact import MappedArtifact, mapped_arrays
from service.store.artifact.model_factory import build_model, initial_parameters
from service.store.directory.bound_artifact import bind_artifact
from service.store.directory.data_directory import DataDirectory
from service.store.directory.mapped_artifacts import MappedArtifacts, is_private
from service.store.states.bases import list_bases, write_first_base
from tests.support.field_artifacts import SPARSE_FIELDS, field_artifact
from tests.support.sparse_models import random_rows
from tests.support.sparse_streams import sparse_artifact

KEY = "m", 1
LIMIT = 1 << 20


@pytest.fixture
def data(tmp_path: Path) -> DataDirectory:
    """Return an empty data directory."""
    return DataDirectory(tmp_path / "data")


def write(data: DataDirectory, artifact: Artifact) -> Path:
    """Write the first base of an artifact, and return its path."""
    folder = data.stream_folder(*KEY).bases
    return folder / write_first_base(folder, artifact)


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
@pytest.mark.parametrize("training", [None, {"rows": 50, "support": "support"}])
def test_a_mapped_artifact_is_the_artifact(data: DataDirectory, head: str, training: Any) -> None:
    """Its tensors, hashes, encoder and answers are the same, whether or not the rows of weights are padded."""
    artifact = field_artifact(SPARSE_FIELDS, head=head, training=training)
    write(data, artifact)
    mapped = MappedArtifacts(data).share(KEY, artifact)
    assert isinstance(mapped, MappedArtifact)
    assert (is_private(artifact), is_private(mapped)) == (True, False)
    assert list(mapped.tensors) == list(artifact.tensors)
    for name, tensor in mapped.tensors.items():
        assert (tensor.dtype, tensor.shape) == (artifact.tensors[name].dtype, artifact.tensors[name].shape)
        assert tensor.tobytes() == artifact.tensors[name].tobytes()
        assert tensor.flags.c_contiguous
        assert not tensor.flags.writeable
    assert len(mapped.tensors) == len(artifact.tensors)
    with pytest.raises(KeyError):
        mapped.tensors["other"]
    for name in ("manifest", "limits", "n_features", "has_sparse_rows", "content_sha256", "weights_sha256"):
        assert getattr(mapped, name) == getattr(artifact, name)
    assert compute_geneses(mapped) == compute_geneses(artifact)
    rows = random_rows(np.random.default_rng(0), 20, artifact.n_features)
    assert build_model(mapped).predict(rows).tobytes() == build_model(artifact).predict(rows).tobytes()
    objects = [{"country": "PT", "subject": "late refund", "city": "Faro", "picture": [1.0, 2.0, 3.0]}]
    assert mapped.row_encoder is not None
    assert artifact.row_encoder is not None
    found, expected = (one.row_encoder.encode_objects(objects).rows for one in (mapped, artifact))  # type: ignore[union-attr]
    assert found.columns.tolist() == expected.columns.tolist()
    assert found.values.tolist() == expected.values.tolist()
    bound = bind_artifact(data.stream_folder(*KEY), mapped, LIMIT)
    assert (bound.artifact is mapped, bound.differs) == (True, False)
    assert not bind_artifact(data.stream_folder(*KEY), artifact, LIMIT).differs


def test_nothing_is_copied(data: DataDirectory) -> None:
    """Two readers share one mapping of the weights; the artifact that was read is freed."""
    artifact = sparse_artifact(support=True)
    path = write(data, artifact)
    artifacts = MappedArtifacts(data)
    one, two = (artifacts.share(KEY, artifact) for _ in range(2))
    bases = [initial_parameters(each).arrays()["base"] for each in (one, two)]
    assert np.shares_memory(*bases)
    assert not bases[0].flags.owndata
    assert not one.tensors["support"].flags.owndata
    reference = weakref.ref(artifact)
    del artifact
    gc.collect()
    assert reference() is None
    path.unlink()
    assert np.isfinite(bases[0]).all()


def test_only_an_intact_first_base_is_mapped(data: DataDirectory) -> None:
    """One that is missing, damaged or of another artifact is left alone, and damage is read once."""
    artifact, artifacts = sparse_artifact(), MappedArtifacts(data)
    write(data, sparse_artifact(seed=1))
    assert artifacts.share(KEY, artifact) is artifact
    assert not artifacts.is_written(artifact)
    path = write(data, artifact)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert artifacts.is_written(artifact)
    assert artifacts.share(KEY, artifact) is artifact
    assert not artifacts.is_written(artifact)
    assert write(data, artifact) == path  # the learner finds the damage, and writes it again
    assert path.read_bytes() == content
    assert artifacts.is_written(artifact)
    assert isinstance(artifacts.share(KEY, artifact), MappedArtifact)
    assert len(list_bases(path.parent)) == 2


def test_others_stay_as_they_are(data: DataDirectory) -> None:
    """Artifacts of dense rows, those that are mapped, and all without a data directory."""
    sparse, dense = sparse_artifact(), field_artifact()
    write(data, sparse)
    artifacts = MappedArtifacts(data)
    assert artifacts.share(KEY, dense) is dense
    mapped = artifacts.share(KEY, sparse)
    assert artifacts.share(KEY, mapped) is mapped
    assert not any(map(artifacts.is_written, (dense, mapped)))
    assert MappedArtifacts(None).share(KEY, sparse) is sparse


def test_the_arrays_of_an_artifact_are_those_of_its_base() -> None:
    """The rows of padded weights begin at a cache line, and all other tensors are there under their names."""
    artifact: Any = sparse_artifact(support=True)
    arrays = mapped_arrays(artifact)
    assert arrays.keys() == {"base", "tensor.support"}
    assert arrays["base"].shape == (artifact.n_features + 1, 4)
