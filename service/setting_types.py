"""Types of settings: the values that they accept, and how a value in the environment is read."""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, cast

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_core import PydanticCustomError
from pydantic_settings import NoDecode

MiB = 1 << 20
KEYS: Final = re.compile("[0-9A-Fa-f]{64}(,[0-9A-Fa-f]{64})*")
# A web page's origin as a browser sends it, or "null" for a page without one; * is all.
ORIGIN: Final = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^\s/,?#@A-Z]+")
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


Port = Annotated[int, Field(ge=0, le=65535)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
Route = Annotated[
    Annotated[str, Field(pattern="^/[A-Za-z0-9._~:/-]*$")] | None, Form("path of a URL, from the first slash on")
]
OriginList = Annotated[
    tuple[str, ...], NoDecode, BeforeValidator(_split_origins), Form("origins separated by commas, or *")
]
LocalFolder = Annotated[Path, AfterValidator(_refuse_url)]
TokenKeyList = Annotated[
    Annotated[SecretStr, AfterValidator(_refuse_no_key)] | None,
    Form("64 hexadecimal digits; several keys separated by commas"),
]
