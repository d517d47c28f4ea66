"""The file of SOFTSTEP_TLS_SUBJECTS: what the clients may do whose certificates the client CA has signed.

    {"format": 1,
     "subjects": [{"certificate": {"CN": "scoring-*", "O": "Example"},
                   "scopes": ["predict"], "models": ["fraud-*"] or null,
                   "limits": {"requests_per_second": 100, ...}}, ...]}

An entry is for the certificates that have a name of each type with a matching value; `*` stands for any characters. The
first such entry counts. It is matched name by name: patterns for a whole subject could be met by a comma in one value.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.access.client_certificate import ClientCertificate
from service.access.key_file import LimitsRecord
from service.access.principal import Limits, Principal
from service.access.scopes import Scope
from service.errors import TlsFileError

FORMAT: Final = 1
# A larger file is not read: it holds some 10,000 entries.
FILE_BYTES_MAX: Final = 4 << 20

NamePattern = Annotated[str, Field(min_length=1, max_length=1000)]


class SubjectRecord(BaseModel):
    """An entry: the names of certificates, and what their clients may do."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    certificate: Annotated[dict[NamePattern, NamePattern], Field(min_length=1)]
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)]
    models: tuple[str, ...] | None = None
    limits: LimitsRecord = LimitsRecord()

    def matches(self, certificate: ClientCertificate) -> bool:
        """Whether the entry is for a certificate."""
        return all(
            any(kind == name and fnmatchcase(value, pattern) for kind, value in certificate.names)
            for name, pattern in self.certificate.items()
        )


class SubjectsDocument(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    format: Literal[1] = FORMAT
    subjects: tuple[SubjectRecord, ...] = ()


class SubjectTable:
    """The entries of a file, ready to look up.

    Args:
        records: The entries, in order.
    """

    def __init__(self, records: Iterable[SubjectRecord] = ()) -> None:
        self._records: Final = tuple(records)

    def find(self, certificate: ClientCertificate, actor_key: bytes) -> Principal | None:
        """Return the principal of a verified certificate, or None if no entry is for it.

        Args:
            certificate: The certificate.
            actor_key: The key of the names of actors.
        """
        for record in self._records:
            if record.matches(certificate):
                limits = Limits(**record.limits.model_dump())
                scopes = frozenset(record.scopes)
                return Principal(certificate.actor(actor_key), scopes, record.models, certificate.expires, limits)
        return None


def read_subjects(path: Path) -> SubjectTable:
    """Read a file of subjects.

    Raises:
        OSError: It cannot be read.
        TlsFileError: It is damaged.
    """
    with path.open("rb") as file:
        content = file.read(FILE_BYTES_MAX + 1)
    if len(content) > FILE_BYTES_MAX:
        raise TlsFileError("the file of certificate subjects is larger than 4 MiB")
    try:
        return SubjectTable(SubjectsDocument.model_validate_json(content).subjects)
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"][:3]) or "the document"
        raise TlsFileError(f"the file of certificate subjects is not valid at {place}") from None
