"""Virtual environments under build/bench: one for each peer and one for the client, built once.

Each is built from pinned requirements. A stamp file holds their hash, so an edited file rebuilds its environment. Peers
that share libraries with Softstep (uvicorn, NumPy) install the project's own lock first, so that versions are equal.
Tests build those of the client libraries that they run in the same way (tests/clients/environments.py).
"""

import hashlib
import platform
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
    """A virtual environment.

    Attributes:
        name: The name of its folder.
        requirements: Files of pinned requirements.
        pythons: The Python versions that they support, or none if they support all.
        parent: The folder that has its folder.
        locked: Whether the files name every package with its hash, so that nothing is resolved.
        machines: The processors that they support, as `platform.machine` names them, or none if they support all.
    """

    name: str
    requirements: tuple[Path, ...]
    pythons: tuple[str, ...] = ()
    parent: Path = BUILD
    locked: bool = False
    machines: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Return the folder of the environment."""
        return self.parent / self.name

    @property
    def python(self) -> Path:
        """Return the interpreter of the environment."""
        return self.folder / "bin" / "python"

    def ensure(self) -> Path:
        """Build the environment unless it exists; return its interpreter."""
        base = self.interpreter()
        stamp = self.python.parent / "requirements.stamp"
        wanted = self.digest(base)
        if not (stamp.exists() and stamp.read_text() == wanted):
            print(f"building {self.folder.relative_to(ROOT)} (once)", flush=True)
            self.build(base)
            stamp.write_text(wanted)
        return self.python

    def digest(self, base: str) -> str:
        """Return a hash of everything that the environment is built from."""
        parts = [base.encode(), *(path.read_bytes() for path in self.requirements)]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()

    def interpreter(self) -> str:
        """Return a Python that the requirements support: the running one, else the first on the path."""
        if self.machines and platform.machine() not in self.machines:
            raise NotAvailableError(f"needs a processor of {' or '.join(self.machines)}")
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
        shutil.rmtree(self.folder, ignore_errors=True)
        uv = shutil.which("uv")
        if uv:
            run([uv, "venv", "--python", base, str(self.folder)])
            installer = [uv, "pip", "install", "--python", str(self.python)]
        else:
            # Locked requirements name every package, so pip and setuptools are left out too.
            run([base, "-m", "venv", *(["--without-pip"] if self.locked else []), str(self.folder)])
            # Modules are compiled when they are first imported; most of them never are.
            installer = [sys.executable, "-m", "pip", "--python", str(self.python), "install", "--no-compile"]
        checks = ["--require-hashes", "--no-deps"] if self.locked else []
        for path in self.requirements:
            run([*installer, "--quiet", *checks, "--requirement", str(path)])


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
PIPELINE = Environment("pipeline", (LOCK, HERE / "peers" / "fastapi.txt", HERE / "peers" / "pipeline.txt"))
KERNELS = Environment("kernels", (LOCK, HERE / "peers" / "kernels.txt"))
NETWORKS = Environment("networks", (LOCK, HERE / "peers" / "kernels.txt", HERE / "peers" / "networks.txt"))
MLSERVER = Environment("mlserver", (HERE / "peers" / "mlserver.txt",), pythons=("3.11", "3.12"))
LITSERVE = Environment("litserve", (HERE / "peers" / "litserve.txt",))
EMBEDDINGS = Environment("embeddings", (ROOT / "docs" / "examples" / "embed_texts.txt",), locked=True)
VOWPAL = Environment("vowpalwabbit", (HERE / "peers" / "vowpalwabbit.txt",), locked=True, machines=("x86_64",))
TRITON = Environment("triton", (HERE / "peers" / "triton.txt",), pythons=("3.11", "3.12"))
