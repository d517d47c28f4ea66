"""Parse a readable model of Vowpal Wabbit 8 or 9: the file of `--readable_model` or of `--invert_hash`.

    Version 9.11.9                 first line
    Min label:-50                  -50 and 50 with `--loss_function logistic`: where predictions are cut
    Max label:50
    bits:18                        the table has 2**18 weights
    lda:0
    0 ngram:                       a number that is not 0 if n-grams are made
    0 skip:
    options: --quadratic ui        the options that predictions need
    Checksum: 1200793195
    :1                             1 if the state of learning is in the file
    l1_state 0                     the state: lines of a name and a number
    116060:0.145773 1.99668 2      index, weight, and numbers of learning
    user^age:15:1.23641 0.07 0.3   the same with `--invert_hash`: what fell into the weight

Weights of 0 are left out. `l1_state` is a gravity g, and `l2_state` a contraction c: a prediction uses
sign(w) max(|w| - g, 0) c in place of w.
"""

import math
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from service.convert.converted_model import Doubles
from service.convert.source_file import open_source
from service.errors import ConversionError
from service.softmax.arrays import Integers

# Column numbers of a model go up to 2**24, and each class doubles the table at most.
BITS_MAX: Final = 26
# Names of features are lines too; options name all interactions.
LINE_BYTES_MAX: Final = 1 << 16
HEADER_LINES_MAX: Final = 64
NAMESPACES_MAX: Final = 1024
# Names of each namespace that generated rows use.
NAMES_MAX: Final = 64
LOGISTIC_LIMIT: Final = 50.0
BEGINNING: Final = b"Version "
CONSTANT_LABEL: Final = re.compile(rb"Constant(\[[0-9]+\])?")
CLASS_SUFFIX: Final = re.compile(rb"\[[0-9]+\]$")
WEIGHT_LINE: Final = re.compile(rb"(?:(.*):)?([0-9]{1,10}):([^ :]+)(?: .*)?", re.DOTALL)


@dataclass(frozen=True)
class ReadableModel:
    """The content of a readable model.

    Attributes:
        version: The release of Vowpal Wabbit that wrote it.
        bits: The table has 2**bits weights.
        options: The words of its options.
        indices: (E,) int64, the weights that are not 0.
        weights: (E,) float64, as predictions use them.
        names: By namespace, the first names of features in an `--invert_hash` file; "" is the default namespace.
    """

    version: str
    bits: int
    options: tuple[str, ...]
    indices: Integers
    weights: Doubles
    names: Mapping[str, Sequence[str]]


def read_readable_model(path: Path) -> ReadableModel:
    """Read a readable model.

    Raises:
        ConversionError: It is none, is damaged, or makes features that Softstep does not.
    """
    with open_source(path) as file:
        lines = read_lines(file)
        header = dict(read_header(lines))
        bits = check_header(header)
        return read_weights(lines, header, bits)


def read_lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the content of each line."""
    number = 0
    while line := file.readline(LINE_BYTES_MAX + 1):
        number += 1
        if len(line) > LINE_BYTES_MAX:
            raise ConversionError(f"line {number} of the model has more than {LINE_BYTES_MAX} bytes")
        yield number, line.rstrip(b"\r\n")


def read_header(lines: Iterator[tuple[int, bytes]]) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each line up to the one that begins with a colon."""
    for number, line in lines:
        if number > HEADER_LINES_MAX:
            break
        if line.startswith(b":"):
            return
        text = line.decode("utf-8", "replace")
        if number == 1:
            if not line.startswith(BEGINNING):
                break
            yield "version", text.removeprefix("Version ").strip()[:32]
        elif line[:2] == b"Id":
            continue
        else:
            count, _, name = text.partition(" ")
            if name.partition(":")[0] in {"ngram", "skip"}:
                yield name.partition(":")[0], count
            else:
                name, colon, value = text.partition(":")
                if not colon:
                    raise ConversionError(f"line {number} of the model is no line of a readable model's header")
                yield name, value.strip()
    raise ConversionError("the source is no whole readable model of Vowpal Wabbit")


