"""Whether a service may be open, by its address, its settings and its file of keys."""

from pathlib import Path

import pytest

from service.access.exposure import has_identities, is_loopback_address, may_be_open, refuse_exposure
from service.configuration import InvalidSettingsError
from service.errors import ApiKeysError
from service.settings import Settings
from tests.support.api_keys import add_key


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "0:0:0:0:0:0:0:1", "localhost", "LOCALHOST"])
def test_loopback_addresses_are_known(host: str) -> None:
    """Only this machine reaches them."""
    assert is_loopback_address(host)
    assert may_be_open(Settings(host=host))


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "", "10.0.0.1", "fe80::1", "192.0.2.1", "a.example", "localhost.example", "127.1"],  # noqa: S104
)
def test_any_other_address_is_reached_from_elsewhere(host: str) -> None:
    """So is a name, which may resolve to any address; only SOFTSTEP_OPEN permits it without keys."""
    assert not is_loopback_address(host)
    assert not may_be_open(Settings(host=host))
    assert may_be_open(Settings(host=host, open=True))


def test_a_file_of_keys_is_an_identity(tmp_path: Path) -> None:
    """Also one without keys, in the data directory or elsewhere."""
    settings = Settings(data=tmp_path / "data")
    assert not has_identities(settings)
    add_key(tmp_path / "data" / "keys.json")
    assert has_identities(settings)
    settings = Settings(data=tmp_path / "data", keys_file=tmp_path / "other.json")
    assert not has_identities(settings)
    settings.keys_path.write_text('{"format": 1, "keys": []}')
    assert has_identities(settings)


def test_an_issuer_of_jwts_is_an_identity(tmp_path: Path) -> None:
    """A service whose callers have JWTs needs no file of keys."""
    keys = str(tmp_path / "jwks.json")
    settings = Settings(data=tmp_path, jwt_issuer="https://login.example", jwt_audience="softstep", jwt_keys=keys)
    assert has_identities(settings)


def test_certificates_of_clients_are_identities(tmp_path: Path) -> None:
    """If they are required, or say what their clients may do; a certificate that may be missing says nothing."""
    files = {"tls_certificate": tmp_path / "a.pem", "tls_client_ca": tmp_path / "ca.pem"}
    host, optional = "192.0.2.1", {"tls_client_certificate": "optional"}
    required = Settings(data=tmp_path, host=host, **files)
    assert (has_identities(required), may_be_open(required)) == (True, True)
    settings = Settings(data=tmp_path, host=host, **files, **optional)
    assert (has_identities(settings), may_be_open(settings)) == (False, False)
    settings = Settings(data=tmp_path, host=host, **files, **optional, tls_subjects=tmp_path / "subjects.json")
    assert (has_identities(settings), may_be_open(settings)) == (True, False)


def test_a_file_that_cannot_be_used_is_reported(tmp_path: Path) -> None:
    """Damaged, or not a file: the service must not start without its keys."""
    path = tmp_path / "keys.json"
    path.write_text("{")
    with pytest.raises(ApiKeysError, match="damaged"):
        has_identities(Settings(data=tmp_path))
    path.unlink()
    path.mkdir()
    with pytest.raises(ApiKeysError, match="cannot be read: Is a directory"):
        has_identities(Settings(data=tmp_path))


def test_an_exposed_service_names_the_place_of_its_keys(tmp_path: Path) -> None:
    """A file, the data directory or the log, whose address is not printed; with keys it may start."""
    log = "postgresql://softstep:secret@db.example/softstep"
    exposed = {"data": tmp_path / "data", "host": "192.0.2.1"}
    for more, place in (
        ({}, f"--data {tmp_path}/data"),
        ({"log": log}, '--log "$SOFTSTEP_LOG"'),
        ({"log": log, "learn": False}, f"--data {tmp_path}/data"),
        ({"log": log, "keys_file": tmp_path / "own.json"}, f"--keys-file {tmp_path}/own.json"),
    ):
        settings = Settings(**exposed, **more)
        with pytest.raises(InvalidSettingsError) as raised:
            refuse_exposure(settings)
        assert raised.value.sentences[1].endswith(f"predict,feedback,admin {place}")
        assert not any("secret" in sentence for sentence in raised.value.sentences)
        refuse_exposure(settings.model_copy(update={"open": True}))
        refuse_exposure(settings.model_copy(update={"host": "127.0.0.1"}))
        add_key(settings.keys_path)
        refuse_exposure(settings)
        settings.keys_path.unlink()
