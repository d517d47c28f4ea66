"""Parse the variants of `softstep whatif`; nothing heavy is imported, because each command parses its command line.

A variant is options, or one text of words: "rule=ftrl rate=0.1 without=ids.txt". The words `rule`, `without`, `labels`
and `keep` are what the options of the same names are; every other word is a constant. Quotes protect spaces, as in a
shell.
"""

import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from service.errors import SoftstepError

IDS_SHOWN: Final = 40  # characters of a list of ids, so that a table fits into a line
WORDS: Final = ("rule", "without", "labels", "keep")


@dataclass(frozen=True)
class VariantOptions:
    """The changes of a variant as the command line has them.

    Attributes:
        rule: The name of the rule, or None.
        constants: Constants by name.
        without: A file of ids or ids separated by commas, or None.
        labels: A file of ids with their labels, or None.
        keep: The folder to write the variant to as an artifact, or None.
    """

    rule: str | None = None
    constants: Mapping[str, float] = field(default_factory=dict)
    without: str | None = None
    labels: Path | None = None
    keep: Path | None = None

    @property
    def name(self) -> str:
        """The changes in the form of a text, with the names of files and without `keep`; empty if there are none."""
        without, labels = self.without, self.labels
        if without is not None:
            without = without.rpartition("/")[2]
            without = without if len(without) <= IDS_SHOWN else f"{without[: IDS_SHOWN - 1]}…"
        words = {"rule": self.rule, **{name: f"{value:g}" for name, value in self.constants.items()}}
        words |= {"without": without, "labels": None if labels is None else labels.name}
        return " ".join(f"{name}={value}" for name, value in words.items() if value is not None)


def parse_variant(text: str) -> VariantOptions:
    """Return the variant of a text.

    Raises:
        SoftstepError: A word is no `name=value`, is given twice, or a constant is no number.
    """
    try:
        pairs = [word.partition("=") for word in shlex.split(text)]
    except ValueError:
        raise SoftstepError("a quote of a variant is not closed") from None
    words = _unique((name, value) for name, _, value in pairs)
    labels, keep = words.get("labels"), words.get("keep")
    if words.keys() <= {"keep"}:
        raise SoftstepError("a variant needs a change besides keep")
    return VariantOptions(
        rule=words.get("rule"),
        constants=_numbers({name: value for name, value in words.items() if name not in WORDS}),
        without=words.get("without"),
        labels=None if labels is None else Path(labels),
        keep=None if keep is None else Path(keep),
    )


def parse_constants(text: str) -> dict[str, float]:
    """Return the constants of a text like "rate=0.1,beta=2".

    Raises:
        SoftstepError: A part is no `name=number`, or a constant is given twice.
    """
    pairs = (part.partition("=") for part in text.split(","))
    return _numbers(_unique((name.strip(), value) for name, _, value in pairs))


def _unique(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    words: dict[str, str] = {}
    for name, value in pairs:
        if not name or not value:
            raise SoftstepError("write each change as name=value")
        if name in words:
            raise SoftstepError("a name is given twice")
        words[name] = value
    if not words:
        raise SoftstepError("write each change as name=value")
    return words


def _numbers(words: Mapping[str, str]) -> dict[str, float]:
    try:
        numbers = {name: float(value) for name, value in words.items()}
    except ValueError:
        raise SoftstepError("the value of a constant must be a number") from None
    if not all(map(math.isfinite, numbers.values())):
        raise SoftstepError("the value of a constant must be a number")
    return numbers
