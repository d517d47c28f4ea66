"""Variables of the environment: settings, service links of Kubernetes, variables of clients, and mistakes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.configuration import variable_of
from service.environment import is_service_link, read_variables, unknown_variables
from service.settings import Settings

KNOWN = [variable_of(name) for name in Settings.model_fields]
# What Kubernetes sets for a Service `softstep` and for a Service `softstep-api`, as its documentation lists them.
LINKS = {
    "SOFTSTEP_SERVICE_HOST": "10.0.0.11",
    "SOFTSTEP_SERVICE_PORT": "8000",
    "SOFTSTEP_SERVICE_PORT_HTTP": "8000",
    "SOFTSTEP_PORT": "tcp://10.0.0.11:8000",
    "SOFTSTEP_PORT_8000_TCP": "tcp://10.0.0.11:8000",
    "SOFTSTEP_PORT_8000_TCP_PROTO": "tcp",
    "SOFTSTEP_PORT_8000_TCP_PORT": "8000",
    "SOFTSTEP_PORT_8000_TCP_ADDR": "10.0.0.11",
    "SOFTSTEP_PORT_53_UDP": "udp://10.0.0.11:53",
    "SOFTSTEP_API_SERVICE_HOST": "fd00::1",
    "SOFTSTEP_API_SERVICE_PORT": "80",
    "SOFTSTEP_API_SERVICE_PORT_WEB_UI": "80",
    "SOFTSTEP_API_PORT": "tcp://[fd00::1]:80",
    "SOFTSTEP_API_PORT_80_TCP_ADDR": "fd00::1",
}


@pytest.mark.parametrize(("name", "value"), LINKS.items(), ids=LINKS)
def test_service_links_are_ignored(name: str, value: str) -> None:
    """They are neither settings nor mistakes."""
    assert is_service_link(name, value)
    assert read_variables({name: value}) == {}
    assert unknown_variables({name: value}, KNOWN) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SOFTSTEP_PORT", "8000"),
        ("SOFTSTEP_API_PORT", "8000"),
        ("SOFTSTEP_PORT_HTTP", "8000"),
        ("SOFTSTEP_SERVICE_HOSTS", "10.0.0.11"),
        ("SOFTSTEP_PORT_80_TCP_NAME", "x"),
        ("SOFTSTEP_WORKERS", "tcp://10.0.0.11:8000"),
        ("OTHER_SERVICE_HOST", "10.0.0.11"),
    ],
)
def test_other_variables_are_no_service_links(name: str, value: str) -> None:
    """A setting stays one, and a mistake too."""
    assert not is_service_link(name, value)


def test_a_service_link_does_not_hide_another_name_of_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """With SOFTSTEP_PORT=tcp://… the port is Vertex AI's, or else the default."""
    monkeypatch.setenv("SOFTSTEP_PORT", LINKS["SOFTSTEP_PORT"])
    assert Settings().port == 8000
    monkeypatch.setenv("AIP_HTTP_PORT", "7080")
    assert Settings().port == 7080


@pytest.mark.parametrize("space", [" ", "\t", "\n", "\r\n"])
def test_space_around_values_is_removed(space: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret from a file often ends in a line break; space alone counts as unset."""
    monkeypatch.setenv("SOFTSTEP_TOKEN_KEY", f"{'ab' * 32}{space}")
    monkeypatch.setenv("SOFTSTEP_WORKERS", f"{space}3{space}")
    monkeypatch.setenv("SOFTSTEP_PORT", space)
    settings = Settings()
    assert settings.token_key is not None
    assert settings.token_key.get_secret_value() == "ab" * 32
    assert (settings.workers, settings.port) == (3, 8000)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("SOFTSTEP_WORKER", "SOFTSTEP_WORKER is not a setting; the nearest name is SOFTSTEP_WORKERS"),
        ("SOFTSTEP_MODEL_DIR", "SOFTSTEP_MODEL_DIR is not a setting; the nearest name is SOFTSTEP_MODELS"),
        ("SOFTSTEP_KERNEL", "SOFTSTEP_KERNEL is not a setting; the nearest name is SOFTSTEP_KERNELS"),
        ("softstep_kernels", "softstep_kernels is not a setting; the nearest name is SOFTSTEP_KERNELS"),
        ("SOFTSTEP_PORT_HTTP", "SOFTSTEP_PORT_HTTP is not a setting; the nearest name is SOFTSTEP_PORT"),
        ("SOFTSTEP_LOG_JSON", "SOFTSTEP_LOG_JSON was replaced by SOFTSTEP_LOG_FORMAT, which is json or text"),
        ("SOFTSTEP_\n", "SOFTSTEP_\\n is not a setting; the nearest name is SOFTSTEP_LOG"),
    ],
)
def test_an_unknown_name_is_reported_with_the_nearest_known_one(name: str, sentence: str) -> None:
    """The sentence has no value."""
    assert unknown_variables({name: "secret"}, KNOWN) == [sentence]


@given(st.sampled_from(KNOWN), st.sampled_from([str.upper, str.lower, str.title]), st.text())
def test_known_names_are_accepted_in_any_case(name: str, change: object, value: str) -> None:
    """Settings are read without regard to case."""
    assert callable(change)
    assert unknown_variables({change(name): value}, KNOWN) == []


@given(st.dictionaries(st.text(), st.text()))
def test_variables_of_other_programs_are_no_mistakes(environment: dict[str, str]) -> None:
    """Only names that begin like a setting are checked; those of clients and of imports are known."""
    others = {name: value for name, value in environment.items() if not name.upper().startswith("SOFTSTEP_")}
    known = {"SOFTSTEP_URL": "x", "SOFTSTEP_API_KEY": "x", "SOFTSTEP_KERNELS": "x", "NUMBA_CPU_NAME": "x"}
    assert unknown_variables({**others, **known, "AIP_ENDPOINT_ID": "1"}, KNOWN) == []
