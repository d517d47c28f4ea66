"""Fuzz one parser: inputs with a new outcome join the corpus; slow ones and exceptions not declared are kept."""

import re
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from tests.fuzz.mutations import Mutator

# Inputs that may join a corpus.
JOINED_MAX: Final = 2000
FAILURES_MAX: Final = 5
# Of the processor for one input, which has 4 KiB at most: a parser whose time is the square of the size takes longer.
SECONDS_MAX: Final = 0.2
# A longer text of a result does not tell outcomes apart.
KIND_TEXT_MAX: Final = 40
NUMBERS: Final = re.compile(r"[0-9]+")


class Parser(NamedTuple):
    """A parser to fuzz.

    Attributes:
        corpus: Inputs to start from; most of them are valid.
        parse: Parses an input; what it returns is only used to tell outcomes apart.
        declared: The exceptions that it may raise.
    """

    corpus: Sequence[bytes]
    parse: Callable[[bytes], object]
    declared: tuple[type[Exception], ...]


class Fuzzed(NamedTuple):
    """The result of a run: inputs, different outcomes, and the inputs that were slow or raised something undeclared."""

    inputs: int
    outcomes: int
    failures: tuple[tuple[bytes, str], ...]


def fuzz(parser: Parser, inputs: int, seed: int) -> Fuzzed:
    """Give a parser so many inputs.

    An input joins the corpus if its outcome is new: the class of an exception, and its message without numbers; or the
    kind of what is returned. Each refusal of a parser has its own message, so this stands in for the coverage of lines.
    """
    mutator = Mutator(seed, parser.corpus)
    seen: set[object] = set()
    failures: list[tuple[bytes, str]] = []
    for number in range(inputs):
        data = parser.corpus[number] if number < len(parser.corpus) else mutator.next()
        began = time.thread_time()
        outcome, failure = _outcome(parser, data)
        if time.thread_time() - began > SECONDS_MAX:
            failure = failure or "slow"
        if failure and len(failures) < FAILURES_MAX:
            failures.append((data, failure))
        if outcome not in seen:
            seen.add(outcome)
            if len(seen) < JOINED_MAX:
                mutator.corpus.append(data)
    return Fuzzed(inputs, len(seen), tuple(failures))


def _outcome(parser: Parser, data: bytes) -> tuple[object, str]:
    """Return what tells the outcome of an input apart, and the name of an exception that is not declared."""
    try:
        return kind_of(parser.parse(data)), ""
    except parser.declared as error:
        return (type(error), NUMBERS.sub("", str(error))), ""
    except BaseException as error:  # noqa: BLE001  # a panic of a native library is no Exception
        return (type(error), ""), f"{type(error).__name__}: {error}"[:300]


def kind_of(value: object) -> object:
    """Return the kind of a result: of a tuple the kinds of its members, of a number its bits, of others their type."""
    if isinstance(value, tuple):
        return tuple(map(kind_of, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return value.bit_length()
    if value is None or (isinstance(value, bool | str) and len(str(value)) <= KIND_TEXT_MAX):
        return value
    return type(value)
