"""The settings of access accept what is safe, and name what is missing."""

from argparse import Namespace
from typing import Any

import pytest

from service.configuration import InvalidSettingsError, read_settings
from service.settings import Settings

JWT = {"jwt_issuer": "https://issuer.example", "jwt_audience": "softstep", "jwt_keys": "jwks.json"}


def read(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Settings:
    """Return the settings of an environment with these variables."""
    for name, value in settings.items():
        monkeypatch.setenv(f"SOFTSTEP_{name.upper()}", str(value))
    return read_settings(Namespace())


def refuse(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> str:
    """Return the sentences about settings that are refused, which repeat no value of theirs."""
    with pytest.raises(InvalidSettingsError) as caught:
        read(monkeypatch, **settings)
    return str(caught.value)


@pytest.mark.parametrize("names", [["jwt_issuer"], ["jwt_keys"], ["jwt_audience", "jwt_keys"]])
def test_the_settings_of_jwts_belong_together(monkeypatch: pytest.MonkeyPatch, names: list[str]) -> None:
    """An issuer without audience or keys is refused, and so is any other part of the three."""
    sentence = refuse(monkeypatch, **{name: JWT[name] for name in names})
    assert sentence == "SOFTSTEP_JWT_ISSUER, _AUDIENCE and _KEYS belong together; set all three or none"


@pytest.mark.parametrize(
    "keys",
    [
        "jwks.json",
        "/etc/softstep/jwks.json",
        "https://issuer.example/keys?version=1",
        "https://[2001:db8::1]:8443/keys",
        "http://localhost:8080/keys",
        "http://127.0.0.7/keys",
        "http://[::1]:1/keys",
    ],
)
def test_key_sets_come_from_files_or_safe_urls(monkeypatch: pytest.MonkeyPatch, keys: str) -> None:
    """A path is accepted, a URL with https, and one with http to this machine."""
    assert read(monkeypatch, **{**JWT, "jwt_keys": keys}).jwt_keys == keys


@pytest.mark.parametrize(
    "keys",
    [
        "http://issuer.example/keys",
        "http://10.0.0.1/keys",
        "http://localhost.issuer.example/keys",
        "http://127.0.0.1.issuer.example/keys",
        "http://localhost@issuer.example/keys",
        "https://user:secret@issuer.example/keys",
        "https:///keys",
        "https://issuer.example:x/keys",
        "https://issuer.example:99999/keys",
        "https://issuer.example/keys#first",
        "https://issuer.example/a b",
        "https://issuer.example/ä",
        "https://[::1/keys",
        "file:///etc/passwd",
        "ftp://issuer.example/keys",
    ],
)
def test_other_urls_are_refused(monkeypatch: pytest.MonkeyPatch, keys: str) -> None:
    """A URL over which another host could answer is refused, and the sentence does not repeat it."""
    sentence = refuse(monkeypatch, **{**JWT, "jwt_keys": keys})
    assert sentence.startswith("SOFTSTEP_JWT_KEYS: A key set is at the path of a file")
    assert keys not in sentence


def test_algorithms_are_of_public_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of algorithms may have spaces; a shared secret, no signature and unknown names are refused."""
    assert read(monkeypatch, **JWT).jwt_algorithms == ("RS256", "ES256")
    chosen = read(monkeypatch, **JWT, jwt_algorithms=" ES384 , Ed25519,").jwt_algorithms
    assert chosen == ("ES384", "Ed25519")
    for algorithms in ("HS256", "none", "RS256,HS512", "rs256", ",", "Ed448"):
        assert refuse(monkeypatch, jwt_algorithms=algorithms).startswith(
            "SOFTSTEP_JWT_ALGORITHMS: Algorithms are some of RS256,"
        )
