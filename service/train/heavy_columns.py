"""The columns that decide most for each class: by weight times the root mean square of the column."""

from typing import Final, NamedTuple

import numpy as np

from service.fields.column_names import name_column
from service.fields.row_encoder import RowEncoder
from service.softmax.arrays import Doubles

# Columns that are shown of each class, and classes that are shown.
COLUMNS_SHOWN: Final = 8
CLASSES_SHOWN: Final = 12


class HeavyColumn(NamedTuple):
    """A column of a class.

    Attributes:
        name: Its name, as explanations show it.
        effect: Its weight, times the root of the mean of its squares over the rows that are trained on.
    """

    name: str
    effect: float


def list_heavy_columns(
    encoder: RowEncoder, weights: Doubles, mean_squares: Doubles, classes: tuple[str, ...]
) -> dict[str, list[HeavyColumn]]:
    """Return the heaviest columns of each class, those with the largest effect first.

    Args:
        encoder: The encoder of the model's rows.
        weights: (N, K) float64 of a linear model; K = 1 for the head sigmoid, whose logit is of the second class.
        mean_squares: (N,) the mean square of each column over the rows that are trained on.
        classes: The names of the classes.
    """
    shown = classes[1:] if weights.shape[1] == 1 else classes
    effects = weights * np.sqrt(mean_squares)[:, None]
    found = {}
    for k, name in enumerate(shown[:CLASSES_SHOWN]):
        order = np.lexsort((np.arange(len(effects)), -np.abs(effects[:, k])))[:COLUMNS_SHOWN]
        found[name] = [
            HeavyColumn(name_of_column(encoder, int(j)), float(effects[j, k])) for j in order if effects[j, k] != 0
        ]
    return found


def name_of_column(encoder: RowEncoder, column: int) -> str:
    """Return the name of one of all columns."""
    f = encoder.find_field(column)
    field = encoder.fields[f]
    number = column - encoder.blocks[f].start
    return name_column(field, number, encoder.count_values(field), encoder.terms.get(field.name, ()))
