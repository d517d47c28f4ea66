"""Send a thousand requests of each operation of the OpenAPI document, good and bad; write docs/conformance.md.

    make conformance                          every operation, about an hour
    python -m tests.conformance 50 /v1        50 requests each of the paths that begin with /v1, printed only

It starts a service of its own on loopback, with the shipped models and one of each further kind.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from schemathesis import GenerationMode
from schemathesis.core.failures import FailureGroup
from schemathesis.schemas import APIOperation

from service import __version__
from tests.support.document_requests import check_operation, list_operations
from tests.support.model_artifacts import write_models
from tests.support.paths import ROOT
from tests.support.running_service import serving

EXAMPLES: Final = 1000
# Paths of any model, then those of a softmax model and of a multi-label model.
NAMES: Final = (None, "iris", "tags")
PAGE: Final = ROOT / "docs" / "conformance.md"
HEAD: Final = """# Conformance to the OpenAPI document

`make conformance` makes requests from the document at `/openapi.json` with [schemathesis](https://schemathesis.readthedocs.io),
sends them to a real service, and holds each response to the document: its status, headers, content type and body, and
that no request causes a server error, that bad ones are refused, and that `Allow` tells the truth. Good requests fit
the document, bad ones do not. An operation with few possible requests gets all of them.

"""


def check_mode(operation: APIOperation, mode: GenerationMode, examples: int) -> tuple[int, list[str]]:
    """Return how many requests were sent, and what failed."""
    names = NAMES if "{name}" in operation.path else NAMES[:1]
    count, failures = 0, []
    for name in names:
        try:
            count += check_operation(operation, mode, name, -(-examples // len(names)))
        except FailureGroup as group:
            failures += [f"{operation.label}, {mode.value}, {name}: {failure}" for failure in group.exceptions]
    return count, failures


def main(arguments: list[str]) -> int:
    """Run the campaign; return 1 if anything failed."""
    examples = int(arguments[0]) if arguments else EXAMPLES
    start = arguments[1] if len(arguments) > 1 else ""
    rows, failures, began = [], [], time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        models = write_models(Path(scratch) / "models")
        with serving(models, Path(scratch)) as service:
            for operation in list_operations(service.url):
                if not operation.path.startswith(start):
                    continue
                good, failed_good = check_mode(operation, GenerationMode.POSITIVE, examples)
                bad, failed_bad = check_mode(operation, GenerationMode.NEGATIVE, examples)
                failures += [*failed_good, *failed_bad]
                rows.append((operation.label, good, bad, len(failed_good) + len(failed_bad)))
                sys.stdout.write(f"{operation.label}: {good} good, {bad} bad, {rows[-1][3]} failures\n")
                sys.stdout.flush()
    sys.stderr.writelines(f"{failure}\n" for failure in failures)
    if not arguments:
        PAGE.write_text(render_page(rows, time.monotonic() - began))
    return int(bool(failures))


def render_page(rows: list[tuple[str, int, int, int]], seconds: float) -> str:
    """Return the page with one row for each operation."""
    table = [f"| `{label}` | {good:,} | {bad:,} | {failed} |" for label, good, bad, failed in rows]
    good, bad, failed = (sum(column) for column in zip(*(row[1:] for row in rows), strict=True))
    total = f"| all {len(rows)} | {good:,} | {bad:,} | {failed} |"
    lines = ["| operation | good requests | bad requests | failures |", "|---|---:|---:|---:|", *table, total, ""]
    return HEAD + "\n".join(lines) + f"\nRelease {__version__}; it took {seconds / 60:.0f} minutes.\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
