"""Write docs/settings.md from service/settings.py: `python docs/write_settings.py`, in the project's environment."""  # noqa: INP001

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

Set a limit in the environment, or one of five by an option, which overrides the environment:

```sh
SOFTSTEP_WORKERS=2 SOFTSTEP_BODY_BYTES_MAX=8388608 softstep serve --port 9000
```

`softstep serve` reads the settings once, at start. An invalid value ends the start with exit code 2 and a message that
names the setting. These are all the limits that can be set.

This page is written by `docs/write_settings.py` from `service/settings.py`.
"""

TAIL = """
## Compiled kernels

These two are read at import, before the settings.

| variable | default | description |
|---|---|---|
| `SOFTSTEP_KERNELS` | beside the package | Folder of compiled kernels. They are pickles: allow no other writer. |
| `NUMBA_CPU_NAME` | the best baseline | Processor to compile for; also set `NUMBA_CPU_FEATURES`, to nothing. |
"""


def page() -> str:
    """Return the page: a table for each group of settings, in the order of settings.py."""
    parts = [HEAD]
    for title, names in groups():
        parts.append(f"\n## {title}\n\n| variable | default | values | description |\n|---|---|---|---|\n")
        parts += [row(name, Settings.model_fields[name]) for name in names]
    return "".join([*parts, TAIL])


def groups() -> list[tuple[str, list[str]]]:
    """Return the title and the settings of each group; a comment of its own in the class starts a group."""
    source = Path(settings.__file__).read_text().partition("class Settings")[2]
    blocks = re.split(r"^    # (.+)$", source, flags=re.MULTILINE)[1:]
    return [
        (title, re.findall(r"^    (\w+):", body, re.MULTILINE))
        for title, body in zip(blocks[::2], blocks[1::2], strict=True)
    ]


def row(name: str, field: FieldInfo) -> str:
    """Return the table row of a setting."""
    text = (field.description or "").replace("<", "\\<")  # a browser would take it for a tag
    option = f", `--{name}`" if name in OPTIONS else ""
    cells = (f"`SOFTSTEP_{name.upper()}`{option}", default(field.default), values(field), text)
    return f"| {' | '.join(cells)} |\n"


def default(value: Any) -> str:  # noqa: ANN401  # any default
    """Return a default as it would be written in the environment."""
    if value is None:
        return "unset"
    if isinstance(value, int) and not isinstance(value, bool) and value >= MiB and value % MiB == 0:
        return f"`{value}` ({value // MiB} MiB)"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{list(value) if isinstance(value, tuple) else value}`"


def values(field: FieldInfo) -> str:
    """Return which values a setting accepts."""
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
