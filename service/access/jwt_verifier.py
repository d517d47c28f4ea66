"""JSON Web Tokens (RFC 7519) as an issuer signs them, and the principals that they name.

A JWT has three parts in base64url, separated by dots:

    header       {"alg": "RS256", "kid": "<the key>", "typ": "JWT" or "at+jwt"}
    payload      {"iss": "<issuer>", "aud": "<audience>" or a list, "sub": "<subject>", "exp": <seconds since 1970>,
                  "nbf" and "iat": <seconds since 1970>, and the claims of scopes and models}
    signature    of both parts before it

The settings, and never the JWT, say which algorithms and keys count. Members of the header that bring a key, or say
where one is, have no effect: `jwk`, `jku`, `x5c`, `x5u`. A header with `crit` is refused, because nothing here
implements an extension. The payload is parsed only if the signature is valid.
"""

import re
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, NamedTuple

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from joserfc.errors import JoseError
from joserfc.jwa import JWSAlgModel
from joserfc.jws import JWSRegistry, deserialize_compact
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.access.actor_names import hashed_actor
from service.access.jwks_source import JwksSource
from service.access.principal import Principal
from service.access.scopes import Scope
from service.access.signing_keys import SigningKey
from service.errors import IssuerUnavailableError, KeyInvalidError
from service.settings import Settings

# As long as the head of a request may be by default. A JWT with 1,000 scopes has 20 KiB.
JWT_BYTES_MAX: Final = 32 << 10
# In base64url. Usual ones have 100 to 200 characters.
HEADER_CHARACTERS_MAX: Final = 1024
SIGNATURE_CHARACTERS_MAX: Final = 1366  # of the longest RSA key
# How far the clocks of issuer and service may differ. The end of a JWT has no such leeway.
LEEWAY_SECONDS: Final = 30.0
FORM: Final = re.compile(
    rb"(?P<header>[A-Za-z0-9_-]{1,%d})\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{1,%d}"
    % (HEADER_CHARACTERS_MAX, SIGNATURE_CHARACTERS_MAX)
)
# Access tokens by either name (RFC 9068). Others, such as logout tokens, have types of their own.
TYPES: Final = frozenset(("jwt", "at+jwt", "application/at+jwt"))
# Members of a header that change how the rest is read (RFC 7515 and RFC 7797).
EXTENSIONS: Final = frozenset(("crit", "b64"))
# Issuers still write the name that RFC 9864 has replaced.
NEWER_NAMES: Final = {"EdDSA": "Ed25519"}

MALFORMED: Final = "The JWT cannot be parsed; send the access token that the issuer has signed, unchanged."
ALGORITHM: Final = (
    "The JWT is signed with an algorithm that is not accepted; SOFTSTEP_JWT_ALGORITHMS has those that are."
)
UNKNOWN_KEY: Final = "The key that signed the JWT is not among those of the issuer; get a new one."
SIGNATURE: Final = "The signature of the JWT is not valid; send it unchanged, or get a new one."
CLAIMS: Final = "The JWT lacks iss, aud, sub or exp, or a claim has another type; configure the issuer."
ISSUER: Final = "The JWT is of another issuer; get one of the issuer in SOFTSTEP_JWT_ISSUER."
AUDIENCE: Final = "The JWT is for another audience; get one for the audience in SOFTSTEP_JWT_AUDIENCE."
EXPIRED: Final = "The JWT has expired; get a new one."
EARLY: Final = "The JWT is not valid yet; compare the clocks of this service and the issuer."
UNAVAILABLE: Final = "The keys of the issuer of JWTs cannot be read now; try again in a moment."


class JwtRules(NamedTuple):
    """The rules that a JWT must meet, and the claims with its scopes and models.

    Attributes:
        issuer: The value of `iss`.
        audience: The value of `aud`, or one of them.
        algorithms: The algorithms that are accepted.
        scopes_claim: The claim with the scopes: a list, or a string with spaces between them.
        scope_prefix: What stands before the name of a scope in that claim.
        models_claim: The claim with the patterns of models, or None if every model is permitted.
    """

    issuer: str
    audience: str
    algorithms: frozenset[str]
    scopes_claim: str
    scope_prefix: str
    models_claim: str | None


class _Header(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, hide_input_in_errors=True)

    alg: str
    kid: str | None = None
    typ: str = "JWT"


class _Claims(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, hide_input_in_errors=True)

    iss: str
    aud: str | list[str]
    sub: Annotated[str, Field(min_length=1)]
    exp: Annotated[float, Field(allow_inf_nan=False)]
    nbf: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    iat: Annotated[float, Field(allow_inf_nan=False)] = 0.0


class _Registry(JWSRegistry):
    """Joserfc's rules of a header, with the limits of this module; members that are not registered are ignored.

    Args:
        algorithms: The algorithms that are accepted.
    """

    max_header_length = HEADER_CHARACTERS_MAX
    max_payload_length = JWT_BYTES_MAX
    max_signature_length = SIGNATURE_CHARACTERS_MAX

    def __init__(self, algorithms: Iterable[str]) -> None:
        super().__init__(algorithms={NEWER_NAMES.get(name, name) for name in algorithms}, strict_check_header=False)

    def get_alg(self, name: str) -> JWSAlgModel:
        """Return the algorithm of a name, also of an older one, of which joserfc would warn."""
        return super().get_alg(NEWER_NAMES.get(name, name))


