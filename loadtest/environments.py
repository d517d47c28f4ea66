"""Virtual environments under build/bench: one for each peer and one for the client, built once.

Each is built from pinned requirements. A stamp file holds their hash, so an edited file rebuilds its environment. Peers
that share libraries with Softstep (uvicorn, NumPy) install the project's own lock first, so that versions are equal.
"""

import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "loadtest"
BUILD = ROOT / "build" / "bench"
LOCK = ROOT / "requirements.lock"
INSTALL_SECONDS = 900


class NotAvailableError(Exception):
    """A requirement of a measurement is not available here; the message is the reason shown in the results."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment: its folder's name, its pinned requirements, and the Python versions they support."""

    name: str
    requirements: tuple[Path, ...]
    pythons: tuple[str, ...] = ()

    @property
    def python(self) -> Path:
        """Return the interpreter of the environment."""
        return BUILD / self.name / "bin" / "python"

    def ensure(self) -> Path:
        """Build the environment unless it exists; return its interpreter."""
        base = self.interpreter()
        stamp = self.python.parent / "requirements.stamp"
        wanted = self.digest(base)
        if not (stamp.exists() and stamp.read_text() == wanted):
            print(f"building {self.python.parent.parent.relative_to(ROOT)} (once)", flush=True)
            self.build(base)
            stamp.write_text(wanted)
        return self.python

    def digest(self, base: str) -> str:
        """Return a hash of everything that the environment is built from."""
        parts = [base.encode(), *(path.read_bytes() for path in self.requirements)]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()

    def interpreter(self) -> str:
        """Return a Python that the requirements support: the running one, else the first on the path."""
        running = f"{sys.version_info.major}.{sys.version_info.minor}"
        if not self.pythons or running in self.pythons:
            return sys.executable
        for version in self.pythons:
            found = shutil.which(f"python{version}")
            # A version manager may put a stub on the path that cannot run Python.
            if found and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0:
                return found
        raise NotAvailableError(f"needs Python {' or '.join(self.pythons)}, and none is on the path")

    def build(self, base: str) -> None:
        """Build the environment in an empty folder."""
        folder = BUILD / self.name
        shutil.rmtree(folder, ignore_errors=True)
        uv = shutil.which("uv")
        run([uv, "venv", "--python", base, str(folder)] if uv else [base, "-m", "venv", str(folder)])
        installer = (
            [uv, "pip", "install", "--python", str(self.python)] if uv else [str(self.python), "-m", "pip", "install"]
        )
        for path in self.requirements:
            run([*installer, "--quiet", "--requirement", str(path)])


def run(command: list[str]) -> None:
    """Run one installation step; if it fails, its last line is the reason."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise NotAvailableError(f"could not be installed within {INSTALL_SECONDS} s") from error
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise NotAvailableError(f"could not be installed: {words[-1].strip()}")


CLIENT = Environment("client", (HERE / "requirements.txt",))
FASTAPI = Environment("fastapi", (LOCK, HERE / "peers" / "fastapi.txt"))
KERNELS = Environment("kernels", (LOCK, HERE / "peers" / "kernels.txt"))
NETWORKS = Environment("networks", (LOCK, HERE / "peers" / "kernels.txt", HERE / "peers" / "networks.txt"))
MLSERVER = Environment("mlserver", (HERE / "peers" / "mlserver.txt",), pythons=("3.11", "3.12"))
LITSERVE = Environment("litserve", (HERE / "peers" / "litserve.txt",))
TRITON = Environment("triton", (HERE / "peers" / "triton.txt",), pythons=("3.11", "3.12"))
