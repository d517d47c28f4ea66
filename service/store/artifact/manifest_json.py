"""Parsing and writing of `model.json`.

Parsing is strict in two steps: JSON according to RFC 8259 (UTF-8, no byte order mark, no duplicate keys, no NaN), then
the fields of `manifest.py` (none unknown, no type converted).
"""

import json
from collections.abc import Mapping
from typing import NoReturn

from pydantic import ValidationError

from service.errors import ArtifactError
from service.record import NAME_CHARACTERS_MAX
from service.store.artifact.manifest import EXTENDED_FORMAT_VERSION, FORMAT_VERSION, Manifest
from service.store.artifact.reasons import shorten_reason


def parse_manifest(raw: bytes) -> Manifest:
    """Parse the bytes of a `model.json`.

    Args:
        raw: The whole file; the caller has limited its size.

    Returns:
        The manifest; `Artifact` checks whether the tensors agree with it.

    Raises:
        ArtifactError: The bytes are not strict JSON, or not a valid manifest.
    """
    _check_json(raw)
    try:
        return Manifest.model_validate_json(raw)
    except ValidationError as error:
        raise ArtifactError(f"model.json is not a valid manifest: {_first_problem(error)}") from None


def dump_manifest(manifest: Manifest) -> bytes:
    """Return a manifest as JSON with one field on each line, so that versions are easy to compare.

    Returns:
        UTF-8 bytes that `parse_manifest` parses to an equal manifest.
    """
    fields = manifest.model_dump(mode="json", exclude_none=True)
    if manifest.fields is not None:
        fields["fields"] = manifest.describe_fields()
    lines = [f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def manifest_from_fields(fields: Mapping[str, object]) -> Manifest:
    """Return the manifest of the fields that `Artifact.from_fields` takes, with a hash of zeros.

    Raises:
        ArtifactError: The fields are not a valid manifest.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    features = given.get("features")
    if isinstance(features, int) and not isinstance(features, bool):
        given["features"] = [f"feature_{number}" for number in range(features)]
    version = EXTENDED_FORMAT_VERSION if given.keys() & {"mixture", "fields"} else FORMAT_VERSION
    document = {"format_version": version, **given, "tensors_sha256": "0" * 64}
    return parse_manifest(json.dumps(document).encode())


def _check_json(raw: bytes) -> None:
    """Refuse what pydantic's parser accepts: duplicate keys, of which it uses the last, and NaN."""
    try:
        # Only pydantic converts numbers; parse_int=float avoids Python's limit on the digits of integers.
        json.loads(raw.decode(), object_pairs_hook=_refuse_duplicates, parse_constant=_refuse_constant, parse_int=float)
    except UnicodeDecodeError:
        raise ArtifactError("model.json is not UTF-8") from None
    except RecursionError:
        raise ArtifactError("model.json is nested too deeply") from None
    except ValueError as error:
        raise ArtifactError(f"model.json is not valid JSON: {error}") from None


def _refuse_duplicates(pairs: list[tuple[str, object]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("an object has the same key twice")


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


def _first_problem(error: ValidationError) -> str:
    """Return the first error as `field: problem`, shortened and printable, because keys may come from the file."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(str(part)[:NAME_CHARACTERS_MAX] for part in problem["loc"])
    sentence = problem["msg"].removeprefix("Value error, ")
    return shorten_reason(f"{field}: {sentence}" if field else sentence)
