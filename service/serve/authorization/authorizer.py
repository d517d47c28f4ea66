"""Decide who sent a request, by the key or JWT in its head, and whether they may make it.

    no keys file yet, no other source of identities, not closed    everybody may do everything
    the same, and a shared log was not asked yet for keys           every call is refused
    otherwise                                                       each call needs a key or JWT with its scope

A service that others reach is closed from the start (access/exposure.py), and every service once a worker has read
keys, so that no worker opens it if the file is missing when that worker starts.

A client's certificate counts where a request has no key (certificate_scopes.py); a key counts alone.

The file is looked at twice a second. A key that is revoked, or has expired, is refused within a second: what was
decided before is forgotten then, and so are the remembered heads. A file that disappears, or is damaged, leaves the
keys as they were; it never opens the service. The same holds for JWTs and the keys of their issuer.
"""

import asyncio
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Final

from service.access.exposure import may_be_open
from service.access.jwt_verifier import JwtVerifier, make_jwt_verifier
from service.access.key_file import FileState, KeyTable, file_state, read_keys
from service.access.principal import ANYONE, Principal
from service.access.scopes import Scope
from service.errors import ApiKeysError, KeyInvalidError, KeyMissingError, ModelNotPermittedError, ScopeMissingError
from service.log_events import logger
from service.process.shared_memory import SharedCell, SharedMemory
from service.serve.authorization.certificate_scopes import CertificateScopes
from service.serve.responses import RequestHead
from service.settings import Settings

# Time between two looks at the file: half of what a revocation may take.
WATCH_SECONDS: Final = 0.5
# Credentials whose principals are remembered. Keys have 68 bytes each, and JWTs one or two KiB.
REMEMBERED_MAX: Final = 4096
REMEMBERED_BYTES_MAX: Final = 16 << 20
BEARER: Final = b"bearer "
MISSING: Final = "This call needs a key: send Authorization: Bearer <key>, or X-API-Key: <key>."
MISSING_ANY: Final = "This call needs a JWT or a key: send Authorization: Bearer <JWT or key>, or X-API-Key: <key>."
INVALID: Final = "The key is not valid: it is unknown, revoked or expired; use another one."

OnChange = Callable[[], None]
OnExpiry = Callable[[float], None]


