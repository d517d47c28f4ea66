"""A Softstep service of this checkout that a script starts, signals and starts again, on one port."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from environments import ROOT
from processes import environment, stop, wait_until_ready

MODELS = ROOT / "models"
SECONDS = 20.0


@dataclass
class CheckoutService:
    """One service: its port, the folder for its data and log, and its settings without the prefix."""

    port: int
    folder: Path
    settings: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> list[str]:
        """Return the command that serves the shipped models."""
        options = ["--models", str(MODELS), "--data", str(self.folder / "data"), "--port", str(self.port)]
        return [sys.executable, "-m", "service", "serve", *options]

    def variables(self) -> dict[str, str]:
        """Return the environment of the service: no setting but its own."""
        kept = {name: value for name, value in environment().items() if not name.startswith(("SOFTSTEP_", "AIP_"))}
        return kept | {f"SOFTSTEP_{name.upper()}": str(value) for name, value in self.settings.items()}

    def start(self) -> None:
        """Start the service and wait until it is ready."""
        log = self.folder / "log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command, env=self.variables(), cwd=ROOT, stdout=output, stderr=output, start_new_session=True
            )
        wait_until_ready(self.process, self.port, "/readyz", log)

    def terminate(self) -> int:
        """Send SIGTERM to the service and return its exit code."""
        if self.process is None:
            raise ValueError("the service was not started")
        self.process.terminate()
        return self.process.wait(SECONDS)

    @contextmanager
    def running(self) -> Iterator["CheckoutService"]:
        """Run the service until the end of the block."""
        try:
            self.start()
            yield self
        finally:
            if self.process is not None and self.process.returncode is None:
                stop(self.process)
