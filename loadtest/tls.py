"""Measure a service with TLS beside nginx with the same certificate (figure K2).

    python loadtest/tls.py [--seconds 5] [--rounds 5] [--write]

wrk keeps 16 connections busy. Softstep predicts one row of iris; nginx answers a body of the same size from its
configuration. Each has one worker on the first core, and they run in turns; wrk has the last core.
"""

import json
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from certificate import write_certificate
from checkout_service import CheckoutService
from closedloop import CONNECTIONS, WARMUP_SECONDS, wrk
from environments import ROOT
from machine import describe
from operations import read_options, report, row
from processes import free_port, serving

RATIO_MIN = 0.5
PATH = "/v1/models/iris:predict"
ROW = [5.1, 3.5, 1.4, 0.2]
# The answer to that row, without its body's line end.
ANSWER = '{"predictions":[[0.97,0.02,0.01]],"labels":["setosa"],"model_name":"iris","model_version":"1"}'
NGINX = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    server {{
        listen 127.0.0.1:{port} {tls};
        ssl_certificate {certificate};
        ssl_certificate_key {certificate};
        ssl_protocols TLSv1.2 TLSv1.3;
        default_type application/json;
        location / {{ return 200 '{answer}'; }}
    }}
}}
"""
ABOUT = (
    "One worker each on one core, wrk with {connections} connections that stay open on another; the median of {rounds} "
    "rounds in turns. nginx answers a fixed body of the same size."
)


def softstep_command(port: int, folder: Path, certificate: Path | None) -> list[str]:
    """Return the command that serves the shipped models, with TLS or without."""
    tls = [] if certificate is None else [f"SOFTSTEP_TLS_CERTIFICATE={certificate}"]
    return ["env", "-C", str(ROOT), *tls, *CheckoutService(port, folder).command]


@contextmanager
def softstep(folder: Path, certificate: Path | None) -> Iterator[int]:
    """Run Softstep, and return its port."""
    port = free_port()
    command = softstep_command(port, folder, certificate)
    with serving(command, port, "/readyz", folder / "log", context=trusting(certificate)):
        yield port


@contextmanager
def nginx(folder: Path, certificate: Path) -> Iterator[int]:
    """Run nginx with TLS, and return its port."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)  # nginx's worker may be another user
    port = free_port()
    text = NGINX.format(folder=folder, port=port, certificate=certificate, answer=ANSWER, tls="ssl")
    (folder / "nginx.conf").write_text(text)
    command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with serving(command, port, "/", folder / "log", context=trusting(certificate)):
        yield port


def trusting(certificate: Path | None) -> ssl.SSLContext | None:
    """Return the context of a client that trusts one certificate, or None without one."""
    return None if certificate is None else ssl.create_default_context(cafile=certificate)


def rate(port: int, body: Path, seconds: int, scheme: str) -> float:
    """Return the requests/s of one server."""
    words = [str(body), "Content-Type", "application/json"]

    def load(seconds: int) -> dict[str, Any]:
        return wrk(port, PATH, "post.lua", words, connections=CONNECTIONS, seconds=seconds, scheme=scheme)

    load(WARMUP_SECONDS)
    seen = load(seconds)
    if seen["not_2xx"] or seen["broken"] or not seen["requests"]:
        raise SystemExit(f"requests failed: {seen}")
    return float(seen["requests"] / seen["seconds"])


def version_of_nginx() -> str:
    """Return the version of nginx."""
    return subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr.rpartition("/")[2].strip()


def main() -> None:
    """Measure and print."""
    options = read_options(__doc__, seconds=5, rounds=5)
    if shutil.which("nginx") is None:
        raise SystemExit("nginx is not on the path; install your system's package of that name")
    machine, rounds = describe(), []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        scratch.chmod(0o755)
        body, certificate = scratch / "body", write_certificate(scratch)
        body.write_text(json.dumps({"instances": [ROW]}))
        for _ in range(options.rounds):
            with softstep(scratch / "tls", certificate) as port:
                ours = rate(port, body, options.seconds, "https")
            with nginx(scratch / "nginx", certificate) as port:
                theirs = rate(port, body, options.seconds, "https")
            with softstep(scratch / "plain", None) as port:
                plain = rate(port, body, options.seconds, "http")
            rounds.append((ours, theirs, plain))
            print(f"  {ours:,.0f} with TLS, nginx {theirs:,.0f}, {plain:,.0f} without TLS", flush=True)
    ratio = median(ours / theirs for ours, theirs, _ in rounds)
    low, high = (edge(ours / theirs for ours, theirs, _ in rounds) for edge in (min, max))
    ours, theirs, plain = (median(values) for values in zip(*rounds, strict=True))
    title = f"K2: requests/s with TLS, compared with nginx {version_of_nginx()}"
    value = f"{ratio:.2f} ({low:.2f} to {high:.2f}): {ours:,.0f} and {theirs:,.0f}; {plain:,.0f} without TLS"
    rows = [row(title, f"≥ {RATIO_MIN:g}", value, met=ratio >= RATIO_MIN)]
    report("tls", ABOUT.format(connections=CONNECTIONS, rounds=options.rounds), rows, machine, write=options.write)


if __name__ == "__main__":
    main()
