"""The statistics of training rows: those of NumPy, in the artifact, and what one event then changes."""

from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from service.convert.converted_model import ConvertedModel, DenseLayer, Doubles, Row
from service.convert.proof import feature_encoder
from service.convert.scikit.artifact_of import artifact_of
from service.convert.training_rows import add_training_rows
from service.errors import ConversionError
from service.learn.state import LearnerState
from service.store.artifact.artifact import Artifact
from service.store.artifact.model_factory import build_model

TEXTS = [f"{word} {other} {number}" for word in ("late", "lost") for other in ("order", "bag") for number in range(200)]
LABELS = [text.split()[0] for text in TEXTS]
NAMES = ("x", "y", "z")


def random_rows() -> Doubles:
    """Return (600, 3) numbers: large ones, small ones, and a constant."""
    X = np.random.default_rng(0).normal([1e7, -3, 0], [2, 0.1, 1], (600, 3))
    X[:, 2] = 12345.678
    return X


def to_objects(X: Doubles) -> list[Row]:
    """Return rows as objects of names and numbers."""
    return [dict(zip(NAMES, row, strict=True)) for row in X.tolist()]


def encode(artifact: Artifact, rows: list[Row]) -> Any:
    """Return rows as the model takes them."""
    encoder = artifact.row_encoder or feature_encoder(artifact, scaled=False)
    encoded = encoder.to_model_rows(encoder.encode_objects(rows).rows, artifact.weights.dtype)
    return encoded if artifact.has_sparse_rows else encoded.to_matrix(encoder.n_columns)


def move(artifact: Artifact, row: Row, others: list[Row], label: int) -> Doubles:
    """Return how much the largest probability of a row, then of others, changes by one event of that row."""
    state, X = LearnerState(artifact), [encode(artifact, [row]), encode(artifact, others)]
    before = [np.asarray(build_model(artifact).predict(one)) for one in X]
    state.fold_rows(X[0], np.array([label]))
    model = state.served_parameters().build_model()
    return np.array([np.abs(model.predict(one) - P).max() for one, P in zip(X, before, strict=True)])


@pytest.mark.parametrize("total", [None, 9000])
def test_features_have_their_mean_and_scale(total: int | None) -> None:
    """The population standard deviation; 1 for a constant feature, however large it is."""
    X, layer = random_rows(), DenseLayer(np.ones((3, 1)), np.zeros(1), "identity")
    model = ConvertedModel("sigmoid", ("a", "b"), [layer], features=NAMES)
    training = add_training_rows(model, to_objects(X), total).training
    assert training is not None
    assert training["rows"] == (total or 600)
    np.testing.assert_allclose(training["mean"], X.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(training["scale"], [*X.std(axis=0)[:2], 1], rtol=1e-9)


def test_what_the_source_knows_of_features_stays() -> None:
    """Its mean and scale are those of all rows; only the number of rows is replaced."""
    layer = DenseLayer(np.ones((3, 1)), np.zeros(1), "identity")
    known = {"rows": 5, "mean": [1.0, 2.0, 3.0], "scale": [4.0, 5.0, 6.0]}
    model = ConvertedModel("sigmoid", ("a", "b"), [layer], features=NAMES, training=known)
    assert add_training_rows(model, to_objects(random_rows()), 70).training == {**known, "rows": 70}


@pytest.mark.parametrize("sample", [1, 4])
def test_columns_have_their_support(sample: int) -> None:
    """It is the sum of the squares of each column, over several blocks of rows; a sample stands for all of them."""
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, LABELS)
    texts = TEXTS[::sample]
    artifact = artifact_of(pipeline, training_rows=len(TEXTS), training=[{"text": text} for text in texts])
    assert artifact.manifest.training is not None
    assert artifact.manifest.training.rows == len(TEXTS)
    X = pipeline[0].transform(texts)
    expected = sample * np.asarray(X.multiply(X).sum(axis=0)).ravel()
    np.testing.assert_allclose(artifact.tensors["support"], expected, rtol=1e-5)


def test_one_event_changes_a_frequent_word_less() -> None:
    """The support makes its weight firm."""
    pipeline = make_pipeline(HashingVectorizer(n_features=1 << 10), LogisticRegression()).fit(TEXTS, LABELS)
    rows: list[Row] = [{"text": text} for text in TEXTS]
    artifacts = [artifact_of(pipeline, training=training) for training in ((), rows)]
    assert all(artifact.has_sparse_rows for artifact in artifacts)
    loose, firm = (move(artifact, {"text": "late"}, rows, 1) for artifact in artifacts)
    assert (firm < loose / 4).all()


@pytest.mark.parametrize(("words", "is_lower"), [(40, True), (1, False)])
def test_sparse_rows_of_many_columns_learn_at_a_lower_rate(words: int, is_lower: bool) -> None:  # noqa: FBT001
    """A training row whose error is 1 moves its logit by 1 on average, or by less at the default rate."""
    generator = np.random.default_rng(0)
    texts = [" ".join(f"w{i}" for i in generator.choice(50, words, replace=False)) for _ in range(2000)]
    labels = (generator.random(len(texts)) < 0.5).astype(int)
    hashing = HashingVectorizer(n_features=1 << 10, norm=None if is_lower else "l2", alternate_sign=False)
    pipeline = make_pipeline(hashing, LogisticRegression(C=0.1)).fit(texts, labels)
    artifact = artifact_of(pipeline, classes=("no", "yes"), training=[{"text": text} for text in texts])
    learning, X = artifact.manifest.learning, hashing.transform(texts).toarray()
    firm = np.sqrt(0.05 * np.maximum(artifact.tensors["support"], 1e-9))
    moved = (X**2 / firm).sum(axis=1).mean() + 1 / np.sqrt(0.05 * len(texts))
    if learning is None:
        assert not is_lower
        assert 0.5 * moved <= 1
    else:
        assert is_lower
        assert learning.rule == "adagrad"
        assert learning.constants == {"rate": pytest.approx(1 / moved, rel=0.05)}


def test_a_network_on_numbers_learns_standardized_ones() -> None:
    """Its function is that of the source, and one event changes other rows little; before, it changed all of them."""
    generator = np.random.default_rng(1)
    X = generator.normal([1000, 0.01, -50], [300, 0.002, 20], (300, 3))
    y = ((X[:, 0] > 1000) ^ (X[:, 1] > 0.01)).astype(int)
    network = MLPClassifier((6,), activation="tanh", solver="lbfgs", alpha=0.1, random_state=0, max_iter=5000)
    pipeline = make_pipeline(StandardScaler(), network).fit(X, y)
    artifact = artifact_of(pipeline, classes=("no", "yes"), features=NAMES)
    stage = artifact.manifest.stage
    assert stage is not None
    np.testing.assert_allclose([stage.mean, stage.scale], [X.mean(axis=0), X.std(axis=0)], rtol=1e-9)
    rows = to_objects(X)
    np.testing.assert_allclose(
        build_model(artifact).predict(encode(artifact, rows)), pipeline.predict_proba(X), atol=1e-5
    )
    P = pipeline.predict_proba(X)
    sure = int(P[:, 0].argmax())
    moved = move(artifact, rows[sure], rows, 1)
    assert 0 < moved[0] <= moved[1] < 0.1


def test_a_row_that_is_none_of_the_model_is_refused() -> None:
    """The message names the value, and not its content."""
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, LABELS)
    with pytest.raises(ConversionError, match=r"^a training row is no row of the model: .*text"):
        artifact_of(pipeline, training=[{"text": 5}])
