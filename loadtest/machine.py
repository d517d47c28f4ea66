"""The machine of the numbers: processor, kernel, and the version of everything that took part."""

import os
import platform
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from environments import BUILD, ROOT
from processes import CLIENT_CORE, CORES, SERVER_CORE

FLAGS = ("avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512_bf16", "asimd", "sve")
PACKAGES = (
    "autograd",
    "fastapi",
    "httptools",
    "litserve",
    "mlserver",
    "numba",
    "numpy",
    "nvidia_pytriton",
    "onnxruntime",
    "orjson",
    "pydantic",
    "pybase64",
    "pysimdjson",
    "river",
    "scikit_learn",
    "softstep",
    "starlette",
    "torch",
    "uvicorn",
    "uvloop",
    "vowpalwabbit",
)


def describe() -> dict[str, Any]:
    """Return the facts that a reader needs to judge the numbers."""
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^(?:model name|CPU part)\s*:\s*(.*)$", info, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", info, re.MULTILINE)
    have = set(flags.group(1).split()) if flags else set()
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "processor": model.group(1).strip() if model else platform.machine(),
        "cores": len(CORES),
        "server_core": SERVER_CORE,
        "client_core": CLIENT_CORE,
        "flags": [flag for flag in FLAGS if flag in have],
        "kernel": platform.release(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "wrk": first_line(["wrk", "-v"]),
        "versions": versions(),
    }


def first_line(command: list[str]) -> str:
    """Return the first line that a command prints to either output; only some of the measurements need each command."""
    if shutil.which(command[0]) is None:
        return "not installed"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return ((done.stdout or done.stderr).splitlines() or ["unknown"])[0].strip()


def versions() -> dict[str, dict[str, str]]:
    """Return the installed versions of the relevant packages, by environment."""
    found = {}
    for folder in [ROOT / ".venv", *sorted(path for path in BUILD.glob("*") if (path / "bin" / "python").exists())]:
        names = (path.name.removesuffix(".dist-info") for path in folder.glob("lib/python*/site-packages/*.dist-info"))
        pairs = (name.rpartition("-") for name in names)
        found[folder.name.lstrip(".")] = {name: version for name, _, version in sorted(pairs) if name in PACKAGES}
    return found
