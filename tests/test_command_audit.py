"""Commands are recorded in the audit log with the user who ran them."""

import json
import os
import pwd
from pathlib import Path

import pytest

from service.access.audit_log import Action
from service.command_audit import record_command
from service.settings import Settings


def test_the_user_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The actor is the name of the user, not of the environment, or the number of a user without a name."""
    monkeypatch.setenv("USER", "somebody")
    settings = Settings(data=tmp_path)
    record_command(settings, Action.PURGE, "iris/1")
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_001)
    record_command(settings, Action.SKIP, "iris/1", seq=7)
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    monkeypatch.undo()
    assert [line["actor"] for line in lines] == [f"user:{pwd.getpwuid(os.getuid()).pw_name}", "user:4000000001"]
    assert lines[1]["seq"] == 7


def test_a_path_that_is_no_text_is_recorded(tmp_path: Path) -> None:
    """Bytes of a path that are no UTF-8 are escaped."""
    record_command(Settings(data=tmp_path), Action.RESTORE, os.fsdecode(b"/backups/\xff"))
    assert json.loads((tmp_path / "audit.jsonl").read_text())["object"] == "/backups/\\xff"
