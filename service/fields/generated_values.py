"""Values of each kind of field for generated rows: usual ones, unknown ones and extremes.

Numbers have at most 21 binary digits, so that they are exact in float32 and short to read.
"""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from service.fields.field_list import ValueRecord
from service.fields.field_records import BooleanField, Category, CategoryField, NumberField, VectorField
from service.fields.row_encoder import RowEncoder
from service.fields.scalar_encoders import VectorEncoder
from service.fields.text_records import BagField, TextField
from service.record import ROWS_MAX

Element = TypeVar("Element")

# A usual number is rounded to a 16th of its scale, or to so many binary digits if that is coarser.
STEPS_OF_A_SCALE: Final = 16
DIGITS_MAX: Final = 20
# Numbers of float64 whose products with a step are finite, and not 0.
NUMBER_MAX, SMALLEST = 1e300, 1e-300
# Scales from the mean of an extreme number. Further out a float32 source has lost what the other numbers add.
EXTREMES: Final = (10, -10, 1000, -1000, 0.001)
# Words of a usual text, and of a long one; names of a usual bag, and of a large one.
USUAL_WORDS, LONG_WORDS = 12, 400
USUAL_NAMES, MANY_NAMES = 5, 60
# Words that a model may know or not, among them some that are easily split, lower-cased or encoded wrong. A name of
# a bag has neither white space, colon nor bar, which the text format of Vowpal Wabbit keeps for itself.
WORDS: Final = (
    *("the", "a", "refund", "Order", "late", "x_1", "42", "007", "don't", "e-mail", "ÜBER", "naïve", "straße", "I"),
    *("e\u0301t\u00e9", "İstanbul", "ﬁne", "東京", "привет", "नमस्ते", "😀", "👨\u200d👩\u200d👧", "-", "a=b", "_"),
)
SPACES: Final = (" ", " ", " ", " ", "  ", "\t", "\n", "\xa0", "\u2003", ", ", ". ", "! ")
# A bag's numbers.
AMOUNTS: Final = (1, 1, 1, 2, 3, 0.5, 0.125, -1, 0)
LARGE_AMOUNTS: Final = (100, -100, 0.0009765625)


class Chance:
    """Random choices that are the same on every system and for every release of Python.

    Args:
        seed: The seed.
    """

    def __init__(self, seed: int) -> None:
        self._random: Final = random.Random(seed).random  # noqa: S311  # no secret

    def happens(self, probability: float) -> bool:
        """Return whether an event of this probability happens."""
        return self._random() < probability

    def below(self, count: int) -> int:
        """Return a number from 0 to before `count`."""
        return int(self._random() * count)

    def pick(self, elements: Sequence[Element]) -> Element:
        """Return one of the elements."""
        return elements[self.below(len(elements))]

    def spread(self) -> float:
        """Return a number around 0 with a standard deviation of 1: twice the centered sum of three uniform ones."""
        return 2 * (self._random() + self._random() + self._random() - 1.5)


