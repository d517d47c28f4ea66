"""Single steps of scikit-learn: what they become, and what is refused with the step's name and place."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.feature_extraction import DictVectorizer, FeatureHasher
from sklearn.feature_extraction.text import (
    ENGLISH_STOP_WORDS,
    CountVectorizer,
    HashingVectorizer,
    TfidfTransformer,
    TfidfVectorizer,
)
from sklearn.feature_selection import RFE
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    StandardScaler,
)
from sklearn.svm import SVC

from service.convert.converted_model import ConvertedModel
from service.convert.scikit import text_steps
from service.convert.scikit.artifact_of import artifact_of
from service.convert.scikit.estimator import convert_estimator
from service.convert.scikit.plain_object import PlainObject, plain_object
from service.errors import ConversionError

X = np.random.default_rng(0).normal(size=(40, 3))
Y = (X[:, 0] > 0).astype(int)
Y3 = np.digitize(X[:, 0], [-0.5, 0.5])
TEXTS = ["a late refund", "good day sir", "refund now", "hello good sir"] * 10


def convert(estimator: Any) -> ConvertedModel:
    return convert_estimator(plain_object(estimator)).model


def records(estimator: Any) -> list[dict[str, Any]]:
    return [dict(record) for record in convert(estimator).fields or ()]


def of_package(estimator: Any, module: str, name: str) -> Any:
    """Give the class of an estimator another module and name."""
    kind = type(name, (type(estimator),), {"__module__": module, "__qualname__": name})
    estimator.__class__ = kind
    return estimator


def test_the_stop_words_are_those_of_scikit_learn() -> None:
    assert set(text_steps.ENGLISH_STOP_WORDS.read_text().split()) == set(ENGLISH_STOP_WORDS)


def test_samplers_only_act_in_training() -> None:
    class Sampler(TransformerMixin, BaseEstimator):
        def fit(self, _: Any, y: Any = None) -> Any:  # noqa: ARG002  # scikit-learn gives both
            return self

        def transform(self, X: Any) -> Any:
            return X

    sampler = of_package(Sampler(), "imblearn.over_sampling._random_over_sampler", "RandomOverSampler")
    pipeline = Pipeline([("scale", StandardScaler()), ("sample", sampler), ("model", LogisticRegression())]).fit(X, Y)
    assert artifact_of(of_package(pipeline, "imblearn.pipeline", "Pipeline")).manifest.head == "sigmoid"


def test_a_class_of_another_package_has_no_meaning() -> None:
    pipeline = make_pipeline(of_package(StandardScaler(), "mine.scalers", "StandardScaler"), LogisticRegression())
    with pytest.raises(ConversionError, match=r'step "standardscaler": StandardScaler of the package mine is not'):
        convert(pipeline.fit(X, Y))


def test_words_and_letters_of_one_text_share_its_value() -> None:
    union = FeatureUnion([("words", TfidfVectorizer()), ("letters", TfidfVectorizer(analyzer="char"))])
    artifact = artifact_of(make_pipeline(union, LogisticRegression()).fit(TEXTS, [0, 1, 2, 1] * 10))
    words, letters = artifact.manifest.fields
    assert (words.name, letters.name, letters.source) == ("text", "text (2)", "text")
    assert set(artifact.manifest.examples[0].row) == {"text"}


def test_a_number_may_be_a_category_too() -> None:
    frame = pd.DataFrame({"class": [1, 2, 3, 2] * 10})
    columns = make_column_transformer((StandardScaler(), ["class"]), (OneHotEncoder(), ["class"]))
    found = records(make_pipeline(columns, LogisticRegression()).fit(frame, [0, 1, 0, 0] * 10))
    assert [(record["kind"], record.get("source")) for record in found] == [("number", None), ("category", "class")]


def test_none_may_be_a_category() -> None:
    table = np.array([["a"], [None], ["b"], ["a"]] * 10, object)
    for encoder in (OneHotEncoder(handle_unknown="ignore"), OrdinalEncoder()):
        model = make_pipeline(encoder, LogisticRegression()).fit(table, [0, 1, 1, 0] * 10)
        assert records(model)[0]["missing"] == "column"
        assert artifact_of(model).manifest.provenance["rows_compared"] == "200"


def test_a_gap_without_an_imputer_is_refused() -> None:
    columns = make_column_transformer((StandardScaler(), ["a"]), (OneHotEncoder(), ["b"]))
    frame = pd.DataFrame({"a": X[:, 0], "b": ["x", "y"] * 20})
    found = records(make_pipeline(columns, LogisticRegression()).fit(frame, Y))
    assert [record["missing"] for record in found] == ["refuse", "refuse"]
    assert found[1]["unknown"] == "refuse"


def test_two_imputers_of_one_number_have_a_column_for_gaps() -> None:
    gaps = X.copy()
    gaps[::5, 0] = np.nan
    union = FeatureUnion([("mean", SimpleImputer()), ("zero", SimpleImputer(strategy="constant", fill_value=0))])
    model = make_pipeline(union, LogisticRegression()).fit(gaps, Y)
    assert records(model)[0]["flag"] is True
    artifact_of(model)


def test_what_an_imputer_drops_is_ignored() -> None:
    gaps = np.column_stack([X, np.full(len(X), np.nan)])
    with pytest.warns(UserWarning, match="Skipping features"):
        model = make_pipeline(SimpleImputer(), LogisticRegression()).fit(gaps, Y)
    converted = convert(model)
    assert [record["name"] for record in converted.fields or ()] == ["feature_0", "feature_1", "feature_2"]
    assert converted.others == "ignore"


def test_a_scaler_cuts_numbers() -> None:
    found = records(make_pipeline(MinMaxScaler((-1, 3), clip=True), LogisticRegression()).fit(X, Y))
    low, high = X[:, 0].min(), X[:, 0].max()
    assert found[0]["clip"] == 1
    assert found[0]["mean"] == pytest.approx((low + high) / 2)
    assert found[0]["scale"] == pytest.approx((high - low) / 2)


def test_what_stands_for_a_gap_is_cut_too() -> None:
    """The training rows had no gap, so the scaler has not seen the number that stands for one."""
    imputer = SimpleImputer(strategy="constant", fill_value=100)
    artifact_of(make_pipeline(imputer, MinMaxScaler(clip=True), LogisticRegression(C=100)).fit(X, Y))


def test_a_number_cannot_be_cut_and_used_as_it_is() -> None:
    union = FeatureUnion([("cut", MinMaxScaler(clip=True)), ("all", StandardScaler())])
    with pytest.raises(ConversionError, match="used as it is and cut"):
        convert(make_pipeline(union, LogisticRegression()).fit(X, Y))


def test_selectors_in_memory_answer_for_themselves() -> None:
    model = make_pipeline(RFE(LogisticRegression(), n_features_to_select=2), LogisticRegression()).fit(X, Y)
    weights = convert(model).layers[0].weight
    assert (weights != 0).sum() == 2
    artifact_of(model)


def test_a_hasher_of_names_is_asked_by_pairs() -> None:
    hasher = FeatureHasher(16, input_type="string")
    model = make_pipeline(hasher, LogisticRegression()).fit([["a", "b"], ["b"], []] * 10, [0, 1, 1] * 10)
    assert artifact_of(model).manifest.fields[0].kind == "bag"
    assert hasher.input_type == "string"


def test_a_boolean_may_stand_for_a_gap() -> None:
    table = np.array([[True], [False], [np.nan], [True]] * 10, object)
    model = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(), LogisticRegression())
    assert records(model.fit(table, [0, 1, 1, 0] * 10))[0]["missing"] == {"value": True}
    artifact_of(model)


@pytest.mark.parametrize(
    ("state", "head", "factor"),
    [
        ({"multi_class": "auto"}, "sigmoid", 1),
        ({"multi_class": "multinomial"}, "sigmoid", 2),
        ({"multi_class": "ovr"}, "sigmoid", 1),
    ],
)
def test_options_of_old_releases_of_two_classes(state: dict[str, Any], head: str, factor: int) -> None:
    """Until 1.7 a multinomial model of two classes had the logits -z and z."""
    model = LogisticRegression().fit(X, Y)
    found = convert_estimator(PlainObject("sklearn", "LogisticRegression", {**vars(model), **state})).model
    assert found.head == head
    np.testing.assert_allclose(found.layers[0].weight, factor * model.coef_.T)
    np.testing.assert_allclose(found.layers[0].bias, factor * model.intercept_)


@pytest.mark.parametrize(
    ("state", "head"),
    [
        ({}, "softmax"),
        ({"multi_class": "multinomial"}, "softmax"),
        ({"multi_class": "ovr"}, "ovr"),
        ({"solver": "liblinear", "multi_class": "deprecated"}, "ovr"),
    ],
)
def test_options_of_old_releases_of_three_classes(state: dict[str, Any], head: str) -> None:
    model = LogisticRegression().fit(X, Y3)
    part = PlainObject("sklearn", "LogisticRegression", {**vars(model), **state})
    assert convert_estimator(part).model.head == head


def test_old_releases_have_idf_on_a_diagonal() -> None:
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, [0, 1, 0, 1] * 10)
    expected = convert(model)
    # The transformer within a vectorizer, whose state releases before 1.6 keep otherwise.
    tfidf = model[0]._tfidf
    tfidf._idf_diag = SimpleNamespace(data=tfidf.idf_[None])
    del tfidf.idf_
    assert np.array_equal(convert(model).field_tensors["idf_0"], expected.field_tensors["idf_0"])


PATTERN = CountVectorizer(token_pattern="[a-z]+")  # noqa: S106  # no password
REFUSED: list[tuple[Any, Any, Any, str]] = [
    (PolynomialFeatures(), X, Y, "PolynomialFeatures is not linear and no field"),
    (FunctionTransformer(np.abs), X, Y, "its function cannot be converted"),
    (SimpleImputer(missing_values=-1), X, Y, 'its option "missing_values" is a value of its own'),
    (CountVectorizer(tokenizer=str.split), TEXTS, Y, 'its option "tokenizer" is a function'),
    (CountVectorizer(analyzer=str.split), TEXTS, Y, 'its option "analyzer" is a function'),
    (PATTERN, TEXTS, Y, 'its option "token_pattern" is a regular expression'),
    (CountVectorizer(strip_accents="ascii"), TEXTS, Y, 'its option "strip_accents" is not supported'),
    (HashingVectorizer(n_features=1000), TEXTS, Y, 'its option "n_features" must be a power of two'),
    (make_pipeline(HashingVectorizer(n_features=16), TfidfTransformer()), TEXTS, Y, "its input is normalized already"),
    (OneHotEncoder(), X.round(1), Y, "a category is neither a text nor a whole number nor a boolean"),
    (OneHotEncoder(), np.array([["x" * 300], ["y"]] * 20), Y, "a category has more than 256 characters"),
    (TfidfTransformer(), np.abs(X), Y, "its input is not all terms of one text or bag"),
    (make_pipeline(DictVectorizer(), TfidfTransformer()), [{"a": 1}, {"b": 2}] * 20, Y, "a bag has no idf before"),
    (
        make_pipeline(MinMaxScaler(), OneHotEncoder()),
        [[5.0], [7.0]] * 20,
        Y,
        "its input is not a category",
    ),
    (
        ColumnTransformer([("a", OneHotEncoder(), [0])]),
        np.array([[None], [np.nan]] * 20, object),
        Y,
        "None and NaN are two",
    ),
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("step", "rows", "target", "reason"), REFUSED, ids=lambda part: type(part).__name__)
def test_what_is_refused_names_the_step(step: Any, rows: Any, target: Any, reason: str) -> None:
    model = Pipeline([("outer", Pipeline([("inner", step)])), ("model", LogisticRegression())]).fit(rows, target)
    with pytest.raises(ConversionError) as refusal:
        convert(model)
    assert str(refusal.value).startswith('step "outer", step "inner"')
    assert reason in str(refusal.value)
    assert str(refusal.value).endswith(".")


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (SVC(), "SVC is no linear classifier or network"),
        (SGDClassifier(loss="modified_huber"), 'only loss="log_loss"'),
        (OneVsRestClassifier(SVC()), "SVC is no linear classifier"),
    ],
)
def test_classifiers_that_are_not_linear_are_refused(model: Any, reason: str) -> None:
    with pytest.raises(ConversionError, match=reason):
        convert(make_pipeline(StandardScaler(), model).fit(X, Y3))


def test_a_pipeline_that_is_not_fitted_is_refused() -> None:
    with pytest.raises(ConversionError, match="so it is not fitted"):
        convert(make_pipeline(StandardScaler(), LogisticRegression()))


def test_a_label_of_one_value_is_refused() -> None:
    labels = np.column_stack([Y, np.ones(len(Y), int)])
    with pytest.warns(UserWarning, match="present in all training examples"):
        model = OneVsRestClassifier(LogisticRegression()).fit(X, labels)
    with pytest.raises(ConversionError, match="_ConstantPredictor is no linear classifier"):
        convert(model)


def test_names_of_classes_and_features_are_counted() -> None:
    model = LogisticRegression().fit(X, Y)
    assert artifact_of(model, classes=["no", "yes"], features=["a", "b", "c"]).manifest.features == ("a", "b", "c")
    with pytest.raises(ConversionError, match="has 2 classes, and 3 names"):
        artifact_of(model, classes=["a", "b", "c"])
    with pytest.raises(ConversionError, match="A row has 3 values, and 1 names"):
        artifact_of(model, features=["a"])


def test_the_number_of_training_rows_may_be_given() -> None:
    model = make_pipeline(MinMaxScaler(), LogisticRegression()).fit(X, Y)
    assert artifact_of(model).manifest.training is None
    assert artifact_of(model, training_rows=40).manifest.training.rows == 40


def test_an_indicator_alone_marks_gaps() -> None:
    gaps = X.copy()
    gaps[::3, 1] = np.nan
    model = make_pipeline(MissingIndicator(), LogisticRegression()).fit(gaps, Y)
    assert [record["name"] for record in records(model)] == ["feature_1"]
