"""A .skops file as a source that can be asked: scikit-learn answers in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np

from service.convert.converted_model import Doubles, Row
from service.convert.scikit.row_layout import RowLayout
from service.errors import ConversionError

MODULE: Final = "service.convert.scikit.skops_answers"
# Where the package `service` is, also if it is not installed.
ROOT: Final = Path(__file__).parents[3]
# Starting scikit-learn takes seconds, and a large file some more.
SECONDS_MAX: Final = 600


class SkopsProcess:
    """A pipeline in a .skops file, which skops loads in another process.

    Args:
        path: The file.
        layout: The input of the pipeline.
        python: An interpreter that has scikit-learn and skops.
    """

    def __init__(self, path: Path, layout: RowLayout, python: str = sys.executable) -> None:
        self._path: Final = path
        self._layout: Final = layout
        self._python: Final = python

    def predict_rows(self, rows: Sequence[Row]) -> Doubles:
        """Return the probabilities (B, C) of B rows.

        Raises:
            ConversionError: scikit-learn, skops or pandas are missing, or they cannot read the file or its rows.
        """
        request = {"file": str(self._path.resolve()), "layout": asdict(self._layout), "rows": list(rows)}
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        try:
            done = subprocess.run(  # noqa: S603  # a module of ours
                [self._python, "-P", "-m", MODULE],
                input=json.dumps(request),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                capture_output=True,
                text=True,
                timeout=SECONDS_MAX,
                check=False,
            )
            answered = json.loads(done.stdout) if done.returncode == 0 else _fail(done.stderr)
        except (OSError, subprocess.TimeoutExpired, ValueError):
            raise ConversionError("scikit-learn cannot be asked; give its probabilities with --expected") from None
        if isinstance(answered, str):
            raise ConversionError(answered)
        return np.array(answered, np.float64)


def _fail(errors: str) -> object:
    """Raise ConversionError with the remedy."""
    if any(f"No module named '{package}'" in errors for package in ("skops", "sklearn", "pandas")):
        raise ConversionError(
            'scikit-learn answers for the source and needs more packages: pip install "softstep[convert]", or give '
            "its probabilities with --expected"
        )
    raise ConversionError(
        "the installed scikit-learn cannot use this file; give its probabilities with --expected, or install the "
        "release that made it"
    )
