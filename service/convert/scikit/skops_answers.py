"""A process of its own that answers rows with scikit-learn: `python -m service.convert.scikit.skops_answers`.

It reads one JSON object from standard input, with the path of a .skops file, the layout of its input and rows, and
writes the probabilities as JSON. skops loads the file, with the classes of our table as the only trusted ones.
"""

import json
import sys
import warnings
from typing import Final

import numpy as np
import skops.io

from service.convert.scikit.pipeline import KNOWN_CLASSES, PACKAGES
from service.convert.scikit.pipeline_source import asked_by_pairs
from service.convert.scikit.row_layout import LayoutColumn, RowLayout

# What fitted classifiers hold beside estimators, and skops does not trust by itself.
TRUSTED: Final = frozenset((
    "numpy.dtype",
    "sklearn.compose._column_transformer._RemainderColsList",
    "sklearn.compose._column_transformer.make_column_selector",
    "sklearn.feature_selection._univariate_selection.chi2",
    "sklearn.feature_selection._univariate_selection.f_classif",
    "sklearn.feature_selection._mutual_info.mutual_info_classif",
    "sklearn.metrics._scorer._PassthroughScorer",
    "sklearn.metrics._scorer._Scorer",
    "sklearn.model_selection._split.KFold",
    "sklearn.model_selection._split.StratifiedKFold",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
))  # fmt: skip


def is_trusted(name: str) -> bool:
    """Return whether a class may be loaded, by its full name."""
    return name in TRUSTED or (name.partition(".")[0] in PACKAGES and name.rpartition(".")[2] in KNOWN_CLASSES)


def answer(request: dict[str, object]) -> object:
    """Return the probabilities of the rows of a request, or a sentence."""
    path = str(request["file"])
    untrusted = skops.io.get_untrusted_types(file=path)
    if not all(map(is_trusted, untrusted)):
        return "the file names a class that is not trusted"
    layout = dict(request["layout"])  # type: ignore[call-overload]
    columns = [LayoutColumn(*column) for column in layout.pop("columns")]
    rows = request["rows"]
    with warnings.catch_warnings():
        # The file may be of another release.
        warnings.simplefilter("ignore")
        model = skops.io.load(path, trusted=untrusted)
        with asked_by_pairs(model):
            P = model.predict_proba(RowLayout(columns=columns, **layout).to_input(rows))  # type: ignore[arg-type]
    return np.asarray(P, np.float64).tolist()


def main() -> None:
    """Answer the request on standard input."""
    json.dump(answer(json.load(sys.stdin)), sys.stdout)


if __name__ == "__main__":
    main()
