"""Send a thousand requests of each operation of the OpenAPI document, good and bad.

    make conformance                                         every operation, about an hour; writes docs/conformance.md
    python -m tests.conformance --paths /v1 --examples 50    50 requests each of the paths that begin so, printed only

It starts a service of its own on loopback, with the shipped models and one of each further kind. `--write` keeps the
results in docs/benchmarks/conformance.json, each with its date, and writes the page from those of all operations; so
operations can be run apart. It needs a thousand requests of each.
"""

import argparse
import json
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

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
RESULTS: Final = ROOT / "docs" / "benchmarks" / "conformance.json"
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


def run(examples: int, start: str) -> tuple[dict[str, dict[str, Any]], list[str], set[str]]:
    """Check the operations whose paths begin so.

    Returns:
        The results by operation, the failures in words, and every operation of the document.
    """
    results, failures, known = {}, [], set()
    with tempfile.TemporaryDirectory() as scratch:
        models = write_models(Path(scratch) / "models")
        with serving(models, Path(scratch)) as service:
            for operation in list_operations(service.url):
                known.add(operation.label)
                if not operation.path.startswith(start):
                    continue
                good, failed_good = check_mode(operation, GenerationMode.POSITIVE, examples)
                bad, failed_bad = check_mode(operation, GenerationMode.NEGATIVE, examples)
                failures += [*failed_good, *failed_bad]
                count = len(failed_good) + len(failed_bad)
                results[operation.label] = {
                    "good": good, "bad": bad, "failures": count, "release": __version__,
                    "date": datetime.now(UTC).date().isoformat(),
                }  # fmt: skip
                sys.stdout.write(f"{operation.label}: {good} good, {bad} bad, {count} failures\n")
                sys.stdout.flush()
    return results, failures, known


def main(arguments: list[str]) -> int:
    """Run the campaign; return 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="requests of each operation, good and bad")
    parser.add_argument("--paths", default="", help="how the paths of the operations begin")
    parser.add_argument("--write", action="store_true", help="keep the results and write the page")
    options = parser.parse_args(arguments)
    if options.write and options.examples < EXAMPLES:
        parser.error(f"--write needs at least {EXAMPLES} examples")
    results, failures, known = run(options.examples, options.paths)
    sys.stderr.writelines(f"{failure}\n" for failure in failures)
    if options.write:
        kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        kept = {label: result for label, result in {**kept, **results}.items() if label in known}
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
        PAGE.write_text(render_page(kept))
    return int(bool(failures))


def render_page(results: dict[str, dict[str, Any]]) -> str:
    """Return the page with one row for each operation."""
    rows = [(label, one["good"], one["bad"], one["failures"], one["date"]) for label, one in results.items()]
    table = [f"| `{label}` | {good:,} | {bad:,} | {failed} | {date} |" for label, good, bad, failed, date in rows]
    good, bad, failed = (sum(column) for column in list(zip(*rows, strict=True))[1:4])
    total = f"| all {len(rows)} | {good:,} | {bad:,} | {failed} | |"
    head = ["| operation | good requests | bad requests | failures | date |", "|---|---:|---:|---:|---|"]
    return HEAD + "\n".join([*head, *table, total, ""])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
