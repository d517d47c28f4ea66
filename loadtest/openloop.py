"""Open-loop load: requests leave on a fixed schedule, and latency counts from that schedule.

    python loadtest/openloop.py http://127.0.0.1:8000/v1/models/iris:predict --rate 5000 --seconds 10 --body row.json

A closed-loop client waits for each answer before it sends again. So a stalled server gets fewer requests, and its stall
hardly shows (coordinated omission). `--beside` sends another request to the same server at the same time, with its own
rate and connections. The client occupies its core; pin it away from the server.
"""

import argparse
import ipaddress
import json
import socket
import sys
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from schedule import Load, OpenLoop, Outcome, measure

RATE_MAX, SECONDS_MAX, CONNECTIONS_MAX = 200_000, 600, 1024


def encode_request(url: SplitResult, body: bytes, headers: list[str], method: str) -> bytes:
    """Return the bytes of the request."""
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    lines = [f"{method} {path} HTTP/1.1", f"Host: {url.netloc}", *headers]
    if body and not any(header.lower().startswith("content-type:") for header in headers):
        lines.append("Content-Type: application/json")
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def loopback_address(url: SplitResult) -> tuple[str, int]:
    """Return the address that `url` points to; reject any other machine than this one."""
    if url.scheme != "http" or url.hostname is None:
        raise SystemExit("the URL must start with http:// and name a host")
    try:
        address = socket.gethostbyname(url.hostname)
    except OSError as error:
        raise SystemExit(f"{url.hostname} has no address: {error}") from error
    if not ipaddress.ip_address(address).is_loopback:
        raise SystemExit(f"{url.hostname} is not a loopback address; this client loads its own machine only")
    return address, url.port or 80


def show(name: str, outcome: Outcome) -> None:
    """Print one outcome."""
    summary = outcome.summary()
    print(f"{name}: {outcome.answered} answers at {outcome.rate:.0f}/s, ", end="")
    print(f"late {summary['late_share']:.2%}, errors {outcome.errors}")
    for percentile, value in summary["latency_us"].items() if outcome.answered else ():
        print(f"  {percentile:>6} {value:10.1f} us")


def checked(rate: float, connections: int) -> tuple[float, int]:
    """Return a rate and a number of connections within the limits of a test on one machine."""
    if not (0 < rate <= RATE_MAX and 0 < connections <= CONNECTIONS_MAX):
        raise SystemExit(f"at most {RATE_MAX} requests/s and {CONNECTIONS_MAX} connections, all above 0")
    return rate, connections


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, default=1000, help="requests per second")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--warmup", type=float, default=0.5, help="seconds of uncounted load before the measurement")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--method", default="POST")
    parser.add_argument("--body", type=Path, help="file with the request body")
    parser.add_argument("--header", action="append", default=[], help="a header line, 'Name: value'")
    parser.add_argument(
        "--beside",
        nargs=4,
        metavar=("PATH", "BODY", "RATE", "CONNECTIONS"),
        help="a second load: the path of its POST, the file with its body, its rate and its connections",
    )
    parser.add_argument("--json", type=Path, help="file for the outcome with its HDR histogram")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    args = options()
    if not 0 < args.seconds <= SECONDS_MAX:
        raise SystemExit(f"at most {SECONDS_MAX} s, and more than 0")
    url = urlsplit(args.url)
    request = encode_request(url, args.body.read_bytes() if args.body else b"", args.header, args.method)
    loads = {url.path: Load(request, *checked(args.rate, args.connections))}
    if args.beside:
        path, body, rate, connections = args.beside
        other = encode_request(url._replace(path=path), Path(body).read_bytes(), [], "POST")
        loads[path] = Load(other, *checked(float(rate), int(connections)))
    outcomes = measure(OpenLoop(loopback_address(url), list(loads.values())), args.seconds, args.warmup)
    for name, outcome in zip(loads, outcomes, strict=True):
        show(name, outcome)
    if args.json:
        first, *others = (outcome.summary() for outcome in outcomes)
        args.json.write_text(json.dumps(first | {"beside": others}, indent=2) + "\n")
    if any(outcome.errors for outcome in outcomes):
        sys.exit(1)


if __name__ == "__main__":
    main()
