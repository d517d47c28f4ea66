"""Follow the steps of a fitted pipeline forward, to symbolic columns and a head."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import numpy as np

from service.convert.columns.raw_inputs import ColumnError
from service.convert.columns.symbolic_blocks import NumberBlock
from service.convert.columns.symbolic_matrix import SymbolicMatrix
from service.convert.scikit.classifier_heads import HEADS, SymbolicNetwork, join_one_vs_rest
from service.convert.scikit.column_selectors import SELECTORS, choose_columns
from service.convert.scikit.encoders import one_hot_encoder, ordinal_encoder, target_encoder
from service.convert.scikit.imputers import missing_indicator, simple_imputer
from service.convert.scikit.plain_object import PlainValue
from service.convert.scikit.row_source import RowSource, SingleColumn, Symbolic
from service.convert.scikit.scalers import LINEAR_STEPS
from service.convert.scikit.step import Step
from service.convert.scikit.text_steps import (
    count_vectorizer,
    dict_vectorizer,
    feature_hasher,
    hashing_vectorizer,
    tfidf_transformer,
    tfidf_vectorizer,
)
from service.errors import ConversionError

Made = TypeVar("Made")
NamedPart = tuple[str, PlainValue]

# Searches and other wrappers, by the attribute that is the fitted estimator.
SEARCHES: Final = {
    "GridSearchCV": "best_estimator_",
    "HalvingGridSearchCV": "best_estimator_",
    "HalvingRandomSearchCV": "best_estimator_",
    "RandomizedSearchCV": "best_estimator_",
}
ONE_VS_REST: Final = "OneVsRestClassifier"
PASSTHROUGH: Final = "passthrough"
DROP: Final = "drop"
# Pipelines within pipelines; deeper ones are circles or bombs.
DEPTH_MAX: Final = 32

MATRIX_STEPS: Final[Mapping[str, Callable[[Step, SymbolicMatrix], SymbolicMatrix]]] = {
    **LINEAR_STEPS,
    "MissingIndicator": missing_indicator,
    "OneHotEncoder": one_hot_encoder,
    "OrdinalEncoder": ordinal_encoder,
    "SimpleImputer": simple_imputer,
    "TargetEncoder": target_encoder,
}
ROW_STEPS: Final[Mapping[str, Callable[[Step, Symbolic], SymbolicMatrix]]] = {
    "CountVectorizer": count_vectorizer,
    "DictVectorizer": dict_vectorizer,
    "FeatureHasher": feature_hasher,
    "HashingVectorizer": hashing_vectorizer,
    "TfidfTransformer": tfidf_transformer,
    "TfidfVectorizer": tfidf_vectorizer,
}
# The packages whose classes the tables mean.
PACKAGES: Final = frozenset(("sklearn", "imblearn"))


def classify(step: Step, x: Symbolic, depth: int = 0) -> SymbolicNetwork:
    """Return a fitted classifier, or a pipeline that ends with one, as a network of symbolic columns.

    Raises:
        ConversionError: A part is neither linear nor a field; the message names it and its place.
    """
    _check_depth(step, depth)
    name = step.name if step.part.package in PACKAGES else ""
    if name in SEARCHES:
        return classify(step.child(step.need(SEARCHES[name])), x, depth + 1)
    if name == "Pipeline":
        *steps, (last, head) = _named_steps(step, "steps")
        return classify(step.child(head, last), _run_steps(step, steps, x, depth), depth + 1)
    if name == ONE_VS_REST:
        estimators = step.listed("estimators_")
        if not estimators:
            raise step.refuse("it has no estimators")
        return join_one_vs_rest(step, [classify(step.child(one), x, depth + 1) for one in estimators])
    if name not in HEADS:
        raise _refuse_class(step, "is no linear classifier or network of the kinds that can be converted")
    return _guarded(step, lambda: HEADS[name](step, _to_matrix(step, x)))


def transform(step: Step, x: Symbolic, depth: int = 0) -> Symbolic:
    """Return the columns that a fitted transformer makes.

    Raises:
        ConversionError: It is neither linear nor a field; the message names it and its place.
    """
    _check_depth(step, depth)
    name = step.name if step.part.package in PACKAGES else ""
    if name in PLUMBING:
        return _guarded(step, lambda: PLUMBING[name](step, x, depth))
    if name in ROW_STEPS:
        return _guarded(step, lambda: ROW_STEPS[name](step, x))
    if name in SELECTORS:
        matrix = _to_matrix(step, x)
        return _guarded(step, lambda: matrix.select(np.flatnonzero(choose_columns(step, matrix.width))))
    if name in MATRIX_STEPS:
        return _guarded(step, lambda: MATRIX_STEPS[name](step, _to_matrix(step, x)))
    raise _refuse_class(step, "is not linear and no field")


def _pipeline(step: Step, x: Symbolic, depth: int) -> Symbolic:
    return _run_steps(step, _named_steps(step, "steps"), x, depth)


def _function(step: Step, x: Symbolic, _: int) -> Symbolic:
    if step.has("func"):
        raise step.refuse("its function cannot be converted")
    return x


def _guarded(step: Step, convert: Callable[[], Made]) -> Made:
    """Return what a function makes of a step, whose refusals get the step's name and place."""
    try:
        return convert()
    except ColumnError as error:
        raise step.refuse(str(error)) from None