class JwtVerifier:
    """Finds the principal of a JWT.

    Args:
        rules: The rules that a JWT must meet.
        source: The keys of the issuer.
        actor_key: The key of actors' names.
    """

    def __init__(self, rules: JwtRules, source: JwksSource, actor_key: bytes) -> None:
        self.source: Final = source
        self._rules: Final = rules
        self._actor_key: Final = actor_key
        self._keys_seen = source.keys
        self._registry: Final = _Registry(rules.algorithms)

    def verify(self, text: bytes, now: float) -> Principal:
        """Return the principal of a JWT.

        Args:
            text: The JWT.
            now: Seconds since 1970.

        Raises:
            KeyInvalidError: It is not valid.
            IssuerUnavailableError: The keys of the issuer are unknown.
        """
        form = FORM.fullmatch(text) if len(text) <= JWT_BYTES_MAX else None
        if form is None:
            raise KeyInvalidError(MALFORMED)
        claims = _parse_claims(self._verify_signature(text, form["header"]))
        checked = self._check_claims(claims, now)
        return Principal(
            hashed_actor("jwt", self._actor_key, checked.iss, checked.sub),
            self._scopes_of(claims),
            self._models_of(claims),
            checked.exp,
        )

    def has_changed(self) -> bool:
        """Whether the keys of the issuer have changed since the last call."""
        before, self._keys_seen = self._keys_seen, self.source.keys
        return before is not self._keys_seen

    def _verify_signature(self, text: bytes, header_text: bytes) -> bytes:
        """Return the payload of a JWT whose signature is valid."""
        header = _parse_header(header_text)
        if header.alg not in self._rules.algorithms:
            raise KeyInvalidError(ALGORITHM)
        for key in self._keys_for(header):
            try:
                return deserialize_compact(text, key.key, registry=self._registry).payload
            except (JoseError, ValueError, UnsupportedAlgorithm):
                continue
        raise KeyInvalidError(SIGNATURE)

    def _keys_for(self, header: _Header) -> list[SigningKey]:
        """Return the keys that may have signed a JWT with this header; one without `kid` needs no choice."""
        keys = self.source.keys
        if keys is None:
            raise IssuerUnavailableError(UNAVAILABLE)
        fitting = [key for key in keys if header.alg in key.algorithms]
        if header.kid is not None:
            fitting = [key for key in fitting if key.id == header.kid]
        if not fitting or (header.kid is None and len(fitting) > 1):
            self.source.want_keys()
            raise KeyInvalidError(UNKNOWN_KEY)
        return fitting

    def _check_claims(self, claims: Mapping[str, Any], now: float) -> _Claims:
        """Return the claims that every JWT must have, if they permit a request now."""
        try:
            checked = _Claims.model_validate(claims)
        except ValidationError:
            raise KeyInvalidError(CLAIMS) from None
        if checked.iss != self._rules.issuer:
            raise KeyInvalidError(ISSUER)
        if self._rules.audience not in ([checked.aud] if isinstance(checked.aud, str) else checked.aud):
            raise KeyInvalidError(AUDIENCE)
        if checked.exp <= now:
            raise KeyInvalidError(EXPIRED)
        if max(checked.nbf, checked.iat) > now + LEEWAY_SECONDS:
            raise KeyInvalidError(EARLY)
        return checked

    def _scopes_of(self, claims: Mapping[str, Any]) -> frozenset[Scope]:
        """Return the scopes in a JWT; others in the same claim are not for this service."""
        entries = set(_words(claims.get(self._rules.scopes_claim)))
        return frozenset(scope for scope in Scope if f"{self._rules.scope_prefix}{scope}" in entries)

    def _models_of(self, claims: Mapping[str, Any]) -> tuple[str, ...] | None:
        """Return the patterns of models in a JWT, or None if it needs none."""
        claim = self._rules.models_claim
        return None if claim is None else tuple(_words(claims.get(claim)))


def make_jwt_verifier(settings: Settings, actor_key: bytes) -> JwtVerifier | None:
    """Return the verifier that the settings ask for, or None if they name no issuer."""
    if settings.jwt_issuer is None or settings.jwt_audience is None or settings.jwt_keys is None:
        return None
    rules = JwtRules(
        settings.jwt_issuer,
        settings.jwt_audience,
        frozenset(settings.jwt_algorithms),
        settings.jwt_scopes_claim,
        settings.jwt_scope_prefix,
        settings.jwt_models_claim,
    )
    return JwtVerifier(rules, JwksSource.of(settings.jwt_keys, settings.jwt_keys_seconds), actor_key)


def _parse_header(text: bytes) -> _Header:
    """Return the header of a JWT."""
    try:
        members = orjson.loads(urlsafe_b64decode(text + b"=="))
        header = _Header.model_validate(members)
    except (ValidationError, ValueError):
        raise KeyInvalidError(MALFORMED) from None
    if header.typ.lower() not in TYPES or not EXTENSIONS.isdisjoint(members):
        raise KeyInvalidError(MALFORMED)
    return header


def _parse_claims(payload: bytes) -> dict[str, Any]:
    """Return the claims of a JWT."""
    try:
        claims = orjson.loads(payload)
    except ValueError:
        raise KeyInvalidError(MALFORMED) from None
    if not isinstance(claims, dict):
        raise KeyInvalidError(MALFORMED)
    return claims


def _words(value: object) -> list[str]:
    """Return the words of a claim: a list of them, or a string with spaces between them."""
    words = value.split(" ") if isinstance(value, str) else value
    return [word for word in words if isinstance(word, str) and word] if isinstance(words, list) else []
