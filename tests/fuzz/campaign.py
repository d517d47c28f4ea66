"""Fuzz all parsers, each in a process of its own, some at a time."""

import functools
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Final, NamedTuple

from service.serve.wire.table_rows import TableParser
from tests.fuzz.connections import HEADS, Connections
from tests.fuzz.fuzzer import Fuzzed, Parser, fuzz
from tests.fuzz.machine_code import BODIES, GuardedScanner
from tests.fuzz.parsers import PARSERS

CONNECTIONS: Final = "HTTP connections"
MACHINE_CODE: Final = "rows in machine code, at the end of readable memory"
NAMES: Final = (*PARSERS, CONNECTIONS, MACHINE_CODE)
# Inputs are given in parts, so that a process that ends loses few, and all processors have work until the end.
PART: Final = 50_000


class Progress(NamedTuple):
    """The results of a parser: inputs, the most outcomes of a part, and what went wrong."""

    inputs: int
    outcomes: int
    failures: tuple[str, ...]


@functools.cache
def connections() -> Connections:
    """Return the connections of this process."""
    return Connections()


def parser_of(name: str) -> Parser:
    """Return a parser; those that need a model are made in the process that runs them."""
    if name == CONNECTIONS:
        return Parser(HEADS, connections().feed, ())
    if name == MACHINE_CODE:
        served = connections().served
        assert served.single_row is not None
        assert isinstance(served.tables, TableParser)
        return Parser(BODIES, GuardedScanner(served.model, served.tables.rows, served.single_row).scan, ())
    return PARSERS[name]


def fuzz_part(name: str, inputs: int, seed: int) -> Fuzzed:
    """Give a parser so many inputs."""
    return fuzz(parser_of(name), inputs, seed)


def fuzz_parsers(inputs: int, names: tuple[str, ...] = NAMES) -> Iterator[tuple[str, Progress]]:
    """Give each parser so many inputs, and yield its results."""
    processes = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        parts = {
            name: [pool.submit(fuzz_part, name, min(PART, inputs - start), start) for start in range(0, inputs, PART)]
            for name in names
        }
        for name in names:
            yield name, sum_parts(parts[name])


def sum_parts(parts: list[Future[Fuzzed]]) -> Progress:
    """Return the results of all parts of a parser; a process that ends is a failure."""
    inputs, outcomes, failures = 0, 0, []
    for part in parts:
        try:
            fuzzed = part.result()
        except BrokenProcessPool:
            failures.append("the process has ended")
            continue
        inputs += fuzzed.inputs
        outcomes = max(outcomes, fuzzed.outcomes)
        failures += [f"{failure} for {data!r}" for data, failure in fuzzed.failures]
    return Progress(inputs, outcomes, tuple(failures))
