"""Random pipelines of every part that can be converted give the probabilities of scikit-learn."""

import warnings

import pytest

from service.convert.proof import SourceComparison, prove
from service.convert.scikit.estimator import convert_estimator
from service.convert.scikit.pipeline_source import PipelineSource
from service.convert.scikit.plain_object import plain_object
from service.convert.scikit.row_layout import RowLayout
from tests.support.converted_models import predict_in_float64
from tests.support.scikit_pipelines import fit_pipeline

# Two of numbers, columns, texts and bags each, and some that were wrong once.
SEEDS = [*range(8), 9, 25, 28, 68]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_pipeline_is_converted(seed: int) -> None:
    """In float64 the difference is one of rounding, and the artifact in float32 is near."""
    estimator = fit_pipeline(seed).estimator
    model, inputs = convert_estimator(plain_object(estimator))
    source = PipelineSource(estimator, RowLayout.of_model(model, inputs))
    with warnings.catch_warnings():
        # scikit-learn warns of unknown categories.
        warnings.simplefilter("ignore")
        for rows in SourceComparison(model, seed).generate_blocks():
            assert abs(source.predict_rows(rows) - predict_in_float64(model, rows)).max() < 1e-9
        assert prove(model, source, seed=seed).difference < 1e-5
