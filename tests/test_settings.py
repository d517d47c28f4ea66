"""docs/settings.md and the settings agree."""

import re
from types import ModuleType

import pytest
from pydantic import SecretStr, ValidationError

from service.configuration import variable_of
from service.environment import IMPORT_VARIABLES
from service.settings import Settings
from tests.support.paths import ROOT
from tests.support.scripts import load_script


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """Import docs/write_settings.py, which is in no package."""
    return load_script("docs/write_settings.py")


def test_the_page_is_what_the_script_writes(script: ModuleType) -> None:
    """If this fails, run `python docs/write_settings.py`."""
    assert (ROOT / "docs" / "settings.md").read_text() == script.page()


def test_every_setting_is_in_one_group(script: ModuleType) -> None:
    """Each has a description."""
    names = [name for _, group in script.groups() for name in group]
    assert names == list(Settings.model_fields)
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize(
    "name",
    [
        "Dockerfile",
        "compose.yaml",
        "compose.replicas.yaml",
        "deploy/kubernetes.yaml",
        "deploy/kubernetes-stateless.yaml",
        "deploy/kubernetes-replicas.yaml",
        "deploy/kubernetes-learners.yaml",
        "deploy/kserve.yaml",
        "deploy/kserve-replicas.yaml",
        "deploy/helm/softstep/values.yaml",
        "deploy/helm/softstep/templates/workload.yaml",
        "deploy/helm/softstep/templates/_helpers.tpl",
        "docs/deployment.md",
        "docs/operations.md",
    ],
)
def test_deployment_files_name_known_settings(name: str) -> None:
    """Every SOFTSTEP variable in them is a setting."""
    named = set(re.findall(r"SOFTSTEP_\w+", (ROOT / name).read_text()))
    assert named <= {*map(variable_of, Settings.model_fields), *IMPORT_VARIABLES}


def test_values_are_written_as_in_the_environment(script: ModuleType) -> None:
    """Each kind of default has its form."""
    assert script.default(None) == "unset"
    assert script.default(False) == "`false`"
    assert script.default(64 << 20) == "`67108864` (64 MiB)"
    assert script.default(()) == "empty"


@pytest.mark.parametrize("key", ["secret", "ab" * 31, "ab" * 32 + ",", "ab" * 32 + ",secret", "gh" * 32])
def test_an_invalid_token_key_is_rejected(key: str) -> None:
    """The error does not repeat the key."""
    with pytest.raises(ValidationError, match="64 hexadecimal digits") as caught:
        Settings(token_key=SecretStr(key))
    assert key not in str(caught.value)


def test_a_token_key_is_not_shown() -> None:
    """Printed and dumped settings do not contain it."""
    for key in ("ab" * 32, "ab" * 32 + "," + "cd" * 32):
        settings = Settings(token_key=SecretStr(key))
        assert settings.token_key is not None
        assert settings.token_key.get_secret_value() == key
        assert "abab" not in f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()}"


@pytest.mark.parametrize(
    "address", ["sqlite:///secret", "postgresql:secret", "host=secret", "postgresql://secret host/a", "mysql://secret"]
)
def test_a_log_of_another_kind_is_rejected(address: str) -> None:
    """The error does not repeat the address, which may contain a password."""
    with pytest.raises(ValidationError, match="begins with postgresql://") as caught:
        Settings(log=SecretStr(address))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("address", ["postgresql://me:secret@a:5432,b/softstep", "postgres:///softstep?host=/secret"])
def test_the_address_of_the_log_is_not_shown(address: str) -> None:
    """Printed and dumped settings do not contain it; several hosts, and sockets, are libpq's to read."""
    settings = Settings(log=SecretStr(address))
    assert settings.log is not None
    assert settings.log.get_secret_value() == address
    assert "secret" not in f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()}"


@pytest.mark.parametrize(
    ("name", "needed"),
    [("tls_key", "tls_certificate"), ("tls_client_ca", "tls_certificate"), ("tls_subjects", "tls_client_ca")],
)
def test_a_file_of_tls_needs_the_one_that_it_belongs_to(name: str, needed: str) -> None:
    """A setting without effect is refused, with the name of the missing one."""
    with pytest.raises(ValidationError, match=f"SOFTSTEP_{needed.upper()}"):
        Settings.model_validate({name: "file.pem"})
    Settings.model_validate({"tls_certificate": "a", "tls_client_ca": "b", name: "c"})


@pytest.mark.parametrize("value", ["10.0.0.1/8", "a.example", "10.0.0.0/33"])
def test_proxies_are_networks_or_addresses(value: str) -> None:
    """A name or a network with host bits is refused; a list is split at commas."""
    with pytest.raises(ValidationError, match="A network is like"):
        Settings.model_validate({"proxies": value})
    assert Settings.model_validate({"proxies": "10.0.0.0/8, ::1,"}).proxies == ("10.0.0.0/8", "::1/128")
