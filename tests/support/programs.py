"""Programs that tests run beside the service; .ci/run installs them."""

import shutil

import pytest

# The Debian package of each.
PACKAGES = {
    "bwrap": "bubblewrap",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "nginx": "nginx-light",
    "h2load": "nghttp2-client",
    "openssl": "openssl",
    "tini": "tini",
}


def program(name: str) -> str:
    """Return the path of a program; fail the test if it is not installed."""
    path = shutil.which(name)
    if path is None:
        pytest.fail(f"{name} is missing: apt-get install --no-install-recommends {PACKAGES[name]}")
    return path
