"""Types of settings: the values that they accept, and how a value in the environment is read."""

import ipaddress
import json
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_core import PydanticCustomError
from pydantic_settings import NoDecode

MiB = 1 << 20
KEYS: Final = re.compile("[0-9A-Fa-f]{64}(,[0-9A-Fa-f]{64})*")
# A web page's origin as a browser sends it, or "null" for a page without one; * is all.
ORIGIN: Final = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^\s/,?#@A-Z]+")
# Public-key algorithms alone (RFC 7518 and RFC 9864): with a shared secret every service that checks could also sign.
ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "Ed25519", "EdDSA"),
)
VISIBLE: Final = re.compile("[!-~]+")  # the characters of a URL
LOG_ADDRESS: Final = re.compile("postgres(ql)?://[!-~]+")
URL: Final = re.compile("[A-Za-z][A-Za-z0-9+.-]+:/")  # a Path drops one of the two slashes


class Form(NamedTuple):
    """The accepted form of a setting, where its type does not say it."""

    text: str


def _split_origins(value: object) -> object:
    """Split a JSON list, or a list separated by commas, into valid origins."""
    origins = value
    if isinstance(value, str):
        try:
            origins = json.loads(value) if value.lstrip().startswith("[") else value.split(",")
        except ValueError:
            origins = [value]
    origins = [one.strip() if isinstance(one, str) else one for one in cast("list[Any]", origins)]
    origins = [one for one in origins if one != ""]  # after a last comma
    if not all(isinstance(one, str) and ORIGIN.fullmatch(one) for one in origins):
        message = (
            "An origin is like https://a.example or http://a.example:8080, without a path; separate several by "
            "commas, or write * for all"
        )
        raise PydanticCustomError("no_origin", message)
    return tuple(origins)


def _split_networks(value: object) -> object:
    """Split a list separated by commas into valid networks."""
    networks = value.split(",") if isinstance(value, str) else value
    networks = [one.strip() for one in cast("list[str]", networks)]
    try:
        return tuple(str(ip_network(one)) for one in networks if one)
    except ValueError:
        message = "A network is like 10.0.0.0/8, or an address like 192.0.2.7; separate several by commas"
        raise PydanticCustomError("no_network", message) from None


def _refuse_url(models: Path) -> Path:
    """Reject the URL of a store, which would otherwise count as the name of a folder."""
    if URL.match(str(models)):
        message = "Models are read from a local directory, not from a URL; copy or mount them"
        raise PydanticCustomError("not_local", message)
    return models


def _refuse_no_key(key: SecretStr) -> SecretStr:
    """Reject an invalid key at the start, without repeating it."""
    if not KEYS.fullmatch(key.get_secret_value()):
        raise PydanticCustomError("no_key", "A key has 64 hexadecimal digits; separate several keys by commas")
    return key


def _refuse_other_log(address: SecretStr) -> SecretStr:
    """Reject the address of a log of another kind at the start, without repeating it: it may contain a password."""
    if not LOG_ADDRESS.fullmatch(address.get_secret_value()):
        message = "The log is SQLite in the data directory, or PostgreSQL: an address that begins with postgresql://"
        raise PydanticCustomError("no_log", message)
    return address


def _split_algorithms(value: object) -> object:
    """Split a list separated by commas into names of algorithms."""
    names = value.split(",") if isinstance(value, str) else cast("tuple[str, ...]", value)
    names = [name.strip() for name in names if name.strip()]
    if not names or not {*names}.issubset(ALGORITHMS):
        raise PydanticCustomError(
            "no_algorithm", f"Algorithms are some of {', '.join(ALGORITHMS)}, separated by commas"
        )
    return tuple(names)


def _refuse_unsafe_url(location: str) -> str:
    """Reject a URL over which another host could answer with its own keys."""
    if "://" in location and not _is_safe(location):
        message = (
            "A key set is at the path of a file, or at a URL with https, a host and no password; http is for "
            "addresses of this machine alone"
        )
        raise PydanticCustomError("no_key_set", message)
    return location


def _is_safe(location: str) -> bool:
    """Return whether the answer of a URL comes from the host that it names."""
    try:
        url = urlsplit(location)
        host, port = url.hostname or "", url.port
    except ValueError:
        return False
    usual = VISIBLE.fullmatch(location) and host and port != 0 and "@" not in url.netloc and not url.fragment
    return bool(usual) and (url.scheme == "https" or (url.scheme == "http" and _is_loopback(host)))


def _is_loopback(host: str) -> bool:
    """Return whether a host is this machine by its name or address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


Port = Annotated[int, Field(ge=0, le=65535)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
Route = Annotated[
    Annotated[str, Field(pattern="^/[A-Za-z0-9._~:/-]*$")] | None, Form("path of a URL, from the first slash on")
]
OriginList = Annotated[
    tuple[str, ...], NoDecode, BeforeValidator(_split_origins), Form("origins separated by commas, or *")
]
NetworkList = Annotated[
    tuple[str, ...], NoDecode, BeforeValidator(_split_networks), Form("networks and addresses separated by commas")
]
LocalFolder = Annotated[Path, AfterValidator(_refuse_url)]
TokenKeyList = Annotated[
    Annotated[SecretStr, AfterValidator(_refuse_no_key)] | None,
    Form("64 hexadecimal digits; several keys separated by commas"),
]
LogAddress = Annotated[
    Annotated[SecretStr, AfterValidator(_refuse_other_log)] | None,
    Form("postgresql://user@host:port/database"),
]
AlgorithmList = Annotated[
    tuple[str, ...], NoDecode, BeforeValidator(_split_algorithms), Form("names of algorithms separated by commas")
]
JwksLocation = Annotated[
    Annotated[str, AfterValidator(_refuse_unsafe_url)] | None, Form("path of a file, or a URL with https")
]