def check_header(header: dict[str, str]) -> int:
    """Return the bits of the table.

    Raises:
        ConversionError: A line is missing or wrong, or the model is not logistic, or makes further features.
    """
    missing = [name for name in ("Min label", "Max label", "bits", "options") if name not in header]
    if missing:
        raise ConversionError(f'the header of the model has no line "{missing[0]}"')
    limits = [parse_number(header[name]) for name in ("Min label", "Max label")]
    if limits != [-LOGISTIC_LIMIT, LOGISTIC_LIMIT]:
        raise ConversionError(
            "the model was not trained with --loss_function logistic: its predictions are not cut at -50 and 50"
        )
    for name in ("ngram", "skip", "lda"):
        if header.get(name, "0") != "0":
            raise ConversionError(f"the model uses --{name}, which makes features that Softstep does not make")
    bits = header["bits"]
    if not re.fullmatch("[0-9]{1,2}", bits) or not 1 <= int(bits) <= BITS_MAX:
        raise ConversionError(f"the model must have from 1 to {BITS_MAX} bits")
    return int(bits)


def read_weights(lines: Iterator[tuple[int, bytes]], header: dict[str, str], bits: int) -> ReadableModel:
    """Return the model, whose state of learning and weights follow the header."""
    indices, weights = array("q"), array("d")
    state: dict[str, float] = {}
    names: dict[str, dict[str, None]] = {}
    for number, line in lines:
        found = WEIGHT_LINE.fullmatch(line)
        if found is None:
            add_state(state, number, line, within_weights=bool(indices))
            continue
        name, index, weight = found.groups()
        if int(index) >= 1 << bits:
            raise ConversionError(f"line {number} of the model has an index beyond its {bits} bits")
        if len(indices) == 1 << bits:
            raise ConversionError("the model has an index twice")
        indices.append(int(index))
        weights.append(parse_number(weight.decode("ascii", "replace"), f"the weight of line {number}"))
        if name is not None:
            add_names(names, name)
    found_indices = np.frombuffer(indices, np.int64)
    if len(np.unique(found_indices)) < len(found_indices):
        raise ConversionError("the model has an index twice")
    w = np.frombuffer(weights, np.float64)
    gravity, contraction = state.get("l1_state", 0.0), state.get("l2_state", 1.0)
    if gravity or contraction != 1:
        w = np.sign(w) * np.maximum(np.abs(w) - gravity, 0) * contraction
    options = tuple(header["options"].split())
    return ReadableModel(
        header["version"], bits, options, found_indices, w, {space: tuple(found) for space, found in names.items()}
    )


def add_state(state: dict[str, float], number: int, line: bytes, *, within_weights: bool) -> None:
    """Keep a line of the state of learning.

    Raises:
        ConversionError: The line is no such line, or comes after weights.
    """
    words = line.decode("utf-8", "replace").split(" ")
    if within_weights or len(words) < 2 or not words[0]:  # noqa: PLR2004  # a name and a number
        if not line.strip():
            return
        raise ConversionError(f"line {number} of the model is neither a weight nor a part of its state")
    if words[0] in {"l1_state", "l2_state"}:
        state[words[0]] = parse_number(words[1], f"the number of line {number}")


def add_names(names: dict[str, dict[str, None]], label: bytes) -> None:
    """Keep the names of a weight: "user^age", "user^age[1]" of a second class, "age", or "a^x*b^y" of a cross."""
    if CONSTANT_LABEL.fullmatch(label):
        return
    for part in CLASS_SUFFIX.sub(b"", label).split(b"*"):
        namespace, caret, name = part.partition(b"^")
        try:
            found = names.setdefault(namespace.decode() if caret else "", {})
            if len(found) < NAMES_MAX:
                found[(name if caret else part).decode()] = None
        except UnicodeDecodeError:
            raise ConversionError("a name in the model is not UTF-8") from None
    if len(names) > NAMESPACES_MAX:
        raise ConversionError(f"the model has more than {NAMESPACES_MAX} namespaces")


def parse_number(text: str, place: str = "a number of the header") -> float:
    """Return a finite number.

    Raises:
        ConversionError: It is none.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or "_" in text:
        raise ConversionError(f"{place} of the model is not a finite number")
    return number
