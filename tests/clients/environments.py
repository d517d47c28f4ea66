"""Virtual environments of the libraries that tests run, under build; `make clients` builds them."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.support.paths import ROOT
from tests.support.scripts import load_script

environments = load_script("loadtest/environments.py")


def environment(name: str, *pythons: str) -> Any:
    """Return the environment of the locked requirements of that name, and the Python versions that they support."""
    requirements = ROOT / "tests" / "clients" / "requirements" / f"{name}.txt"
    return environments.Environment(name, (requirements,), pythons, parent=ROOT / "build" / "clients", locked=True)


def is_available(client: Any) -> bool:
    """Return whether this machine has a processor and a Python that the client supports."""
    with contextlib.suppress(environments.NotAvailableError):
        return bool(client.interpreter())
    return False


AUTOGRAD = environment("autograd")
KSERVE = environment("kserve", "3.11", "3.12", "3.13")
MLFLOW = environment("mlflow")
MLSERVER = environment("mlserver", "3.11", "3.12")
EMBEDDINGS = environments.EMBEDDINGS
VOWPAL = environments.VOWPAL
ALL = (AUTOGRAD, KSERVE, MLFLOW, MLSERVER, EMBEDDINGS, VOWPAL)


if __name__ == "__main__":
    # Installing waits for the network more than for the processor.
    with ThreadPoolExecutor() as pool:
        list(pool.map(environments.Environment.ensure, filter(is_available, ALL)))
