"""The file of API keys, keys.json: one record for each key, without the keys themselves.

    {"format": 1,
     "keys": [{"id": "k7m2q9xd", "name": "fraud team", "created": "2026-11-29T09:00:00Z",
               "scopes": ["predict", "feedback"], "models": ["fraud-*"] or null,
               "secrets": [{"sha256": "<64 hexadecimal digits>", "created": "2026-11-29T09:00:00Z",
                            "expires": "2027-02-27T09:00:00Z" or null}, ...],
               "limits": {"requests_per_second": 100, ...},
               "revoked": "2026-12-01T09:00:00Z" or null}, ...]}

A key that is rotated has two secrets until the older one expires. A key that is revoked has none, and its record stays:
events name it. The file is replaced whole (key_storage.py) and may be mounted read-only. Only its owner may read it: no
key can be made from the digests, but the records tell who may do what.

A service whose log is shared keeps a copy of the log's document (log_keys.py), which has `"copy_of": "log"` after the
format. No command changes a copy.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from service.access.api_key import ID_ALPHABET, ID_SIZE, digest_of, is_same, key_id_of
from service.access.principal import NO_LIMITS, Limits, Principal
from service.access.scopes import Scope
from service.errors import ApiKeysError
from service.store.filesystem import write_whole_file

FORMAT: Final = 1
# A larger file is not read: it holds some 10,000 keys.
FILE_BYTES_MAX: Final = 8 << 20
# How much longer the copy of a document is, at most.
COPY_BYTES: Final = 64
FILE_NAME: Final = "the file of API keys"
SECRETS_MAX: Final = 2
# The secrets of an id that is not in the file. Each key is compared with SECRETS_MAX digests, so that the time shows
# neither whether there is a key with its id, nor how many secrets that has.
UNKNOWN: Final = ((bytes(32), 0.0),) * SECRETS_MAX

Secret = tuple[bytes, float]
"""The digest of a key's text, and when the secret ends in seconds since 1970."""
Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class SecretRecord(_Record):
    """A secret of a key: the SHA-256 of the key's text, when it was made, and when it ends."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    created: AwareDatetime
    expires: AwareDatetime | None = None

    @property
    def end(self) -> float:
        """The end of the secret, in seconds since 1970."""
        return inf if self.expires is None else self.expires.timestamp()


class LimitsRecord(_Record):
    """The limits of a key (principal.py); null or missing for no limit."""

    requests_per_second: Amount | None = None
    rows_per_second: Amount | None = None
    requests_in_flight: Annotated[int, Field(ge=1)] | None = None
    feedback_events_per_hour: Amount | None = None
    importance_per_hour: Amount | None = None


class KeyRecord(_Record):
    """One key: its id, its name for people, what it permits, and its secrets."""

    id: Annotated[str, Field(pattern=f"^[{ID_ALPHABET}]{{{ID_SIZE}}}$")]
    name: Annotated[str, Field(max_length=200)]
    created: AwareDatetime
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)]
    models: tuple[str, ...] | None = None
    secrets: Annotated[tuple[SecretRecord, ...], Field(max_length=SECRETS_MAX)] = ()
    limits: LimitsRecord = LimitsRecord()
    revoked: AwareDatetime | None = None

    @property
    def actor(self) -> str:
        """The name of the key in events and in the audit log."""
        return f"key:{self.id}"


class KeysDocument(_Record):
    """The whole file."""

    format: Literal[1] = FORMAT
    copy_of: Literal["log"] | None = None
    keys: tuple[KeyRecord, ...]


class FileState(NamedTuple):
    """Properties of a file that change when its content does."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


class KeyTable:
    """The keys of a file, ready to look up.

    Args:
        records: The records of the keys.
    """

    def __init__(self, records: Iterable[KeyRecord] = ()) -> None:
        self._records: Final = {record.id: record for record in records}
        self._secrets: Final = {
            record.id: _padded([(bytes.fromhex(secret.sha256), secret.end) for secret in record.secrets])
            for record in self._records.values()
            if record.revoked is None
        }

    def find(self, text: bytes, now: float) -> Principal | None:
        """Return the principal of a key, or None if the file does not have it, or it has expired.

        Args:
            text: The text of the key.
            now: Seconds since 1970.
        """
        key_id = key_id_of(text)
        if key_id is None:
            return None
        digest, ends = digest_of(text), []
        for stored, end in self._secrets.get(key_id, UNKNOWN):
            if is_same(digest, stored):
                ends.append(end)
        if not ends or max(ends) <= now:
            return None
        record = self._records[key_id]
        limits = Limits(**record.limits.model_dump())
        if limits == NO_LIMITS:
            limits = NO_LIMITS  # compared by identity where each nanosecond counts
        return Principal(record.actor, frozenset(record.scopes), record.models, max(ends), limits)


def _padded(secrets: Sequence[Secret]) -> tuple[Secret, ...]:
    """Return as many secrets as a key may have."""
    return (*secrets, *UNKNOWN)[:SECRETS_MAX]


def read_keys(path: Path) -> KeysDocument:
    """Read a file of keys.

    Raises:
        FileNotFoundError: There is none.
        OSError: It cannot be read.
        ApiKeysError: It is damaged.
    """
    with path.open("rb") as file:
        content = file.read(FILE_BYTES_MAX + 1)
    return parse_document(content, FILE_NAME)


def parse_document(content: bytes, name: str) -> KeysDocument:
    """Parse a document of keys.

    Args:
        content: The document.
        name: What holds it, for errors.

    Raises:
        ApiKeysError: It is too large or damaged.
    """
    if len(content) > FILE_BYTES_MAX:
        raise ApiKeysError(f"{name} is larger than 8 MiB")
    try:
        document = KeysDocument.model_validate_json(content)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"])) or "the document"
        raise ApiKeysError(f"{name} is damaged at {place}; restore it or create keys again") from None
    if len({record.id for record in document.keys}) != len(document.keys):
        raise ApiKeysError(f"{name} has two keys with one id; restore it or create keys again")
    return document


def render_document(records: Iterable[KeyRecord], name: str, *, is_copy: bool = False) -> bytes:
    """Return the document of some keys.

    Args:
        records: The records of the keys.
        name: What will hold it, for errors.
        is_copy: Whether it is the copy of a log's document.

    Raises:
        ApiKeysError: It would be too large to be read.
    """
    document = KeysDocument(copy_of="log" if is_copy else None, keys=tuple(records))
    content = document.model_dump_json(indent=1, exclude=None if is_copy else {"copy_of"}).encode() + b"\n"
    if len(content) > FILE_BYTES_MAX - (0 if is_copy else COPY_BYTES):
        raise ApiKeysError(
            f"{name} would be larger than 8 MiB; delete records of keys that were revoked long ago from it"
        )
    return content


def write_keys(path: Path, records: Sequence[KeyRecord]) -> None:
    """Replace a file of keys, durably and whole; raise ApiKeysError if it would be too large to be read."""
    write_whole_file(path, [render_document(records, FILE_NAME)], durable=True, private=True)


def file_state(path: Path) -> FileState | None:
    """Return the state of a file, or None if there is none."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):  # the data directory may be a file, and nothing is learned then
        return None
    return FileState(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def utc_now() -> datetime:
    """Return the time in UTC, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)
