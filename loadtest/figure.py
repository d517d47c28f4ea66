"""A figure: its title, its target, and how its value follows from the measurements of one run. Pure arithmetic.

A figure without a value carries the reason instead, so that a peer that cannot run is reported and not left out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

Results = dict[str, Any]
Served = tuple[str, str]  # a contender and one of its loads

US, MB = 1e6, 1e6


class MissingError(Exception):
    """An input of a figure was not measured; the message is the reason."""


@dataclass(frozen=True)
class Figure:
    """One row of the table: `measure` returns one value per round; `least` or `most` is the target of the median."""

    number: str
    title: str
    measure: Callable[[Results], list[float]]
    least: float | None = None
    most: float | None = None
    unit: str = ""
    needs: tuple[Served, ...] = ()

    @property
    def target(self) -> str:
        """Return the target as text."""
        if self.least is not None:
            return f"≥ {self.least:,.7g}{self.unit}"
        return f"≤ {self.most:,.7g}{self.unit}" if self.most is not None else "shown"

    def met(self, value: float) -> bool | None:
        """Return whether `value` reaches the target; None without a target."""
        if self.least is not None:
            return value >= self.least
        return value <= self.most if self.most is not None else None

    def evaluate(self, results: Results) -> dict[str, Any]:
        """Return the figure as JSON-ready values."""
        line: dict[str, Any] = {"figure": self.number, "title": self.title, "target": self.target, "unit": self.unit}
        try:
            values = self.measure(results)
        except MissingError as error:
            return line | {"value": None, "met": None, "reason": str(error)}
        value = median(values)
        return line | {"value": value, "low": min(values), "high": max(values), "met": self.met(value), "reason": ""}


def part(results: Results, name: str) -> Any:  # noqa: ANN401 - a part of a JSON document
    """Return a part of the results.

    Raises:
        MissingError: The part was not measured.
    """
    found = results.get(name)
    if found is None:
        raise MissingError("not measured in this run")
    if "reason" in found:
        raise MissingError(f"not run: {found['reason']}")
    return found


def rounds(results: Results, served: Served) -> list[dict[str, float]]:
    """Return the measurements of each round of one contender's load.

    Raises:
        MissingError: The load was not measured.
    """
    name, load = served
    server = part(results, "servers").get(name)
    if server is None:
        raise MissingError("not measured in this run")
    if server["reason"]:
        raise MissingError(f"not run: {server['title']} {server['reason']}")
    seen: list[dict[str, float]] = server["loads"].get(load, [])
    if not seen:
        raise MissingError(f"not measured in this run: {load}")
    return seen


def rates(ours: Served, theirs: Served, number: str, title: str, least: float | None) -> Figure:
    """Return the figure `ours ÷ theirs` of requests/s, round by round."""

    def measure(results: Results) -> list[float]:
        pairs = zip(rounds(results, ours), rounds(results, theirs), strict=False)
        return [a["per_s"] / b["per_s"] for a, b in pairs]

    return Figure(number, title, measure, least=least, needs=(ours, theirs))
