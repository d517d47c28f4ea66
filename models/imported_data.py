"""The data sets of the imported models: scikit-learn's wines, the names of characters in Python, river's sunspots."""

import csv
import io
import sys
import unicodedata
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split

Row = dict[str, Any]

SEED = 0
HELD_OUT = 0.25
# Each Python has the same characters of this version, whatever its own one is.
UNICODE = unicodedata.ucd_3_2_0
GROUPS = {"L": "letter", "M": "mark", "N": "number", "P": "punctuation", "S": "symbol"}
# Names that are computed of a number have no words to learn.
COMPUTED = ("CJK UNIFIED IDEOGRAPH-", "CJK COMPATIBILITY IDEOGRAPH-", "HANGUL SYLLABLE ")
# The columns of river's sunspots by namespace. largest-spot-area has one value in all rows.
SUNSPOTS = {
    "spot": ("zurich-class", "largest-spot-size", "spot-distribution", "area"),
    "history": ("activity", "evolution", "previous-24h-flare-activity", "hist-complex", "hist-complex-this-pass"),
}


@dataclass(frozen=True)
class ImportedData:
    """One data set, whose rows are objects.

    Attributes:
        rows: The rows.
        y: (B,) class indices.
        classes: K names, in the order of the label indices.
        origin: The source of the data, for the manifest.
    """

    rows: Sequence[Row]
    y: NDArray[np.int64]
    classes: tuple[str, ...]
    origin: dict[str, str]

    @cached_property
    def split(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The numbers of the rows to train on, and of those that are held out: stratified, by a fixed seed."""
        numbers = np.arange(len(self.y))
        train, test = train_test_split(numbers, test_size=HELD_OUT, stratify=self.y, random_state=SEED)
        return train, test

    @property
    def trained_rows(self) -> list[Row]:
        """The rows to train on."""
        return [self.rows[i] for i in self.split[0]]

    @property
    def trained_y(self) -> NDArray[np.int64]:
        """The class indices of the rows to train on."""
        return self.y[self.split[0]]

    @property
    def held_out_rows(self) -> list[Row]:
        """The rows that are held out."""
        return [self.rows[i] for i in self.split[1]]

    @property
    def held_out_y(self) -> NDArray[np.int64]:
        """The class indices of the rows that are held out."""
        return self.y[self.split[1]]


def _wine() -> ImportedData:
    bunch = load_wine()
    names = [str(name) for name in bunch.feature_names]
    rows = [dict(zip(names, row, strict=True)) for row in bunch.data.tolist()]
    origin = {
        "data_set": "Wine (Aeberhard and Forina, 1991)",
        "licence": "CC BY 4.0",
        "wheel": f"scikit-learn {version('scikit-learn')}",
        "file": "sklearn/datasets/data/wine_data.csv",
    }
    return ImportedData(rows, bunch.target.astype(np.int64), tuple(map(str, bunch.target_names)), origin)


def _characters() -> ImportedData:
    classes = tuple(sorted(GROUPS.values()))
    rows, y = [], []
    for character in map(chr, range(sys.maxunicode + 1)):
        group = GROUPS.get(UNICODE.category(character)[0])
        name = UNICODE.name(character, "")
        if group is None or not name or name.startswith(COMPUTED):
            continue
        width, direction = UNICODE.east_asian_width(character), UNICODE.bidirectional(character)
        rows.append({"name": name, "width": width, "direction": direction})
        y.append(classes.index(group))
    origin = {
        "data_set": "Names of the characters of Unicode 3.2 (Unicode Character Database)",
        "licence": "Unicode License v3",
        "wheel": "Python's standard library",
        "file": "unicodedata.ucd_3_2_0",
    }
    return ImportedData(rows, np.array(y), classes, origin)


def _flares() -> ImportedData:
    with zipfile.ZipFile(io.BytesIO(files("river").joinpath("datasets", "solar-flare.csv.zip").read_bytes())) as packed:
        text = packed.read(packed.namelist()[0]).decode()
    records = list(csv.DictReader(text.splitlines()))
    rows = [
        {space: [f"{column}={record[column]}" for column in columns] for space, columns in SUNSPOTS.items()}
        for record in records
    ]
    y = np.array([int(record["c-class-flares"]) > 0 for record in records], np.int64)
    origin = {
        "data_set": "Solar Flare (Bradshaw, 1989), from the UCI Machine Learning Repository",
        "licence": "CC BY 4.0",
        "wheel": f"river {version('river')}",
        "file": "river/datasets/solar-flare.csv.zip",
    }
    return ImportedData(rows, y, ("quiet", "flare"), origin)


IMPORTED_DATA: dict[str, Callable[[], ImportedData]] = {"wine": _wine, "characters": _characters, "flares": _flares}