class Authorizer:
    """Finds the principal of a request; used on the event loop's thread.

    Args:
        path: The file of API keys.
        jwts: Finds the principals of JWTs; None if no issuer is set.
        certificates: What clients may do by their certificates, or None.
        closed: Whether a key is required even while there is no file.
        unknown: Whether it is unknown if there are keys; None if it is known.

    Attributes:
        on_change: Called when what was decided before no longer holds.
        on_expiry: Called with a time when principals that expire until then no longer count.

    Raises:
        ApiKeysError: The file cannot be read or is damaged.
    """

    def __init__(
        self,
        path: Path,
        jwts: JwtVerifier | None = None,
        certificates: CertificateScopes | None = None,
        *,
        closed: bool = False,
        unknown: SharedCell | None = None,
    ) -> None:
        self.on_change: Final[list[OnChange]] = []
        self.on_expiry: Final[list[OnExpiry]] = []
        self._jwts: Final = jwts
        self._path: Final = path
        self._certificates: Final = certificates
        self._state: FileState | None = None
        self._table: KeyTable | None = KeyTable() if closed else None
        self._unknown: Final = unknown
        self._awaits_log = unknown is not None and bool(unknown.get())
        self._remembered: dict[bytes, Principal] = {}
        self._remembered_bytes = 0
        self._next_end = inf
        self._certificate_ends = {inf}
        self._reported: str | None = None
        self.use(self._read_changed())

    async def start(self) -> None:
        """Begin to follow the keys of the issuer of JWTs, and wait for the first of them, for a bounded time."""
        if self._jwts is not None:
            self._jwts.source.start()
            await asyncio.to_thread(self._jwts.source.wait_until_tried)

    @property
    def is_open(self) -> bool:
        """Whether everybody may do everything."""
        return not self.has_identities and not self._awaits_log

    @property
    def has_identities(self) -> bool:
        """Whether callers are known: by keys, JWTs or certificates."""
        return self._table is not None or self._jwts is not None or self._certificates is not None

    def authorize(self, head: RequestHead, scope: Scope, model: str | None = None) -> Principal:
        """Return who sent a request.

        Args:
            head: Its head.
            scope: The scope of its call.
            model: The name of the model that it is for, if it is for one.

        Raises:
            AccessError: They may not make it.
        """
        principal = self.principal_of(head)
        if scope not in principal.scopes:
            raise ScopeMissingError(f"The key has no scope {scope}; use one that has it.")
        if model is not None:
            check_model(principal, model)
        return principal

    def principal_of(self, head: RequestHead) -> Principal:
        """Return the sender of a request; raise an AccessError if that is unknown."""
        if self.is_open:
            return ANYONE
        credential = _credential_of(head)
        if credential is None and head.certificate is not None and self._certificates is not None:
            self._certificate_ends.add(head.certificate.expires)
            return self._certificates.principal_of(head.certificate)
        if credential is None:
            raise KeyMissingError(MISSING if self._jwts is None else MISSING_ANY)
        now = time.time()
        principal = self._remembered.get(credential)
        if principal is None or principal.expires <= now:
            principal = self._find(credential, now)
            self._remember(credential, principal)
        return principal

    def _find(self, credential: bytes, now: float) -> Principal:
        """Return the principal of a key or JWT; a key has no dot, and a JWT has two."""
        if self._jwts is not None and b"." in credential:
            return self._jwts.verify(credential, now)
        principal = None if self._table is None else self._table.find(credential, now)
        if principal is None:
            raise KeyInvalidError(INVALID)
        return principal

    def _remember(self, credential: bytes, principal: Principal) -> None:
        """Remember the principal of a credential that is valid."""
        self._remembered_bytes += len(credential)
        if len(self._remembered) >= REMEMBERED_MAX or self._remembered_bytes > REMEMBERED_BYTES_MAX:
            self._remembered.clear()
            self._remembered_bytes = len(credential)
        self._remembered[credential] = principal
        self._next_end = min(self._next_end, principal.expires)

    def read_changed(self) -> KeyTable | None:
        """Return the keys if the file has changed since the last call, else None; this reads the disk."""
        try:
            return self._read_changed()
        except ApiKeysError as error:
            self._report(str(error))
            return None

    def _read_changed(self) -> KeyTable | None:
        """Do the same, but raise ApiKeysError if the file cannot be read or is damaged."""
        try:
            state = file_state(self._path)
            if state == self._state:
                return None
            if state is None:
                raise ApiKeysError("the file of API keys is missing")
            table = KeyTable(read_keys(self._path).keys)
        except OSError as error:
            raise ApiKeysError(f"the file of API keys cannot be read: {error.strerror}") from None
        self._state, self._reported = state, None
        return table

    def use(self, table: KeyTable | None) -> None:
        """Use the keys that `read_changed` has returned, and forget what no longer holds."""
        if table is None:
            self.forget_expired()
        else:
            self._table = table
            self.forget()

    def forget_expired(self) -> None:
        """Forget what has expired, or everything if the issuer of JWTs has other keys; this reads no disk."""
        has_answered = self._awaits_log and self._unknown is not None and not self._unknown.get()
        if has_answered or (self._jwts is not None and self._jwts.has_changed()):
            self._awaits_log &= not has_answered
            self.forget()
            return
        now = time.time()
        if min(self._next_end, *self._certificate_ends) <= now:
            self._certificate_ends = {inf, *(end for end in self._certificate_ends if end > now)}
            self._keep({text: principal for text, principal in self._remembered.items() if principal.expires > now})
            for forget_expired in self.on_expiry:
                forget_expired(now)

    def forget(self) -> None:
        """Forget what was decided before."""
        self._keep({})
        for forget in self.on_change:
            forget()

    def _keep(self, remembered: dict[bytes, Principal]) -> None:
        """Remember these credentials alone."""
        self._remembered = remembered
        self._remembered_bytes = sum(map(len, remembered))
        self._next_end = min((principal.expires for principal in remembered.values()), default=inf)

    def _report(self, reason: str) -> None:
        """Log a file that cannot be read, once for each reason."""
        if reason != self._reported:
            self._reported = reason
            logger.event("keys_not_read", reason=reason)


def make_authorizer(
    settings: Settings, certificates: CertificateScopes | None, actor_key: bytes, memory: SharedMemory
) -> Authorizer:
    """Make the authorizer of a worker. Once it has keys, workers that start later are closed, even without a file.

    Args:
        settings: Where keys and JWTs come from.
        certificates: What clients may do by their certificates, or None.
        actor_key: The key of the names of actors.
        memory: Says whether a worker has read keys, and whether it is unknown if there are some.
    """
    jwts = make_jwt_verifier(settings, actor_key)
    closed = bool(memory.keyed.get()) or not may_be_open(settings)
    authorizer = Authorizer(settings.keys_path, jwts, certificates, closed=closed, unknown=memory.keys_unknown)

    def note_keys() -> None:
        if authorizer.has_identities:
            memory.keyed.set(1)

    authorizer.on_change.append(note_keys)
    note_keys()
    return authorizer


def check_model(principal: Principal, model: str) -> None:
    """Raise ModelNotPermittedError if a sender may not make calls for a model, whether it exists or not."""
    if not principal.permits_model(model):
        raise ModelNotPermittedError("The key does not permit this model; use one that does.")


def check_all_models(principal: Principal) -> None:
    """Raise ModelNotPermittedError if a sender may make calls for some models only."""
    if principal.models is not None:
        raise ModelNotPermittedError("This call is about all models; use a key that is not limited to some.")


def _credential_of(head: RequestHead) -> bytes | None:
    """Return the key or JWT of a request: X-API-Key, which no proxy adds, before Authorization."""
    if head.api_key is not None:
        return head.api_key.strip()
    value = head.authorization
    if value is None or value[: len(BEARER)].lower() != BEARER:
        return None
    return value[len(BEARER) :].strip()