class ValueMaker:
    """Makes values that a field accepts.

    Args:
        encoder: The encoder of the model's rows.
        words: By a field's name, words of a text or names of a bag that the model knows; those of a field with terms
            are known already.
    """

    def __init__(self, encoder: RowEncoder, words: Mapping[str, Sequence[str]]) -> None:
        self._encoder: Final = encoder
        self._words: Final[Mapping[str, Sequence[str]]] = {**words, **encoder.terms}

    def make(self, field: ValueRecord, chance: Chance, *, extreme: bool) -> Any:  # noqa: ANN401  # any kind
        """Return a value of a field.

        Args:
            field: The field.
            chance: Chooses the value.
            extreme: Whether it is an extreme value instead of a usual one.
        """
        match field:
            case NumberField():
                return make_number(field.mean, field.scale, field.clip, chance, extreme=extreme)
            case BooleanField():
                return chance.happens(0.5)
            case CategoryField():
                return self._make_category(field, chance, extreme=extreme)
            case TextField():
                return self._make_text(field, chance, extreme=extreme)
            case BagField():
                return self._make_bag(field, chance, extreme=extreme)
            case VectorField():
                return self._make_vector(field, chance, extreme=extreme)

    def make_unknown(self, field: ValueRecord, chance: Chance) -> Any:  # noqa: ANN401  # any kind
        """Return a value that a field does not know, or an extreme one if it knows all or refuses others."""
        if isinstance(field, CategoryField) and field.values is not None and field.unknown != "refuse":
            return make_unknown_category(field.values, chance)
        if isinstance(field, BagField) and field.terms is not None and field.unknown != "refuse":
            return {chance.pick(WORDS): chance.pick(AMOUNTS), "unknown": 1}
        if isinstance(field, TextField):
            return chance.pick(WORDS) + chance.pick(SPACES) + "unknown"
        return self.make(field, chance, extreme=True)

    def _make_category(self, field: CategoryField, chance: Chance, *, extreme: bool) -> Category:
        if field.values is not None:
            return chance.pick(field.values)
        if extreme:
            odd: tuple[Category, ...] = ("", True, False, chance.below(1 << 40), -7, " ")
            return chance.pick(odd)
        return chance.pick(WORDS)

    def _make_text(self, field: TextField, chance: Chance, *, extreme: bool) -> str:
        shape = chance.below(5) if extreme else 5
        if shape < 2:  # noqa: PLR2004  # two of five
            return ("", chance.pick(SPACES) * 3)[shape]
        words = LONG_WORDS if shape == 2 else USUAL_WORDS  # noqa: PLR2004
        terms = self._words.get(field.name, ())
        known = 0.2 if extreme else 0.8
        parts = []
        for _ in range(1 + chance.below(words)):
            word = chance.pick(terms) if terms and chance.happens(known) else chance.pick(WORDS)
            parts.append(word.upper() if chance.happens(0.1) else word)
            parts.append(chance.pick(SPACES) if extreme else " ")
        return "".join(parts[:-1])

    def _make_bag(self, field: BagField, chance: Chance, *, extreme: bool) -> dict[str, float] | list[str]:
        terms = self._words.get(field.name, ())
        names = list(terms[:]) if len(terms) <= USUAL_NAMES else [chance.pick(terms) for _ in range(MANY_NAMES)]
        known = 1.0 if field.unknown == "refuse" else 0.8
        count = chance.below(MANY_NAMES if extreme else USUAL_NAMES + 1)
        drawn = [
            chance.pick(names) if names and chance.happens(known) else f"{chance.pick(WORDS)}{chance.pick(('', '2'))}"
            for _ in range(count)
        ]
        if chance.happens(0.2):
            return drawn
        amounts = AMOUNTS + LARGE_AMOUNTS if extreme else AMOUNTS
        return {name: chance.pick(amounts) for name in drawn}

    def _make_vector(self, field: VectorField, chance: Chance, *, extreme: bool) -> list[float]:
        encoder = self._encoder.encoders[field.name]
        if not isinstance(encoder, VectorEncoder):
            raise TypeError("a vector has another encoder")
        size = field.size
        means, scales = ([x] * size if isinstance(x, float) else x.tolist() for x in (encoder.mean, encoder.scale))
        odd = chance.below(size) if extreme else -1
        return [
            make_number(mean, scale, field.clip, chance, extreme=i == odd)
            for i, (mean, scale) in enumerate(zip(means, scales, strict=True))
        ]


def make_number(mean: float, scale: float, clip: float | None, chance: Chance, *, extreme: bool) -> float:
    """Return a number around its mean, or an extreme one; it is an int if it is whole."""
    if not extreme:
        return shorten_number(mean + chance.spread() * scale, scale)
    limits = () if clip is None else (clip, -clip, 2 * clip)
    distance = chance.pick((*EXTREMES, *limits, None))
    return 0 if distance is None else shorten_number(mean + distance * scale, scale)


def shorten_number(x: float, scale: float) -> float:
    """Return a number near x of at most 21 binary digits, as an int if it is whole."""
    x = min(max(x, -NUMBER_MAX), NUMBER_MAX)
    size = max(scale / STEPS_OF_A_SCALE, math.ldexp(abs(x), -DIGITS_MAX), SMALLEST)
    step = math.ldexp(0.5, math.frexp(size)[1])  # the power of two at or below the size
    shortened = round(x / step) * step
    return int(shortened) if shortened.is_integer() and abs(shortened) <= ROWS_MAX else shortened


def make_unknown_category(values: Sequence[Category], chance: Chance) -> Category:
    """Return a category that is not one of the values, of one of their types; one of the values if there is none."""
    kinds = {type(value) for value in values}
    candidates: list[Category] = []
    if str in kinds:
        candidates += ["unknown", chance.pick(WORDS)]
    if int in kinds:
        candidates += [10**6 + chance.below(1000), -1]
    if bool in kinds:
        candidates += [True, False]
    known = {(type(value), value) for value in values}
    unknown = [value for value in candidates if (type(value), value) not in known]
    return chance.pick(unknown or values)
