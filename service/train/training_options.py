"""The options of `softstep train`: what they are, and how their texts are parsed."""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from service.errors import TrainingError

# Strengths that differ by ten each; one of them is near the best one for most data.
STRENGTHS: Final = (0.1, 1.0, 10.0, 100.0)
STRENGTHS_MAX: Final = 32
# As for the layers of a manifest.
HIDDEN_MAX: Final = 127
WIDTH_MAX: Final = 16_384
SEED_MAX: Final = 2**63 - 1


@dataclass(frozen=True)
class TrainingOptions:
    """How a model is trained.

    Attributes:
        data: The file of rows.
        label: The column of labels.
        separator: The text between several labels of one value of CSV; None if a row has one.
        delimiter: The character between values of CSV, or None for that of the file's name.
        weight: The column of the weights of rows, or None.
        balance: Whether all classes get the same weight.
        hold_out: How rows are chosen that are held out.
        seed: The seed of that choice and of first weights.
        strengths: The values of C, the inverse strength of the penalty.
        hidden: The widths of hidden layers.
    """

    data: Path
    label: str
    separator: str | None = None
    delimiter: str | None = None
    weight: str | None = None
    balance: bool = False
    hold_out: Literal["hash", "last"] = "hash"
    seed: int = 0
    strengths: tuple[float, ...] = STRENGTHS
    hidden: tuple[int, ...] = ()

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> "TrainingOptions":
        """Return the options of a command line."""
        return cls(
            data=arguments.file,
            label=arguments.label,
            separator=arguments.label_separator,
            delimiter=arguments.delimiter,
            weight=arguments.weight,
            balance=arguments.balance,
            hold_out=arguments.hold_out,
            seed=arguments.seed,
            strengths=arguments.c,
            hidden=arguments.hidden,
        )


def add_train_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `softstep train`."""
    train = commands.add_parser("train", help="train a model on a file of rows: CSV, JSON Lines or Parquet")
    train.add_argument("file", type=Path, metavar="DATA", help="file of rows: .csv, .tsv, .jsonl, .ndjson or .parquet")
    train.add_argument("--label", required=True, metavar="COLUMN", help="column of the labels")
    train.add_argument("--name", help="name of the model; needed unless --dry-run")
    train.add_argument("--models", type=Path, help="directory of models/<name>/<version>/")
    train.add_argument("--dry-run", action="store_true", help="print the fields, write fields.json, and stop")
    train.add_argument("--fields", type=Path, metavar="FILE", help="fields to use, such as an edited fields.json")
    train.add_argument("--weight", metavar="COLUMN", help="column of the weights of rows; default: 1 each")
    train.add_argument("--balance", action="store_true", help="give all classes the same weight")
    train.add_argument(
        "--c",
        type=_parsed(parse_strengths),
        default=STRENGTHS,
        metavar="C,…",
        help="inverse strengths of the penalty, of which the best one is kept; default: 0.1,1,10,100",
    )
    train.add_argument(
        "--hidden", type=_parsed(parse_widths), default=(), metavar="WIDTH,…", help="hidden layers; default: none"
    )
    train.add_argument(
        "--hold-out",
        choices=("hash", "last"),
        default="hash",
        help="hold out a tenth of the rows by a hash, or the last",
    )
    train.add_argument("--seed", type=_parsed(parse_seed), default=0, help="seed of all chance; default: 0")
    train.add_argument("--label-separator", metavar="TEXT", help="text between several labels of one value of CSV")
    train.add_argument("--delimiter", help="character between the values of CSV; default: a comma, or a tab for .tsv")


def parse_strengths(text: str) -> tuple[float, ...]:
    """Return positive numbers that are separated by commas."""
    try:
        strengths = tuple(float(part) for part in text.split(","))
    except ValueError:
        strengths = ()
    if not all(0 < strength < math.inf for strength in strengths) or not 1 <= len(set(strengths)) <= STRENGTHS_MAX:
        raise TrainingError(f"write 1 to {STRENGTHS_MAX} positive numbers, separated by commas")
    return tuple(dict.fromkeys(strengths))


def parse_widths(text: str) -> tuple[int, ...]:
    """Return widths of hidden layers that are separated by commas."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() and 1 <= int(part) <= WIDTH_MAX for part in parts) or len(parts) > HIDDEN_MAX:
        raise TrainingError(f"write up to {HIDDEN_MAX} whole numbers from 1 to {WIDTH_MAX}, separated by commas")
    return tuple(int(part) for part in parts)


def parse_seed(text: str) -> int:
    """Return a whole number from 0 to 2**63 - 1."""
    if not text.isdecimal() or not 0 <= int(text) <= SEED_MAX:
        raise TrainingError("write a whole number from 0 to 2**63 - 1")
    return int(text)


def _parsed(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a parser whose errors argparse shows."""

    def parse_text(text: str) -> Any:  # noqa: ANN401  # what the parser returns
        try:
            return parse(text)
        except TrainingError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse_text
