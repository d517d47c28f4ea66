"""`softstep config`: print every setting with its value, where the value comes from, and its meaning."""

import argparse
from typing import Final

from service.configuration import list_settings
from service.console import print_result
from service.settings import Settings

HEADINGS: Final = ("setting", "value", "source", "meaning")


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Return 0; an invalid or unknown setting has ended the command before."""
    rows = list_settings(settings, arguments)
    if arguments.json:
        for row in rows:
            print_result(row._asdict(), "", as_json=True)
        return 0
    lines = [HEADINGS, *((row.variable, _text(row.value), row.source, row.meaning) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)][:-1]
    for *columns, meaning in lines:
        padded = [cell.ljust(width) for cell, width in zip(columns, widths, strict=True)]
        print_result({}, "  ".join([*padded, meaning]), as_json=False)
    return 0


def _text(value: str | float | list[str] | None) -> str:
    """Return a value as the environment would have it."""
    match value:
        case None:
            return "unset"
        case bool():
            return str(value).lower()
        case list():
            return ",".join(value) or "empty"
        case _:
            return str(value)
