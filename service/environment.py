"""The environment variables of the service: which are read, which belong to others, and which are mistakes.

Kubernetes sets variables for every Service of a namespace. Those of a Service that is called softstep, or whose name
begins so, look like settings; `SOFTSTEP_PORT=tcp://10.0.0.1:8000` even has the name of one. They are ignored.
"""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

from pydantic_settings import EnvSettingsSource

if TYPE_CHECKING:
    from pydantic_settings import BaseSettings

PREFIX: Final = "SOFTSTEP_"
# Read at import, before the settings: the default and the meaning.
IMPORT_VARIABLES: Final = {
    "SOFTSTEP_KERNELS": (
        "beside the package",
        "Folder of compiled kernels. They are pickles: allow no other writer.",
    ),
    "NUMBA_CPU_NAME": ("the best baseline", "Processor to compile for; also set NUMBA_CPU_FEATURES, to nothing."),
}
# Where clients find a service, and the key that a proxy in front of it checks.
CLIENT_VARIABLES: Final = frozenset(("SOFTSTEP_URL", "SOFTSTEP_API_KEY"))
# Settings of earlier releases: the sentence after the name.
RENAMED: Final = {"SOFTSTEP_LOG_JSON": "was replaced by SOFTSTEP_LOG_FORMAT, which is json or text"}

LINK_NAME: Final = re.compile(
    r"SOFTSTEP_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?)", re.ASCII
)
LINK_PORT: Final = re.compile(r"SOFTSTEP_(\w+_)?PORT", re.ASCII)
LINK_URL: Final = re.compile("(tcp|udp|sctp)://", re.IGNORECASE)


def is_service_link(name: str, value: str) -> bool:
    """Return whether Kubernetes set a variable, by its name in upper case and its value."""
    return bool(LINK_NAME.fullmatch(name) or (LINK_PORT.fullmatch(name) and LINK_URL.match(value)))


def read_variables(environment: Mapping[str, str | None]) -> dict[str, str]:
    """Return the variables that settings are read from, without surrounding space, empty ones and service links."""
    stripped = {name: (value or "").strip() for name, value in environment.items()}
    return {name: value for name, value in stripped.items() if value and not is_service_link(name.upper(), value)}


def unknown_variables(environment: Mapping[str, str], known: Iterable[str]) -> list[str]:
    """Return a sentence for each variable that looks like a setting and is none.

    Args:
        environment: The environment.
        known: The names of all settings.
    """
    settings = {*known}
    names = sorted({*settings, *(name for name in IMPORT_VARIABLES if name.startswith(PREFIX))})
    sentences = []
    for name, value in sorted(environment.items()):
        upper = name.upper()  # names of settings are read without regard to case
        if not upper.startswith(PREFIX) or name in IMPORT_VARIABLES or upper in settings | CLIENT_VARIABLES:
            continue
        if is_service_link(upper, value.strip()):
            continue
        shown = name.encode("unicode_escape").decode()
        (nearest,) = get_close_matches(upper, names, 1, cutoff=0.0)
        sentences.append(f"{shown} {RENAMED.get(upper, f'is not a setting; the nearest name is {nearest}')}")
    return sentences


class EnvironmentSource(EnvSettingsSource):
    """Reads settings from the environment as `read_variables` returns it."""

    def __init__(self, settings_cls: "type[BaseSettings]") -> None:
        super().__init__(settings_cls)
        self.env_vars = read_variables(self.env_vars)
