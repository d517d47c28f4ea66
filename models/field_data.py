"""The data sets of the models with fields: files inside the palmerpenguins and emoji wheels."""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

Row = dict[str, Any]

# The languages of the emoji wheel, by their ISO 639-1 codes.
LANGUAGES = ("ar", "de", "es", "fa", "fr", "id", "it", "ja", "ko", "pt", "ru", "tr", "zh")
# A tone of skin is a word of its own in every name, so names with one would be in both parts of the data.
SKIN_TONES = range(0x1F3FB, 0x1F400)
VARIATION_SELECTOR = "\ufe0f"
# More columns than the some 40,000 n-grams of the training set.
BITS = 18

CATEGORIES = ("island", "sex")
MISSING = "NA"


@dataclass(frozen=True)
class FieldData:
    """One data set, whose rows are objects.

    Attributes:
        rows: The rows.
        y: (B,) class indices.
        groups: (B,) the group of each row; a group is either trained on or held out as a whole.
        classes: K names, in the order of the label indices.
        fields: Returns the fields of the manifest, given the rows that are trained on; None if `softstep train` does.
        origin: The source of the data, for the manifest.
    """

    rows: list[Row]
    y: NDArray[np.int64]
    groups: NDArray[np.int64]
    classes: tuple[str, ...]
    fields: Callable[[Sequence[Row]], list[dict[str, Any]]] | None
    origin: dict[str, str]


def _penguins() -> FieldData:
    text = files("palmerpenguins").joinpath("data", "penguins.csv").read_text(encoding="utf-8")
    records = list(csv.DictReader(text.splitlines()))
    classes = tuple(sorted({record["species"] for record in records}))
    rows = [{name: _value(name, text) for name, text in record.items() if name != "species"} for record in records]
    y = np.array([classes.index(record["species"]) for record in records])
    origin = {
        "data_set": "Palmer Archipelago penguins (Horst, Hill and Gorman, 2020)",
        "licence": "CC0 1.0",
        "wheel": f"palmerpenguins {version('palmerpenguins')}",
        "file": "palmerpenguins/data/penguins.csv",
    }
    return FieldData(rows, y, np.arange(len(y)), classes, None, origin)


def _value(name: str, text: str) -> float | str | None:
    """Return the value of a cell, or None for a gap."""
    if text == MISSING:
        return None
    return text if name in CATEGORIES else float(text)


def _languages() -> FieldData:
    folder = files("emoji").joinpath("unicode_codes")
    names = {code: json.loads(folder.joinpath(f"emoji_{code}.json").read_text("utf-8")) for code in LANGUAGES}
    emoji = [one for one in names[LANGUAGES[0]] if not _has_variants(one)]
    rows = [{"text": _plain(names[code][one])} for one in emoji for code in LANGUAGES]
    places = np.arange(len(rows))
    origin = {
        "data_set": f"Names of emoji in {len(LANGUAGES)} languages (Unicode CLDR, as in the package emoji)",
        "licence": "BSD 3-Clause; Unicode License v3",
        "wheel": f"emoji {version('emoji')}",
        "file": "emoji/unicode_codes/emoji_*.json",
    }
    return FieldData(rows, places % len(LANGUAGES), places // len(LANGUAGES), LANGUAGES, _language_fields, origin)


def _has_variants(emoji: str) -> bool:
    """Return whether an emoji has a tone of skin or a variation selector, so that another one has nearly its name."""
    return VARIATION_SELECTOR in emoji or any(ord(character) in SKIN_TONES for character in emoji)


def _plain(name: str) -> str:
    """Return the words of a name such as ":red_heart:"."""
    return name.strip(":").replace("_", " ")


def _language_fields(rows: Sequence[Row]) -> list[dict[str, Any]]:  # noqa: ARG001  # a hash needs no rows
    return [{"name": "text", "kind": "text", "chars": [1, 3], "bits": BITS, "norm": "l2"}]


FIELD_DATA: dict[str, Callable[[], FieldData]] = {"penguins": _penguins, "languages": _languages}
