"""The public keys with which an issuer signs JWTs, read from a JSON Web Key Set (RFC 7517).

A key of a kind that is not used here is skipped, as the RFC asks: a symmetric one, one for encryption, or one of
another curve. So is a weak one, and one whose private part is in the set, because others may have it.
"""

from base64 import urlsafe_b64decode
from typing import Annotated, Any, Final, Literal, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from service.errors import SigningKeysError

# A larger set is not read. Issuers publish two to ten keys, of one or two KiB each with their certificates.
JWKS_BYTES_MAX: Final = 256 << 10
KEYS_MAX: Final = 100
# NIST SP 800-131A allows no shorter key; a longer one than 8192 bits takes milliseconds to verify a signature.
RSA_BITS_MIN: Final = 2048
RSA_BITS_MAX: Final = 8192

RSA_ALGORITHMS: Final = frozenset(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"))
CURVE_ALGORITHMS: Final = {
    "P-256": frozenset(("ES256",)),
    "P-384": frozenset(("ES384",)),
    "P-521": frozenset(("ES512",)),
    "Ed25519": frozenset(("Ed25519", "EdDSA")),  # two names of one algorithm (RFC 9864)
}

# Almost every key has 65537 as its exponent; a huge one makes each verification slow.
Exponent = Annotated[str, Field(pattern="^[A-Za-z0-9_-]+$", max_length=11)]  # 64 bits
Number = Annotated[str, Field(pattern="^[A-Za-z0-9_-]+$", max_length=RSA_BITS_MAX // 6 + 1)]


class SigningKey(NamedTuple):
    """A public key.

    Attributes:
        id: Its `kid`, or None.
        algorithms: The algorithms of the signatures that it may verify.
        key: The key itself.
    """

    id: str | None
    algorithms: frozenset[str]
    key: RSAKey | ECKey | OKPKey


class _PublicJwk(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, hide_input_in_errors=True)

    kid: str | None = None
    alg: str | None = None
    use: Literal["sig"] | None = None
    key_ops: list[str] | None = None
    d: None = None  # the private part


class _RsaJwk(_PublicJwk):
    kty: Literal["RSA"]
    n: Number
    e: Exponent


class _CurveJwk(_PublicJwk):
    kty: Literal["EC"]
    crv: Literal["P-256", "P-384", "P-521"]
    x: Number
    y: Number


class _OctetJwk(_PublicJwk):
    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    x: Number


class _JwkSet(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, hide_input_in_errors=True)

    keys: Annotated[list[dict[str, Any]], Field(max_length=KEYS_MAX)]


AnyJwk: Final[TypeAdapter[_RsaJwk | _CurveJwk | _OctetJwk]] = TypeAdapter(
    Annotated[_RsaJwk | _CurveJwk | _OctetJwk, Field(discriminator="kty")]
)


def parse_jwks(content: bytes) -> tuple[SigningKey, ...]:
    """Return the keys of a JSON Web Key Set that can verify signatures.

    Raises:
        SigningKeysError: It is no such set, or has no such key.
    """
    if len(content) > JWKS_BYTES_MAX:
        raise SigningKeysError("the key set is larger than 256 KiB")
    try:
        document = _JwkSet.model_validate_json(content)
    except ValidationError:
        raise SigningKeysError(f"it is not a JSON Web Key Set of at most {KEYS_MAX} keys") from None
    keys = tuple(key for key in map(_import_key, document.keys) if key is not None)
    if not keys:
        raise SigningKeysError("the key set has no public key that can verify a signature")
    return keys


def _import_key(members: dict[str, Any]) -> SigningKey | None:
    """Return a key, or None if it is skipped."""
    try:
        jwk = AnyJwk.validate_python(members)
        key, algorithms = _convert(jwk)
    except (ValidationError, JoseError, ValueError, UnsupportedAlgorithm):
        return None
    if jwk.alg is not None:
        algorithms &= {jwk.alg}
    if not algorithms or (jwk.key_ops is not None and "verify" not in jwk.key_ops):
        return None
    return SigningKey(jwk.kid, algorithms, key)


def _convert(jwk: _RsaJwk | _CurveJwk | _OctetJwk) -> tuple[RSAKey | ECKey | OKPKey, frozenset[str]]:
    """Return the key and its algorithms; raise what joserfc or cryptography raises of an invalid one."""
    if isinstance(jwk, _RsaJwk):
        modulus = int.from_bytes(urlsafe_b64decode(f"{jwk.n}=="), "big")
        if not RSA_BITS_MIN <= modulus.bit_length() <= RSA_BITS_MAX:
            raise ValueError("the size of the key is out of range")
        return RSAKey.import_key({"kty": "RSA", "n": jwk.n, "e": jwk.e}), RSA_ALGORITHMS
    if isinstance(jwk, _CurveJwk):
        curve = ECKey.import_key({"kty": "EC", "crv": jwk.crv, "x": jwk.x, "y": jwk.y})
        return curve, CURVE_ALGORITHMS[jwk.crv]
    octets = OKPKey.import_key({"kty": "OKP", "crv": jwk.crv, "x": jwk.x})
    return octets, CURVE_ALGORITHMS[jwk.crv]
