"""Writes docs/settings.md from service/settings.py: `python docs/write_settings.py`, in the project's environment."""  # noqa: INP001

import re
from pathlib import Path
from typing import Any

from annotated_types import Ge, Gt, Le
from pydantic.fields import FieldInfo

from service import settings
from service.settings import MiB, Settings

PAGE = Path(__file__).parent / "settings.md"
OPTIONS = ("models", "data", "host", "port", "workers")

HEAD = """\
# Settings

`softstep serve` reads its settings from the environment once, at start. Five of them are options too, which override
the environment (`softstep serve --help`). A value that cannot be used ends the start with exit code 2 and a sentence
that names the setting. Every limit that can be set is here.

This page is written by `docs/write_settings.py` from `service/settings.py`.
"""

TAIL = """
## Before anything else is read

| variable | default | what it does |
|---|---|---|
| `SOFTSTEP_KERNELS` | beside the package | Folder of compiled kernels. They are pickles: let nobody else write there. |
| `NUMBA_CPU_NAME` | the best baseline there is | Processor to compile for; `NUMBA_CPU_FEATURES` goes with it, empty. |
"""


def page() -> str:
    """The whole page: a table for each group of settings, in the order of settings.py."""
    parts = [HEAD]
    for title, names in groups():
        parts.append(f"\n## {title}\n\n| variable | default | values | what it does, and why |\n|---|---|---|---|\n")
        parts += [row(name, Settings.model_fields[name]) for name in names]
    return "".join([*parts, TAIL])


def groups() -> list[tuple[str, list[str]]]:
    """The settings below each comment that stands alone in the class."""
    source = Path(settings.__file__).read_text().partition("class Settings")[2]
    blocks = re.split(r"^    # (.+)$", source, flags=re.MULTILINE)[1:]
    return [
        (title, re.findall(r"^    (\w+):", body, re.MULTILINE))
        for title, body in zip(blocks[::2], blocks[1::2], strict=True)
    ]


def row(name: str, field: FieldInfo) -> str:
    """One line of a table."""
    text = (field.description or "").replace("<", "\\<")  # or a browser takes it for a tag
    option = f", `--{name}`" if name in OPTIONS else ""
    cells = (f"`SOFTSTEP_{name.upper()}`{option}", default(field.default), values(field), text)
    return f"| {' | '.join(cells)} |\n"


def default(value: Any) -> str:  # noqa: ANN401  # whatever a setting holds
    """A default as it would be written in the environment."""
    if value is None:
        return "unset"
    if isinstance(value, int) and not isinstance(value, bool) and value >= MiB and value % MiB == 0:
        return f"`{value}` ({value // MiB} MiB)"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{list(value) if isinstance(value, tuple) else value}`"


def values(field: FieldInfo) -> str:
    """Which values a setting takes."""
    kinds = {int: "whole number", float: "number", bool: "`true` or `false`", Path: "directory"}
    kind = kinds.get(field.annotation, "text") if isinstance(field.annotation, type) else "text"
    kind = "JSON list" if isinstance(field.default, tuple) else kind
    kind = "path of a URL" if field.annotation == settings.Route else kind
    bounds = []
    for bound in field.metadata:
        match bound:
            case Ge():
                bounds.append(f"≥ {bound.ge}")
            case Gt():
                bounds.append(f"> {bound.gt}")
            case Le():
                bounds.append(f"≤ {bound.le}")
    return " ".join([kind, ", ".join(bounds)]).strip()


if __name__ == "__main__":
    PAGE.write_text(page())
