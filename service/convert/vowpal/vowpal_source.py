"""Vowpal Wabbit as a source that can be asked: it gets the weights of the file, and hashes and adds up by itself."""

import json
import math
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from service.convert.converted_model import Doubles, Row
from service.convert.head_probabilities import to_probabilities
from service.convert.source_options import ReadSource, SourceOptions
from service.convert.vowpal.vowpal_fields import VowpalModel
from service.errors import ConversionError

SCRIPT: Final = Path(__file__).with_name("score_rows.py")
# Starting it takes a second, and 10 million weights some ten more.
SECONDS_MAX: Final = 600
# Vowpal Wabbit cuts logits at -50 and 50; a cut sum would not show what it is.
WITHOUT_CUT: Final = ("--min_prediction", "-1e30", "--max_prediction", "1e30", "--loss_function", "logistic")
# Characters that separate the parts of a line.
SEPARATORS: Final = frozenset(" :|\n\r\t")


def read_vowpal_source(path: Path, options: SourceOptions) -> ReadSource:
    """Read a readable model of Vowpal Wabbit.

    Raises:
        ConversionError: It cannot be converted.
    """
    model = VowpalModel(path, options.namespaces, options.classes)
    return ReadSource(model.convert(), VowpalSource(model), f"Vowpal Wabbit {model.file.version}")


class VowpalSource:
    """Vowpal Wabbit with the weights of a readable model.

    Args:
        model: The readable model.
        python: An interpreter that has the package vowpalwabbit.
    """

    def __init__(self, model: VowpalModel, python: str = sys.executable) -> None:
        self._model: Final = model
        self._python: Final = python

    def predict_rows(self, rows: Sequence[Row]) -> Doubles:
        """Return the probabilities (B, C) of rows.

        Raises:
            ConversionError: Vowpal Wabbit is not there or fails, or a name cannot be written in its format.
        """
        model = self._model
        request = {
            "options": ["-b", str(model.file.bits), *WITHOUT_CUT, *model.options.words],
            "indices": model.file.indices.tolist(),
            "weights": model.file.weights.tolist(),
            "examples": [self._write_line(row) for row in rows],
        }
        Z = np.array(self._ask(json.dumps(request)), np.float64)
        if Z.shape != (len(rows), max(1, model.options.n_classes)):
            raise ConversionError("Vowpal Wabbit answers something else than scores")
        return to_probabilities(Z, "ovr" if model.options.n_classes else "sigmoid")

    def _ask(self, request: str) -> object:
        """Return what the script answers."""
        command = [self._python, "-P", str(SCRIPT)]
        try:
            done = subprocess.run(  # noqa: S603  # a script of ours
                command, input=request, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
            )
            return json.loads(done.stdout) if done.returncode == 0 else _fail(done.stderr)
        except (OSError, subprocess.TimeoutExpired, ValueError):
            raise ConversionError("Vowpal Wabbit cannot be asked; give its probabilities with --expected") from None

    def _write_line(self, row: Row) -> str:
        """Return a row as a line of Vowpal Wabbit's text format."""
        parts = []
        for namespace, name in self._model.fields.items():
            bag = row.get(name)
            if bag:
                features = bag.items() if isinstance(bag, Mapping) else ((feature, 1.0) for feature in bag)
                parts.append(f"|{namespace} {' '.join(_write_features(features))}")
        return " ".join(parts) or "|"


def _write_features(features: Iterable[tuple[str, float]]) -> Iterator[str]:
    for name, value in features:
        if not name or SEPARATORS & set(name) or not math.isfinite(value):
            raise ConversionError("a name of a row is empty, or has white space, a colon or a bar; no line can have it")
        yield f"{name}:{float(value)!r}"


def _fail(errors: str) -> object:
    """Raise ConversionError with the remedy."""
    if "No module named" in errors:
        raise ConversionError(
            'Vowpal Wabbit is not installed here; pip install "vowpalwabbit", or give its probabilities with --expected'
        )
    raise ConversionError("Vowpal Wabbit cannot read the model; give its probabilities with --expected")
