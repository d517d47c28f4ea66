"""Compare two revisions of Softstep: requests/s of five loads at saturation, measured in turns.

    python loadtest/revisions.py REVISION [--rounds 7] [--seconds 2] [--loads feedback]

The revision of git is checked out under build/, and this checkout is the other one. Both run with the same Python, and
both servers are up at once on one core; the client has the other core. Every round measures each load once for each
revision, in changing order. It prints medians of requests/s, and two medians of the rounds' ratios, this checkout over
the revision: of requests per second, and of requests per second of the server's processor time. Other work on the
machine disturbs the second one less.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from closedloop import saturate, saturate_feedback
from environments import BUILD, ROOT
from loads import Load, make_loads
from processes import Running, free_port, serving

LOADS = ("predict-1", "infer-1", "binary-1", "explain-1")
FEEDBACK = "feedback"
FEEDBACK_PATH = "/v1/models/iris:feedback"
FEEDBACK_BODY = b'{"instances":[[5.1,3.5,1.4,0.2]],"labels":[0]}'


class Rates(NamedTuple):
    """Requests per second of time, and per second of the server's processor time."""

    per_second: float
    per_cpu_second: float


Sides = tuple[list[Rates], list[Rates]]


def check_out(revision: str) -> Path:
    """Return a folder with the files of a revision."""
    folder = BUILD / "revisions" / revision
    if not folder.exists():
        folder.mkdir(parents=True)
        archive = subprocess.run(["git", "-C", str(ROOT), "archive", revision], capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


@contextmanager
def running(checkout: Path, scratch: Path) -> Iterator[Running]:
    """Serve a checkout's own models with its own code; its kernels are compiled before."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    # The installed command, because `python -m` would import from the current folder first.
    softstep = ["env", f"PYTHONPATH={checkout}", str(Path(sys.executable).parent / "softstep")]
    subprocess.run([*softstep, "warm"], check=True, stdout=subprocess.DEVNULL)
    port = free_port()
    command = [*softstep, "serve", "--models", str(checkout / "models"), "--data", str(scratch / "data")]
    with serving([*command, "--port", str(port)], port, "/readyz", scratch / "log") as server:
        yield server


def measure(server: Running, load: Load | None, seconds: int, scratch: Path) -> Rates:
    """Measure a load, or acknowledged feedback if it is None."""
    if load is not None:
        seen = saturate(server, load, seconds, scratch)
    else:
        body = scratch / "feedback.json"
        body.write_bytes(FEEDBACK_BODY)
        seen = saturate_feedback(server, FEEDBACK_PATH, body, seconds)
    return Rates(seen["per_s"], 1e6 / (seen["user_us"] + seen["system_us"]))


def compare(before: Path, rounds: int, seconds: int, names: Sequence[str]) -> dict[str, Sides]:
    """Return what each load measured, round by round, on the earlier revision and on this checkout."""
    every = make_loads(ROOT / "models")
    loads: dict[str, Load | None] = {name: None if name == FEEDBACK else every[name] for name in names}
    rates: defaultdict[str, Sides] = defaultdict(lambda: ([], []))
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        scratch = Path(name)
        servers = [
            stack.enter_context(running(checkout, scratch / side))
            for side, checkout in (("before", before), ("after", ROOT))
        ]
        for number in range(rounds):
            for load_name, load in loads.items():
                for side in (0, 1) if number % 2 else (1, 0):
                    rates[load_name][side].append(measure(servers[side], load, seconds, scratch))
    return dict(rates)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", help="the earlier revision of git")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--loads", nargs="+", choices=(*LOADS, FEEDBACK), default=(*LOADS, FEEDBACK))
    options = parser.parse_args()
    print("| load | before, requests/s | after, requests/s | after / before | by processor time |")
    print("| --- | --- | --- | --- | --- |")
    checkout = check_out(options.revision)
    for name, (before, after) in compare(checkout, options.rounds, options.seconds, options.loads).items():
        rates = [median(one.per_second for one in side) for side in (before, after)]
        ratio, by_cpu = (
            median(late[field] / early[field] for early, late in zip(before, after, strict=True)) for field in (0, 1)
        )
        print(f"| {name} | {rates[0]:,.0f} | {rates[1]:,.0f} | {ratio:.3f} | {by_cpu:.3f} |")


if __name__ == "__main__":
    main()
