"""Restart a service under load, again and again, and count the requests that failed (figure C2).

    python loadtest/restarts.py [--restarts 20] [--connections 32] [--write]

Clients keep connections busy with predictions and feedback: directly, behind nginx with its defaults, and behind nginx
that keeps connections to its backends. A request fails if its connection was established and it got no answer, or none
with 2xx. A connection that is refused has sent nothing, so the client tries again, as a proxy does.

Behind nginx there are two services, restarted in turn. nginx passes over a backend for ten seconds after a refused
connection. So the next restart comes after them, as in any rolling update that waits until the new one has traffic.
"""

import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from checkout_service import CheckoutService
from machine import describe
from operations import read_options, report, row
from processes import free_port

SECONDS = 20.0
RETRY_SECONDS = 0.01
# Time of a client between two requests. A test sets it, so that clients leave the processor to the restarts.
PAUSE_SECONDS = 0.0
NGINX_FAIL_SECONDS = 11.0
ABOUT = (
    "Each service with two workers and a drain of 2 s; every other connection sends feedback, the others predictions, "
    "each request as soon as the one before is answered."
)
BODIES = {
    "predict": b'{"instances":[[5.1,3.5,1.4,0.2]]}',
    "feedback": b'{"instances":[[5.1,3.5,1.4,0.2]],"labels":[0]}',
}
NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream backends {{ {servers} {keep} }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://backends; {one_point_one} }}
  }}
}}
"""


@dataclass
class Tally:
    """Counts of the clients of one run."""

    answered: int = 0
    refused: int = 0
    closed: int = 0
    failures: list[str] = field(default_factory=list)


@dataclass
class Clients:
    """Clients that keep connections busy until they are stopped."""

    port: int
    connections: int
    stopped: threading.Event = field(default_factory=threading.Event)
    tallies: list[Tally] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator["Clients"]:
        """Send until the end of the block."""
        threads = [threading.Thread(target=self._keep_busy, args=(number,)) for number in range(self.connections)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self.stopped.set()
            for thread in threads:
                thread.join(SECONDS)

    def total(self) -> Tally:
        """Return the sum over all connections."""
        return Tally(
            sum(tally.answered for tally in self.tallies),
            sum(tally.refused for tally in self.tallies),
            sum(tally.closed for tally in self.tallies),
            [failure for tally in self.tallies for failure in tally.failures],
        )

    def _keep_busy(self, number: int) -> None:
        """Send one request after the other; connect again when the server says that it closes the connection."""
        kind = list(BODIES)[number % len(BODIES)]
        head = f"POST /v1/models/iris:{kind} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(BODIES[kind])}\r\n\r\n"
        request = head.encode() + BODIES[kind]
        tally = Tally()
        self.tallies.append(tally)
        while not self.stopped.is_set():
            try:
                connection = socket.create_connection(("127.0.0.1", self.port), SECONDS)
            except OSError:
                tally.refused += 1
                self.stopped.wait(RETRY_SECONDS)
                continue
            with connection:
                try:
                    self._use(connection, request, tally)
                except OSError as error:
                    tally.failures.append(type(error).__name__)

    def _use(self, connection: socket.socket, request: bytes, tally: Tally) -> None:
        """Send requests over a connection until the server announces that it closes it."""
        with connection.makefile("rb") as answers:
            while not self.stopped.is_set():
                connection.sendall(request)
                fault, closes = read_answer(answers)
                if fault:
                    tally.failures.append(fault)
                    return
                tally.answered += 1
                if closes:
                    tally.closed += 1
                    return
                self.stopped.wait(PAUSE_SECONDS)


def read_answer(answers: BinaryIO) -> tuple[str, bool]:
    """Read one answer; return what is wrong with it, if anything, and whether the connection closes."""
    start = answers.readline()
    length, closes = -1, False
    while (line := answers.readline()) not in (b"\r\n", b""):
        name, _, value = line.strip().lower().partition(b": ")
        length = int(value) if name == b"content-length" else length
        closes = closes or (name, value) == (b"connection", b"close")
    body = answers.read(length) if length >= 0 else b""
    if len(body) != length:
        return "no answer", True
    status = start.split()[1].decode()
    if status.startswith("2"):
        return "", closes
    code = re.search(rb'"code":"(\w+)"', body)
    return f"{status} {code[1].decode() if code else ''}".strip(), True


def restart_directly(folder: Path, connections: int, restarts: int, **settings: object) -> Tally:
    """Restart a service while clients use it directly."""
    service = CheckoutService(free_port(), folder, settings)
    clients = Clients(service.port, connections)
    with service.running(), clients.running():
        for _ in range(restarts):
            time.sleep(1)
            restart(service, clients)
    return clients.total()


def restart(service: CheckoutService, clients: Clients) -> None:
    """Restart a service; an exit code other than 0 counts as a failure."""
    code = service.terminate()
    if code:
        clients.tallies.append(Tally(failures=[f"exit code {code}"]))
    service.start()


def restart_behind_nginx(folder: Path, connections: int, restarts: int, *, keep: bool, **settings: object) -> Tally:
    """Restart two services in turn while clients use them by way of nginx."""
    # nginx names its group of backends as the host, which a service without keys refuses unless it is open.
    settings = {**settings, "open": True}
    services = [CheckoutService(free_port(), folder / name, settings) for name in ("first", "second")]
    clients = Clients(free_port(), connections)
    with ExitStack() as stack:
        for service in services:
            stack.enter_context(service.running())
        stack.enter_context(nginx(folder, clients.port, [service.port for service in services], keep=keep))
        stack.enter_context(clients.running())
        for number in range(restarts):
            time.sleep(1 if number == 0 else NGINX_FAIL_SECONDS)
            restart(services[number % 2], clients)
    return clients.total()


@contextmanager
def nginx(folder: Path, port: int, backends: list[int], *, keep: bool) -> Iterator[None]:
    """Run nginx in front of some ports; `keep` makes it keep its connections to them."""
    text = NGINX.format(
        folder=folder,
        port=port,
        servers=" ".join(f"server 127.0.0.1:{backend};" for backend in backends),
        keep="keepalive 32;" if keep else "",
        one_point_one='proxy_http_version 1.1; proxy_set_header Connection "";' if keep else "",
    )
    (folder / "nginx.conf").write_text(text)
    process = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")])
    try:
        wait_until_listening(port)
        yield
    finally:
        process.terminate()
        process.wait(SECONDS)


def wait_until_listening(port: int) -> None:
    """Wait until a port accepts connections."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(RETRY_SECONDS)
        else:
            return
    raise SystemExit(f"nothing listens on port {port}")


