"""Each parser gets some changed inputs, and raises only what it declares; the fuzzers find planted faults."""

import time

import pytest

from service.errors import MalformedError
from tests.fuzz import campaign
from tests.fuzz.campaign import MACHINE_CODE, NAMES, Progress, fuzz_parsers, fuzz_part
from tests.fuzz.fuzzer import SECONDS_MAX, Parser, fuzz
from tests.fuzz.mutations import BYTES_MAX, Mutator
from tests.support.guarded_bytes import read_past_end

INPUTS = 400


@pytest.mark.parametrize("name", NAMES)
def test_a_parser_raises_only_what_it_declares(name: str) -> None:
    """Valid inputs that were changed at random are parsed or refused."""
    fuzzed = fuzz_part(name, INPUTS, seed=1)
    assert fuzzed.failures == ()
    assert fuzzed.outcomes > 1


def test_an_undeclared_exception_is_found() -> None:
    """A parser that fails at one number in the middle of its input is caught with that input."""

    def parse(data: bytes) -> bool:
        if b"NaN" in data:
            raise ZeroDivisionError
        if data[:1] != b"[":
            raise MalformedError("The body must be a list.")
        return True

    fuzzed = fuzz(Parser((b"[1,2,3]",), parse, (MalformedError,)), 5000, seed=1)
    assert {failure for _, failure in fuzzed.failures} == {"ZeroDivisionError: "}
    assert all(b"NaN" in data for data, _ in fuzzed.failures)


def test_a_slow_input_is_found() -> None:
    """An input that keeps the processor busy for longer than any should is caught."""

    def parse(_data: bytes) -> None:
        end = time.thread_time() + 2 * SECONDS_MAX
        while time.thread_time() < end:
            pass

    fuzzed = fuzz(Parser((b"1",), parse, ()), 1, seed=1)
    assert [failure for _, failure in fuzzed.failures] == ["slow"]


def test_inputs_with_a_new_outcome_are_changed_further() -> None:
    """A fault behind three refusals, each with a message of its own, is reached through them."""

    def parse(data: bytes) -> None:
        for place, byte in enumerate(b"[]{}"):
            if data[place : place + 1] != bytes([byte]):
                raise MalformedError(f"The byte {'abcd'[place]} is wrong.")
        raise ZeroDivisionError

    assert fuzz(Parser((b"....",), parse, (MalformedError,)), 30_000, seed=1).failures


def test_a_read_out_of_bounds_ends_a_process_and_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends is a failure of its parser, not a success."""
    monkeypatch.setattr(campaign, "fuzz_part", read_past_end)
    ((name, progress),) = fuzz_parsers(1, (MACHINE_CODE,))
    assert (name, progress) == (MACHINE_CODE, Progress(0, 0, ("the process has ended",)))


def test_changes_are_repeatable_and_bounded() -> None:
    """A seed always leads to the same inputs, none of which passes the limit of size."""
    one, two = (Mutator(7, (b"[1,2.5,-3e1]", b"a" * BYTES_MAX)) for _ in range(2))
    inputs = [one.next() for _ in range(500)]
    assert inputs == [two.next() for _ in range(500)]
    assert len(set(inputs)) > 250
    assert max(map(len, inputs)) <= BYTES_MAX
