"""The examples of the pages, run as their readers would.

docs/learning.md: two digits are learned, and a kill loses nothing. docs/explain.md: why doubtful digits are read so.
"""

import socket
import threading
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.support.running_service import serving
from tests.support.scripts import load_script

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def example(name: str) -> ModuleType:
    """A script as a module."""
    return load_script(f"docs/examples/{name}.py")


def test_two_digits_are_learned_and_a_kill_loses_nothing(tmp_path: Path) -> None:
    """Every row is learned once, though the service was killed; the loss of the new digits falls by far."""
    rows = 400
    result = example("new_digits").run(rows, tmp_path)
    assert result.resent == 1
    assert result.metadata["progressive"]["events"] == result.metadata["progressive"]["rows"] == rows
    assert result.metadata["seq"] == rows + 1  # and the event that added the classes
    new = np.array([loss for loss, digit in zip(result.losses, result.digits, strict=True) if digit >= 8])
    assert np.isfinite(new).all()
    assert new[-20:].mean() < new[:20].mean() / 3


@pytest.mark.parametrize("cut", [b"", b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\n", ANSWER[:-1], ANSWER[: -len(b"{}")]])
def test_a_row_with_an_interrupted_answer_is_sent_again(cut: bytes) -> None:
    """The example sends a row again if the service was killed before the answer was complete."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                received = b""
                while not received.endswith(b"\r\n\r\n{}"):  # what is left unread would reset the connection
                    received += connection.recv(1 << 16)
                connection.sendall(cut)

        thread = threading.Thread(target=answer)
        thread.start()
        assert example("new_digits").post(f"http://127.0.0.1:{server.getsockname()[1]}", {}) is None
        thread.join()


def test_doubtful_digits_are_explained(models: Path, tmp_path: Path) -> None:
    """Contributions and biases are what put the label before the runner-up; the picture is drawn."""
    script = example("digits_sensitivities")
    with serving(models, tmp_path) as service:
        rows = script.find_uncertain(service.url, 2)
    script.plot(rows, tmp_path / "drawn.png")
    for name in ("drawn.png", "drawn-dark.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert len({row.written for row in rows}) == 2
    for row in rows:
        best, second = row.ranked()[:2]
        parts, bias, logits = (np.array(row.explanation[name]) for name in ("contributions", "bias", "logits"))
        assert row.classes[best] == row.explanation["label"]
        margin = (parts[best] - parts[second]).sum() + bias[best] - bias[second]
        np.testing.assert_allclose(margin, logits[best] - logits[second], atol=1e-4)
        assert 0 <= margin < 1
