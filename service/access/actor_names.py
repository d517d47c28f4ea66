"""The names of actors whom another service vouches for: keyed hashes, so that no event tells who sent it.

    "<kind>:<32 hexadecimal digits>"    BLAKE2b with a key, over the parts of the identity, each after its length

The key comes from the key of feedback tokens. So replicas that share that key write the same name for one identity,
and without it no one can look an identity up by trying names.
"""

from hashlib import blake2b
from typing import Final

HASH_BYTES: Final = 16
KEY_BYTES: Final = 32
LENGTH_BYTES: Final = 4
PURPOSE: Final = b"softstep actor"  # makes another key of the secret than any other use of it


def actor_key_of(secret: bytes) -> bytes:
    """Return the key of the names, which is made of a secret of at most 64 bytes."""
    return blake2b(key=secret, digest_size=KEY_BYTES, person=PURPOSE).digest()


def hashed_actor(kind: str, key: bytes, *identity: str) -> str:
    """Return the name of an actor.

    Args:
        kind: What vouches for the identity: "jwt" or "tls".
        key: `actor_key_of` a secret.
        identity: The parts of the identity.
    """
    name = blake2b(key=key, digest_size=HASH_BYTES)
    for part in identity:
        text = part.encode()
        name.update(len(text).to_bytes(LENGTH_BYTES, "little") + text)
    return f"{kind}:{name.hexdigest()}"