def show(name: str, restarts: int, tally: Tally) -> list[str]:
    """Return a row of the page."""
    kinds = ", ".join(sorted(set(tally.failures)))
    value = f"{len(tally.failures)} of {tally.answered + len(tally.failures):,}{f' ({kinds})' if kinds else ''}"
    return row(f"failed requests in {restarts} restarts, {name}", "0", value, met=not tally.failures)


def main() -> None:
    """Measure and print."""
    options = read_options(__doc__, restarts=20, connections=32)
    if shutil.which("nginx") is None:
        raise SystemExit("nginx is not on the path; install your system's package of that name")
    machine, counts = describe(), (options.connections, options.restarts)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        scratch.chmod(0o755)  # nginx's worker may be another user
        direct = restart_directly(scratch / "direct", *counts, workers=2)
        default = restart_behind_nginx(scratch / "default", *counts, keep=False, workers=2)
        keeping = restart_behind_nginx(scratch / "keeping", *counts, keep=True, workers=2)
    runs = {
        "clients connected directly": direct,
        "two services behind nginx's defaults": default,
        "two services behind nginx with `keepalive 32`": keeping,
    }
    rows = [show(name, options.restarts, tally) for name, tally in runs.items()]
    report("restarts", ABOUT, rows, machine, write=options.write)


if __name__ == "__main__":
    main()
