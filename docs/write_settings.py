"""Write docs/settings.md from the settings' classes: `python docs/write_settings.py`, in the project's environment."""  # noqa: INP001

import inspect
import re
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from service.access_settings import AccessSettings
from service.configuration import OPTIONS, accepted_form
from service.environment import IMPORT_VARIABLES
from service.grpc_settings import GrpcSettings
from service.serving_settings import ServingSettings
from service.setting_types import MiB
from service.settings import Settings

PAGE = Path(__file__).parent / "settings.md"

HEAD = """\
# Settings

Set a limit in the environment, or one of six by an option, which overrides the environment:

```sh
SOFTSTEP_WORKERS=2 SOFTSTEP_BODY_BYTES_MAX=8388608 softstep serve --port 9000
```

`softstep serve` reads the settings once, at start. Space around a value is removed, and an empty value counts as unset.
`softstep config` prints every setting with its value, where that comes from, and what it does
([commands](commands.md)). These are all the limits that can be set.

An invalid value, or a variable `SOFTSTEP_…` that is not in these tables, ends every command with exit code 2. The
message names the variable and what it accepts, or the nearest known name. These variables are ignored:

- `SOFTSTEP_URL` and `SOFTSTEP_API_KEY`, which clients of a service may have.
- Variables that Kubernetes sets for a Service called softstep, or whose name begins so: `SOFTSTEP_PORT=tcp://…`,
  `SOFTSTEP_SERVICE_HOST`, `SOFTSTEP_PORT_8000_TCP` and others. `enableServiceLinks: false` in a pod turns them off.

This page is written by `docs/write_settings.py` from `serving_settings.py`, `grpc_settings.py` and `access_settings.py`
of `service/`.
"""

TAIL = """
## Compiled kernels

These two are read at import, before the settings.

| variable | default | description |
|---|---|---|
"""


def page() -> str:
    """Return the page: a table for each group of settings, in the order of their classes."""
    parts = [HEAD]
    for title, names in groups():
        parts.append(f"\n## {title}\n\n| variable | default | values | description |\n|---|---|---|---|\n")
        parts += [row(name, Settings.model_fields[name]) for name in names]
    read_at_import = [f"| `{name}` | {default} | {text} |\n" for name, (default, text) in IMPORT_VARIABLES.items()]
    return "".join([*parts, TAIL, *read_at_import])


def groups() -> list[tuple[str, list[str]]]:
    """Return the title and the settings of each group; a comment of its own in a class starts a group."""
    source = "".join(
        inspect.getsource(one).partition("class")[2] for one in (ServingSettings, GrpcSettings, AccessSettings)
    )
    blocks = re.split(r"^    # (.+)$", source, flags=re.MULTILINE)[1:]
    return [
        (title, re.findall(r"^    (\w+):", body, re.MULTILINE))
        for title, body in zip(blocks[::2], blocks[1::2], strict=True)
    ]


def row(name: str, field: FieldInfo) -> str:
    """Return the table row of a setting."""
    text = (field.description or "").replace("<", "\\<")  # a browser would take it for a tag
    option = f", `--{name}`" if name in OPTIONS else ""
    cells = (
        f"`SOFTSTEP_{name.upper()}`{option}",
        default(field.default, is_bytes="bytes" in name),
        accepted_form(field),
        text,
    )
    return f"| {' | '.join(cells)} |\n"


def default(value: Any, *, is_bytes: bool = True) -> str:  # noqa: ANN401  # any default
    """Return a default as it would be written in the environment; `is_bytes` if a number counts bytes."""
    if value is None:
        return "unset"
    if is_bytes and isinstance(value, int) and not isinstance(value, bool) and value >= MiB and value % MiB == 0:
        return f"`{value}` ({value // MiB} MiB)"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{','.join(value)}`" if value else "empty"
    return f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(page())
