"""Read the settings from options, the environment, the contract of a platform, and defaults; know which is which.

Provides `read_settings`, which every command calls, `list_settings` for `softstep config`, and `log_environment` for
commands that a service starts. Sentences about invalid settings name the variable or the option and what it accepts,
never the value.
"""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import AliasChoices, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import ErrorType

from service.environment import IMPORT_VARIABLES, PREFIX, read_variables, unknown_variables
from service.errors import SoftstepError
from service.setting_types import Form
from service.settings import Settings

# The settings that are options too.
OPTIONS: Final = ("models", "data", "log", "role", "host", "port", "workers")
# The settings that say where the log and what it belongs to are, beside the data directory.
LOG_SETTINGS: Final = ("log", "log_copies", "log_seconds", "models", "artifact_bytes_max")
# The folder in which SageMaker mounts a model, and the port to which it sends requests.
SAGEMAKER_MODEL: Final = Path("/opt/ml/model")
SAGEMAKER_PORT: Final = 8080
SAGEMAKER: Final = "SageMaker"
# Errors of pydantic's own, whose messages describe its types; those of the settings' own checks say more.
PYDANTIC_ERRORS: Final = frozenset(get_args(ErrorType))
KINDS: Final = {int: "whole number", float: "number", bool: "true or false", Path: "directory"}


class InvalidSettingsError(SoftstepError):
    """A setting is unknown or has an invalid value; nothing is started.

    Attributes:
        sentences: A sentence for each such setting, without its value.
    """

    def __init__(self, *sentences: str) -> None:
        super().__init__("; ".join(sentences))
        self.sentences = sentences


class Setting(NamedTuple):
    """One row of `softstep config`.

    Attributes:
        variable: The environment variable.
        value: The value, "set" for a secret, or None if it is unset.
        source: "default", "environment", "option", "SageMaker", or another platform's variable.
        accepts: The accepted form.
        meaning: What the setting does.
    """

    variable: str
    value: str | float | list[str] | None
    source: str
    accepts: str
    meaning: str


def read_settings(arguments: argparse.Namespace) -> Settings:
    """Return the settings of the environment, overridden by options; in a SageMaker container also by its contract.

    Raises:
        InvalidSettingsError: A variable is unknown or has an invalid value.
    """
    unknown = unknown_variables(os.environ, map(variable_of, Settings.model_fields))
    if unknown:
        raise InvalidSettingsError(*unknown)
    try:
        return Settings(**_contract(arguments), **_options(arguments))
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False, include_context=False)
        raise InvalidSettingsError(*(_sentence(fault, arguments) for fault in faults)) from None


def list_settings(settings: Settings, arguments: argparse.Namespace) -> list[Setting]:
    """Return every setting with its value and where that comes from, and the variables that are read at import."""
    fields = Settings.model_fields
    rows = [
        Setting(
            variable_of(name),
            _shown(getattr(settings, name)),
            _source(name, arguments),
            accepted_form(field),
            field.description or "",
        )
        for name, field in fields.items()
    ]
    for name, (default, meaning) in IMPORT_VARIABLES.items():
        value = os.environ.get(name)
        source = "default" if value is None else "environment"
        rows.append(Setting(name, default if value is None else value, source, "text", meaning))
    return rows


def log_environment(environment: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Return the environment of a command that uses the log of a service, wherever that has its settings from.

    The address may hold a password, which other users would see on a command line.
    """
    variables = {variable_of(name): getattr(settings, name) for name in LOG_SETTINGS}
    kept = {name: value for name, value in environment.items() if name.upper() not in variables}
    return kept | {name: _as_variable(value) for name, value in variables.items() if value is not None}


def variable_of(name: str) -> str:
    """Return the environment variable of a setting."""
    return f"{PREFIX}{name.upper()}"


def accepted_form(field: FieldInfo) -> str:
    """Return which values a setting accepts."""
    for one in field.metadata:
        if isinstance(one, Form):
            return one.text
    if get_origin(field.annotation) is Literal:
        return " or ".join(get_args(field.annotation))
    kind = KINDS.get(field.annotation, "text") if isinstance(field.annotation, type) else "text"
    bounds = []
    for bound in field.metadata:
        match bound:
            case Ge():
                bounds.append(f"≥ {bound.ge}")
            case Gt():
                bounds.append(f"> {bound.gt}")
            case Le():
                bounds.append(f"≤ {bound.le}")
    return " ".join([kind, ", ".join(bounds)]).strip()


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that options give."""
    return {name: value for name in OPTIONS if (value := getattr(arguments, name, None)) is not None}


def _contract(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of SageMaker's contract that no option overrides."""
    options = _options(arguments)
    if (
        not SAGEMAKER_MODEL.is_dir()
        or "models" in options
        or variable_of("models") in _upper(read_variables(os.environ))
    ):
        return {}
    contract = {"models": SAGEMAKER_MODEL, "port": SAGEMAKER_PORT, "host": "0.0.0.0"}  # noqa: S104
    return {name: value for name, value in contract.items() if name not in options}


def _source(name: str, arguments: argparse.Namespace) -> str:
    """Return where the value of a setting comes from."""
    if name in _options(arguments):
        return "option"
    if name in _contract(arguments):
        return SAGEMAKER
    alias = Settings.model_fields[name].validation_alias
    names = alias.choices if isinstance(alias, AliasChoices) else [variable_of(name)]
    found = next((str(one) for one in names if one in _upper(read_variables(os.environ))), None)
    return {None: "default", variable_of(name): "environment"}.get(found, str(found))


def _upper(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by name in upper case: settings are read without regard to case."""
    return {name.upper(): value for name, value in environment.items()}


def _shown(value: object) -> str | float | list[str] | None:
    """Return a value as it is shown; never a secret."""
    match value:
        case SecretStr():
            return "set"
        case tuple():
            return list(value)
        case None | int() | float():
            return value
        case _:
            return str(value)


def _as_variable(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _sentence(fault: ErrorDetails, arguments: argparse.Namespace) -> str:
    """Return the sentence about an invalid value, or about values that do not fit together."""
    if not fault["loc"]:
        return fault["msg"]
    name = str(fault["loc"][0])
    source = _source(name, arguments)
    shown = {"option": f"--{name}", "environment": variable_of(name)}.get(source, source)
    if fault["type"] not in PYDANTIC_ERRORS:
        return f"{shown}: {fault['msg']}"
    return f"{shown} has an invalid value; accepted: {accepted_form(Settings.model_fields[name])}"