def _refuse_class(step: Step, reason: str) -> ConversionError:
    name = step.name if step.part.package in PACKAGES else f"{step.name} of the package {step.part.package}"
    return ConversionError(f"{step.place or 'the model'}: {name} {reason}.")


def _check_depth(step: Step, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise step.refuse(f"there are more than {DEPTH_MAX} pipelines within each other")


def _to_matrix(step: Step, x: Symbolic) -> SymbolicMatrix:
    """Return the input of a step as a matrix, all of whose columns it receives."""
    if isinstance(x, RowSource):
        matrix = x.to_matrix(step)
        x.inputs.mark_read()
        return matrix
    if isinstance(x, SingleColumn):
        raise step.refuse("its input must be a list of columns, and is one column")
    return x


def _named_steps(step: Step, name: str) -> list[NamedPart]:
    """Return the names and parts of a list of steps."""
    steps = step.listed(name)
    if not steps or any(
        not isinstance(one, tuple | list) or len(one) < 2 or not isinstance(one[0], str)  # noqa: PLR2004
        for one in steps
    ):
        raise step.refuse("its steps are not names and estimators")
    return [(one[0], one[1]) for one in steps]


def _run_steps(step: Step, steps: Sequence[NamedPart], x: Symbolic, depth: int) -> Symbolic:
    for name, part in steps:
        if part is None or part == PASSTHROUGH:
            continue
        child = step.child(part, name)
        # Samplers of imbalanced-learn only act in training.
        if child.part.package == "imblearn" and child.name not in PLUMBING:
            continue
        x = transform(child, x, depth + 1)
    return x


def _unite(step: Step, x: Symbolic, depth: int) -> SymbolicMatrix:
    """Return the columns of `FeatureUnion`, side by side."""
    parts = []
    weights = step.get("transformer_weights") or {}
    for name, part in _named_steps(step, "transformer_list"):
        if part == DROP:
            continue
        made = x if part == PASSTHROUGH else transform(step.child(part, name), x, depth + 1)
        parts.append(_weighted(step, _to_matrix(step, made), weights.get(name)))
    return SymbolicMatrix.side_by_side(parts)


def _weighted(step: Step, matrix: SymbolicMatrix, weight: PlainValue) -> SymbolicMatrix:
    if weight is None:
        return matrix
    if isinstance(weight, bool) or not isinstance(weight, int | float | np.number) or not np.isfinite(weight):
        raise step.refuse("a weight is not a number")
    return matrix.scale(np.full(matrix.width, float(weight)), np.zeros(matrix.width))


def _transform_columns(step: Step, x: Symbolic, depth: int) -> SymbolicMatrix:
    """Return the columns of `ColumnTransformer`, side by side."""
    if isinstance(x, SingleColumn):
        raise step.refuse("its input is one column")
    matrix = x.to_matrix(step) if isinstance(x, RowSource) else x
    indices = step.need("_transformer_to_input_indices")
    if not isinstance(indices, dict):
        raise step.refuse("its columns are not known")
    weights = step.get("transformer_weights") or {}
    parts = []
    for entry in step.listed("transformers_"):
        if not isinstance(entry, tuple | list) or len(entry) != 3:  # noqa: PLR2004  # name, transformer, columns
            raise step.refuse("its transformers are not names, estimators and columns")
        name, part, columns = entry
        chosen = _column_numbers(step, indices.get(name), matrix.width)
        if part == DROP or not chosen:
            continue
        taken = _take_columns(matrix.select(chosen), is_single=isinstance(columns, str | int | np.integer))
        made = taken if part == PASSTHROUGH else transform(step.child(part, name), taken, depth + 1)
        parts.append(_weighted(step, _to_matrix(step, made), weights.get(name)))
    if not parts:
        raise step.refuse("it keeps no column")
    return SymbolicMatrix.side_by_side(parts)


def _take_columns(taken: SymbolicMatrix, *, is_single: bool) -> SymbolicMatrix | SingleColumn:
    """Return columns as a transformer receives them, and note that it reads them."""
    for block in taken.blocks:
        if isinstance(block, NumberBlock):
            block.inputs.mark_read(block.indices.tolist())
    first = taken.blocks[0]
    return SingleColumn(first) if is_single and isinstance(first, NumberBlock) else taken


def _column_numbers(step: Step, listed: PlainValue, width: int) -> list[int]:
    if isinstance(listed, np.ndarray):
        listed = listed.tolist()
    if not isinstance(listed, list | tuple) or not all(isinstance(one, int) and 0 <= one < width for one in listed):
        raise step.refuse("it takes columns that its input does not have")
    return list(listed)


PLUMBING: Final[Mapping[str, Callable[[Step, Symbolic, int], Symbolic]]] = {
    "ColumnTransformer": _transform_columns,
    "FeatureUnion": _unite,
    "FunctionTransformer": _function,
    "Pipeline": _pipeline,
}
# The classes by name that a pipeline may have.
KNOWN_CLASSES: Final = frozenset((*HEADS, *MATRIX_STEPS, *PLUMBING, *ROW_STEPS, *SEARCHES, *SELECTORS, ONE_VS_REST))
