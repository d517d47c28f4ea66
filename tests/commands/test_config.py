"""`softstep config` prints every setting."""

import json
import os
import re

import pytest

from service import command_line as command
from service.configuration import variable_of
from service.settings import Settings
from tests.support.paths import ROOT


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove all settings from the environment, and set those of the documentation's excerpt."""
    for name in os.environ:
        if name.startswith(("SOFTSTEP_", "AIP_", "NUMBA_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SOFTSTEP_WORKERS", "2")


def test_the_table_has_a_line_for_each_setting(capsys: pytest.CaptureFixture[str]) -> None:
    """The columns are aligned, and the documentation's excerpt is part of it."""
    assert command.main(["config", "--port", "9000"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["setting", "value", "source", "meaning"]
    assert [line.split()[0] for line in lines[1:-2]] == [variable_of(name) for name in Settings.model_fields]
    assert len({line.index(word) for line, word in zip(lines, ["value", "127.0.0.1", "9000"], strict=False)}) == 1
    page = (ROOT / "docs" / "commands.md").read_text()
    (excerpt,) = re.findall(r"```text\n(SOFTSTEP_HOST.*?)```", page, re.DOTALL)
    assert set(excerpt.splitlines()) <= set(lines)


def test_json_has_an_object_for_each_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Values keep their types, and a secret is only said to be set."""
    monkeypatch.setenv("SOFTSTEP_TOKEN_KEY", "ab" * 32)
    assert command.main(["config", "--json"]) == 0
    output = capsys.readouterr().out
    assert "abab" not in output
    rows = {row["variable"]: row for row in map(json.loads, output.splitlines())}
    assert {tuple(row) for row in rows.values()} == {("variable", "value", "source", "accepts", "meaning")}
    assert rows["SOFTSTEP_WORKERS"]["value"] == 2
    assert rows["SOFTSTEP_LEARN"]["value"] is True
    assert rows["SOFTSTEP_TOKEN_KEY"]["value"] == "set"
    assert rows["SOFTSTEP_DEFAULT_MODEL"]["value"] is None
