"""API keys for tests: written to a file as `softstep keys` writes them."""

from pathlib import Path
from typing import Any

from service.access.api_key import digest_of, make_key
from service.access.key_file import KeyRecord, SecretRecord, read_keys, utc_now, write_keys
from service.access.scopes import Scope


def add_key(path: Path, *scopes: Scope, expires: Any = None, **fields: Any) -> str:
    """Add a new key to a file, which need not exist, and return its text; further fields are those of its record."""
    key = make_key()
    now = utc_now()
    secret = SecretRecord(sha256=digest_of(key.text.encode()).hex(), created=now, expires=expires)
    record = KeyRecord(
        id=key.id, name="a test", created=now, scopes=scopes or tuple(Scope), secrets=(secret,), **fields
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_keys(path, (*(read_keys(path).keys if path.exists() else ()), record))
    return key.text


def bearer(key: str) -> tuple[str, str]:
    """Return the header that carries a key."""
    return "Authorization", f"Bearer {key}"
