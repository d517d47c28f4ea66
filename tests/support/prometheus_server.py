"""A real Prometheus that scrapes a service, and promtool."""

import contextlib
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.support.processes import CLIENT
from tests.support.programs import program
from tests.support.waiting import wait_until

START_SECONDS = STOP_SECONDS = 30.0

CONFIGURATION = """
global: {{scrape_interval: 200ms, evaluation_interval: 200ms}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: softstep
    authorization: {{credentials_file: "{key_file}"}}
    static_configs: [{{targets: ["{target}"]}}]
"""


def promtool(*arguments: str | Path, text: str | None = None) -> str:
    """Run promtool and return what it prints; fail with it if promtool finds a fault."""
    done = subprocess.run(  # fixed arguments
        [program("promtool"), *map(str, arguments)], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class PrometheusServer(NamedTuple):
    """A running Prometheus."""

    url: str

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of a call of its API; fail if it reports an error."""
        answer = CLIENT.get(f"{self.url}/api/v1/{path}", params=parameters).json()
        assert answer["status"] == "success", f"{parameters}: {answer}"
        return answer["data"]

    def query(self, expression: str) -> list[Any]:
        """Return the result of a query, one entry for each series."""
        return list(self.ask("query", query=expression)["result"])


@contextlib.contextmanager
def scraping(target: str, key: str, rules: Path, scratch: Path) -> Iterator[PrometheusServer]:
    """Run Prometheus until the end of the block, with alert rules, and scrape a service five times a second.

    Args:
        target: The host and port of the service.
        key: The key that the service requires.
        rules: The file of alert rules.
        scratch: Where the configuration, the data and the log of Prometheus are written.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    configuration = scratch / "prometheus.yaml"
    key_file = scratch / "softstep.key"
    key_file.write_text(key)
    configuration.write_text(CONFIGURATION.format(rules=rules, target=target, key_file=key_file))
    command = [
        program("prometheus"),
        f"--config.file={configuration}",
        f"--storage.tsdb.path={scratch / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (scratch / "prometheus.log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until(lambda: _is_ready(url), START_SECONDS)
            yield PrometheusServer(url)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_SECONDS)


def _is_ready(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{url}/-/ready", timeout=2).status_code == httpx.codes.OK
    return False
