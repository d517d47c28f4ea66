"""The weights of one category of a row, and their sum where several encoders read it."""

from collections.abc import Iterable
from typing import NamedTuple

from service.convert.columns.category_reading import CategoryKey, category_key
from service.fields.field_records import Category
from service.softmax.arrays import Doubles


class CategoryWeights(NamedTuple):
    """The weights of a category.

    Attributes:
        values: The V listed categories.
        rows: (V + 2, K) float64: the weights of each, of another category, and of a missing one.
        refuses_unknown: Whether another category is refused.
        refuses_missing: Whether a missing one is refused.
        fill: The category that stands for a missing one, or None.
    """

    values: tuple[Category, ...]
    rows: Doubles
    refuses_unknown: bool = False
    refuses_missing: bool = False
    fill: Category | None = None

    @property
    def keys(self) -> dict[CategoryKey, Category]:
        """The listed categories by their keys."""
        return {category_key(value): value for value in self.values}

    def join(self, other: "CategoryWeights") -> "CategoryWeights":
        """Return the sum of both, with the categories that one of them lists and none of them refuses."""
        listed = self.keys | other.keys
        for weights in (self, other):
            if weights.refuses_unknown:
                own = weights.keys
                listed = {key: value for key, value in listed.items() if key in own}
        fill = self.fill if self.fill is not None and self.fill == other.fill else None
        return CategoryWeights(
            tuple(listed.values()),
            self.take(listed) + other.take(listed),
            self.refuses_unknown or other.refuses_unknown,
            self.refuses_missing or other.refuses_missing,
            fill if fill is None or category_key(fill) in listed else None,
        )

    def take(self, keys: Iterable[CategoryKey]) -> Doubles:
        """Return the rows of these categories, of another one, and of a missing one."""
        places = {key: row for row, key in enumerate(self.keys)}
        unknown = len(places)
        return self.rows[[*(places.get(key, unknown) for key in keys), unknown, unknown + 1]]
