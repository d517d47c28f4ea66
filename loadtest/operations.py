"""The page docs/benchmarks/operations.md: figures about a service in operation, from operations.json.

    python loadtest/operations.py        write the page again, without measuring

The script that measures has the name of its part in `HEADINGS`. With `--write` it replaces its own figures in the file
and writes the page.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from environments import ROOT
from tables import MET, table

FOLDER = ROOT / "docs" / "benchmarks"
MACHINE = ("date", "processor", "cores", "kernel", "load_before", "python")
HEADINGS = {
    "restarts": "Restarts under load",
    "signals": "SIGTERM at any moment",
    "probes": "Probes beside large requests",
    "keys": "Keys and JWTs",
    "key_timing": "Time to compare API keys",
    "tls": "TLS",
    "slow_clients": "Slow clients",
    "limits": "Limits of keys",
    "grpc": "gRPC",
    "overload": "Overload",
    "history": "The history of answers",
    "shared_log": "Replicas that share a log",
    "postgres": "The log in PostgreSQL",
    "joining": "A new replica",
    "migration": "Migration",
}
HEAD = ["figure", "target", "measured", ""]
INTRODUCTION = """# Operation

`loadtest/README.md` explains how these figures are measured. The scripts write this page."""


def read_options(description: str | None, **defaults: float | tuple[float, str]) -> argparse.Namespace:
    """Read the options of a script: numbers, and `--write`.

    Args:
        description: The docstring of the script.
        defaults: By the name of each number its default, or that and what the number is.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in defaults.items():
        default, meaning = value if isinstance(value, tuple) else (value, None)
        parser.add_argument(f"--{name}", type=type(default), default=default, help=meaning)
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks/operations.md")
    return parser.parse_args()


def row(title: str, target: str, value: str, *, met: bool) -> list[str]:
    """Return one row of a figure: what was measured, the target, the value, and whether it met the target."""
    return [title, target, value, MET[met]]


def render(parts: dict[str, Any]) -> str:
    """Return the page."""
    texts = [INTRODUCTION]
    for name, heading in HEADINGS.items():
        if name in parts:
            part, machine = parts[name], parts[name]["machine"]
            where = (
                f"{machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}, "
                f"Python {machine['python']}, {machine['date'].split()[0]}, load before {machine['load_before']}."
            )
            texts += [
                f"## {heading}",
                f"{part['about']} {where}",
                table(HEAD, part["rows"]),
            ]
    return "\n\n".join(texts) + "\n"


def report(name: str, about: str, rows: Iterable[list[str]], machine: dict[str, Any], *, write: bool) -> None:
    """Print the rows of one script; if asked to, keep them and write the page.

    Args:
        name: A key of HEADINGS.
        about: How they were measured.
        rows: The rows.
        machine: `describe()` of before the measurement.
        write: Whether to replace the part in operations.json.
    """
    rows = list(rows)
    print(table(HEAD, rows))
    if not write:
        return
    file = FOLDER / "operations.json"
    parts = json.loads(file.read_text()) if file.exists() else {}
    parts[name] = {"about": about, "machine": {key: machine[key] for key in MACHINE}, "rows": rows}
    file.write_text(json.dumps(parts, indent=1) + "\n")
    write_page(FOLDER)


def write_page(folder: Path) -> None:
    """Write operations.md from operations.json."""
    (folder / "operations.md").write_text(render(json.loads((folder / "operations.json").read_text())))


if __name__ == "__main__":
    write_page(FOLDER)
