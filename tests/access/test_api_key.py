"""API keys have 256 random bits and a checksum, and any change of a key's text is noticed."""

from hypothesis import given
from hypothesis import strategies as st

from service.access.api_key import DIGITS, KEY, digest_of, is_same, key_id_of, make_key


def test_keys_are_new_and_name_their_ids() -> None:
    """Each key has an id and a secret of its own; a new key of an id keeps the id."""
    keys = [make_key() for _ in range(100)]
    assert len({key.id for key in keys}) == len({key.text for key in keys}) == 100
    assert [key_id_of(key.text.encode()) for key in keys] == [key.id for key in keys]
    renewed = make_key(keys[0].id)
    assert renewed.id == keys[0].id
    assert renewed.text != keys[0].text
    assert len(keys[0].text) == 67


def test_secrets_use_all_their_digits() -> None:
    """Digits behind the first of 1,000 secrets are spread over the whole alphabet."""
    digits = {digit for _ in range(1000) for digit in make_key().text[-48:-6]}
    assert digits == set(DIGITS)


@given(st.integers(0, 66), st.sampled_from(DIGITS))
def test_a_changed_character_makes_no_key(place: int, digit: str) -> None:
    """A key with one other character is refused by its form or by its checksum."""
    text = make_key().text
    changed = text[:place] + digit + text[place + 1 :]
    assert (key_id_of(changed.encode()) is None) == (changed != text)


@given(st.binary() | st.from_regex(KEY))
def test_any_bytes_are_read(text: bytes) -> None:
    """Bytes that are no key have no id."""
    key_id = key_id_of(text)
    assert key_id is None or text.startswith(b"softstep_" + key_id.encode())


def test_digests_are_compared_whole() -> None:
    """Only equal digests are the same."""
    one, other = digest_of(b"one"), digest_of(b"other")
    assert is_same(one, digest_of(b"one"))
    assert not is_same(one, other)
    assert not is_same(one, one[:-1])
