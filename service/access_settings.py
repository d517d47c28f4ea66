"""The settings of access: who may call, over which connections, and how often."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings


class AccessSettings(BaseSettings):
    """The part of `Settings` that says who may call."""

    # Who may call
    keys_file: Path | None = Field(
        None,
        description="File of API keys, which `softstep keys` writes. Unset: keys.json in the data directory. While "
        "there is none, everybody may make every call.",
    )
