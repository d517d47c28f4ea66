"""Measuring processes: run one to its end, and join what the rounds of one printed."""

import subprocess
from typing import Any

from environments import NotAvailableError
from processes import environment

CHILD_SECONDS = 1800


def collect(rounds: list[Any]) -> Any:  # noqa: ANN401 - JSON documents of one form
    """Join documents of one form into one, with a list of floats, one per round, in place of each float."""
    first = rounds[0]
    if isinstance(first, dict):
        return {name: collect([one[name] for one in rounds]) for name in first}
    if isinstance(first, list):
        return [collect(list(items)) for items in zip(*rounds, strict=True)]
    return rounds if isinstance(first, float) else first


def print_progress(text: str) -> None:
    """Print one line of progress."""
    print(text, flush=True)


def attempt(measure: Any) -> dict[str, Any]:  # noqa: ANN401 - any function of no arguments
    """Return the result of `measure`, or the reason why there is none."""
    try:
        return dict(measure())
    except (NotAvailableError, OSError, ValueError) as error:
        print_progress(f"  not run: {error}")
        return {"reason": str(error)}


def run_child(command: list[str], **extra: str) -> str:
    """Run one measuring process to its end and return its output."""
    try:
        done = subprocess.run(
            command, env=environment(**extra), capture_output=True, text=True, check=False, timeout=CHILD_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise NotAvailableError(f"took longer than {CHILD_SECONDS} s") from error
    if done.returncode:
        raise NotAvailableError((done.stderr.strip().splitlines() or [f"code {done.returncode}"])[-1][:200])
    return done.stdout
