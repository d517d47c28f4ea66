"""Names of actors are keyed hashes: the same for one identity, and different for any other."""

import re

from service.access.actor_names import actor_key_of, hashed_actor

KEY = actor_key_of(bytes(32))


def test_one_identity_has_one_name() -> None:
    """The name is the same in every process with the key, and fits into an event."""
    name = hashed_actor("jwt", KEY, "https://issuer.example", "alice")
    assert name == hashed_actor("jwt", actor_key_of(bytes(32)), "https://issuer.example", "alice")
    assert name == "jwt:dfbc0cec14b4d27336a539fbecc07b15"
    assert re.fullmatch("jwt:[0-9a-f]{32}", name)


def test_other_identities_have_other_names() -> None:
    """Another part, another division into parts, another kind and another key each give another name."""
    names = [
        hashed_actor("jwt", KEY, "a", "bc"),
        hashed_actor("jwt", KEY, "ab", "c"),
        hashed_actor("jwt", KEY, "abc"),
        hashed_actor("jwt", KEY, "a", "bc", ""),
        hashed_actor("tls", KEY, "a", "bc"),
        hashed_actor("jwt", actor_key_of(bytes([1] * 32)), "a", "bc"),
        hashed_actor("jwt", KEY, "ä", "bc"),
    ]
    assert len(set(names)) == len(names)
    assert len({name.partition(":")[2] for name in names}) == len(names) - 1  # the kind is no part of the hash


def test_the_key_is_another_one_than_its_secret() -> None:
    """The secret itself hashes nothing, so a name reveals nothing about feedback tokens."""
    assert bytes(32) != KEY
    assert len(KEY) == 32
