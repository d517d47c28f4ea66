"""Where settings come from, and the sentences about invalid ones."""

import os
from argparse import Namespace
from pathlib import Path

import pytest

from service import configuration
from service.configuration import (
    OPTIONS,
    InvalidSettingsError,
    Setting,
    accepted_form,
    list_settings,
    log_environment,
    read_settings,
    variable_of,
)
from service.settings import Settings


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove all settings from the environment."""
    for name in os.environ:
        if name.startswith(("SOFTSTEP_", "AIP_", "NUMBA_")):
            monkeypatch.delenv(name)


def rows(**options: object) -> dict[str, Setting]:
    """Return the settings by their variables."""
    arguments = Namespace(**options)
    return {row.variable: row for row in list_settings(read_settings(arguments), arguments)}


def test_every_setting_is_listed_with_its_default() -> None:
    """Also the variables that are read at import."""
    listed = rows()
    assert list(listed) == [*map(variable_of, Settings.model_fields), "SOFTSTEP_KERNELS", "NUMBA_CPU_NAME"]
    assert {row.source for row in listed.values()} == {"default"}
    assert all(row.meaning and row.accepts for row in listed.values())
    assert listed["SOFTSTEP_WORKERS"][:4] == ("SOFTSTEP_WORKERS", 1, "default", "whole number ≥ 1")
    assert listed["SOFTSTEP_TOKEN_KEY"].value is None


def test_each_source_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Options go before the environment, and the service's own variables before those of a platform."""
    monkeypatch.setenv("softstep_workers", " 3 ")
    monkeypatch.setenv("SOFTSTEP_HOST", "::1")
    monkeypatch.setenv("AIP_HTTP_PORT", "7080")
    monkeypatch.setenv("SOFTSTEP_DATA", " ")
    monkeypatch.setenv("SOFTSTEP_KERNELS", "/kernels")
    listed = rows(host="::2")
    found = {name: listed[variable_of(name)][1:3] for name in OPTIONS}
    assert found == {
        "models": ("models", "default"),
        "data": ("data", "default"),
        "log": (None, "default"),
        "role": ("all", "default"),
        "host": ("::2", "option"),
        "port": (7080, "AIP_HTTP_PORT"),
        "workers": (3, "environment"),
    }
    assert listed["SOFTSTEP_KERNELS"][1:3] == ("/kernels", "environment")
    monkeypatch.setattr(configuration, "SAGEMAKER_MODEL", tmp_path)
    listed = rows(host="::2")
    assert listed["SOFTSTEP_PORT"][1:3] == (8080, "SageMaker")
    assert listed["SOFTSTEP_MODELS"][1:3] == (str(tmp_path), "SageMaker")
    assert listed["SOFTSTEP_HOST"][1:3] == ("::2", "option")


def test_a_secret_is_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only that it is set."""
    monkeypatch.setenv("SOFTSTEP_TOKEN_KEY", "ab" * 32)
    assert rows()["SOFTSTEP_TOKEN_KEY"][1:3] == ("set", "environment")


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("SOFTSTEP_WORKERS", "x", "SOFTSTEP_WORKERS has an invalid value; accepted: whole number ≥ 1"),
        ("softstep_port", "-1", "SOFTSTEP_PORT has an invalid value; accepted: whole number ≥ 0, ≤ 65535"),
        ("AIP_HTTP_PORT", "x", "AIP_HTTP_PORT has an invalid value; accepted: whole number ≥ 0, ≤ 65535"),
        ("SOFTSTEP_SCAN_SECONDS", "0", "SOFTSTEP_SCAN_SECONDS has an invalid value; accepted: number > 0"),
        ("SOFTSTEP_LEARN", "maybe", "SOFTSTEP_LEARN has an invalid value; accepted: true or false"),
        ("SOFTSTEP_LOG_FORMAT", "xml", "SOFTSTEP_LOG_FORMAT has an invalid value; accepted: json or text"),
        (
            "AIP_PREDICT_ROUTE",
            "secret",
            "AIP_PREDICT_ROUTE has an invalid value; accepted: path of a URL, from the first slash on",
        ),
        (
            "SOFTSTEP_TOKEN_KEY",
            "secret",
            "SOFTSTEP_TOKEN_KEY: A key has 64 hexadecimal digits; separate several keys by commas",
        ),
    ],
)
def test_an_invalid_value_is_reported_with_the_accepted_form(
    name: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence names the variable that has the value, and does not repeat the value."""
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettingsError) as caught:
        read_settings(Namespace())
    assert caught.value.sentences == (sentence,)


def test_an_invalid_option_is_reported_by_its_name() -> None:
    """Every invalid setting has a sentence of its own."""
    with pytest.raises(InvalidSettingsError) as caught:
        read_settings(Namespace(workers=0, port=70000))
    assert caught.value.sentences == (
        "--port has an invalid value; accepted: whole number ≥ 0, ≤ 65535",
        "--workers has an invalid value; accepted: whole number ≥ 1",
    )


@pytest.mark.parametrize("value", ["on", "off", "true", "false", "yes", "no", "1", "0", "TRUE"])
def test_a_truth_value_may_be_written_in_several_ways(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SOFTSTEP_LEARN=off is the usual form for replicas that only predict."""
    monkeypatch.setenv("SOFTSTEP_LEARN", value)
    assert Settings().learn == (value in {"on", "true", "yes", "1", "TRUE"})


def test_every_setting_says_what_it_accepts() -> None:
    """No accepted form is more than one line of a table."""
    forms = {name: accepted_form(field) for name, field in Settings.model_fields.items()}
    assert all(form and "\n" not in form for form in forms.values())
    assert forms["models"] == "directory"
    assert forms["host"] == "text"


def test_a_command_that_a_service_starts_uses_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the service has it from an option or from the environment, in any case of letters."""
    address = "postgresql://softstep:a-password@db/softstep"
    given = {"PATH": "/bin", "softstep_log": "postgresql://other/log", "SOFTSTEP_ARTIFACT_BYTES_MAX": "17"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = read_settings(Namespace(log=address, models=Path("/models")))
    made = log_environment({**given, "SOFTSTEP_DATA": "/data"}, settings)
    assert made == {
        "PATH": "/bin",
        "SOFTSTEP_DATA": "/data",
        "SOFTSTEP_LOG": address,
        "SOFTSTEP_LOG_COPIES": "2",
        "SOFTSTEP_LOG_SECONDS": str(settings.log_seconds),
        "SOFTSTEP_MODELS": "/models",
        "SOFTSTEP_ARTIFACT_BYTES_MAX": "17",
    }
    monkeypatch.delenv("softstep_log")
    assert "SOFTSTEP_LOG" not in log_environment({"SOFTSTEP_LOG": address}, read_settings(Namespace()))
