"""Read the console sessions that documentation pages show."""

import re
from collections.abc import Iterator
from pathlib import Path

BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)


def sessions(page: Path) -> Iterator[tuple[str, str]]:
    """Yield each command of a page's console blocks with the output shown below it."""
    for block in BLOCK.findall(page.read_text()):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = step.partition("\n")
            yield command, output
