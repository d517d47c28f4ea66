"""The examples of the pages, run as their readers would.

docs/learning.md: two digits are learned, and a kill loses nothing. docs/explain.md: why doubtful digits are read so.
docs/embeddings.md: a new label of texts is learned while the model serves.
"""

import json
import socket
import subprocess
import threading
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.clients import environments
from tests.support.paths import ROOT
from tests.support.running_service import serving
from tests.support.scripts import load_script

SENTENCES = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
# As sentence-transformers' documentation shows them for this model.
SIMILARITIES = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
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
    # The row that was sent again may have been learned before the kill, and a new learner keeps no earlier losses.
    assert np.isnan(result.losses).sum() <= result.resent
    assert np.nanmean(new[-20:]) < np.nanmean(new[:20]) / 3


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


def synthetic_embeddings(rows: int, features: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of length 1 around one direction for each of five labels, in random order."""
    rng, names = np.random.default_rng(0), np.array(["blood", "ear", "eye", "mental", "skin"])
    y = rng.integers(0, len(names), rows)
    centers = rng.standard_normal((len(names), features))
    X = centers[y] + 0.3 * rng.standard_normal((rows, features))
    return (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32), names[y]


def test_a_head_over_embeddings_learns_a_label_that_is_added(tmp_path: Path) -> None:
    """A model with zero weights learns from each row, then a label that it did not have; the picture is drawn."""
    script = example("embedding_head")
    stream = script.order_rows(*synthetic_embeddings(200, 16), 150)
    result = script.learn_stream(stream, tmp_path)
    batch = script.batch_losses(stream.embeddings, np.unique(stream.labels, return_inverse=True)[1], 5)
    script.plot(stream, result, batch, tmp_path / "drawn.png")
    assert (tmp_path / "drawn.png").read_bytes().startswith(b"\x89PNG")
    assert len(result.losses) == len(result.seconds) == len(batch) == 150
    assert script.NEW_LABEL not in stream.labels[: stream.known]
    new = result.losses[stream.labels == script.NEW_LABEL]
    np.testing.assert_allclose([result.losses[0], batch[0]], np.log([4, 5]), rtol=1e-6)
    assert result.losses[stream.known - 20 : stream.known].mean() < np.log(4) / 3
    assert new[-10:].mean() < new[:2].mean() / 3
    assert batch[-20:].mean() < np.log(5) / 3


def test_the_sentence_encoder_is_the_published_model(tmp_path: Path) -> None:
    """The embeddings have length 1 and the published similarities; the script writes those of labeled texts."""
    python, folder = environments.EMBEDDINGS.ensure(), ROOT / "docs" / "examples"
    code = (
        f"import json, sys; sys.path.insert(0, {str(folder)!r}); import embed_texts as script\n"
        f"embeddings = script.SentenceEncoder(script.get_model_path()).encode({SENTENCES!r})\n"
        "print(json.dumps((embeddings @ embeddings.T).tolist()))\n"
        f"sys.argv[1:] = [{str(tmp_path / 'few.npz')!r}, '--texts', '20']; script.main()"
    )
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout.splitlines()[0]), SIMILARITIES, atol=1e-4)
    with np.load(tmp_path / "few.npz") as arrays:
        assert arrays["texts"].shape == arrays["labels"].shape == (20,)
        assert arrays["embeddings"].shape == (20, 384)
        np.testing.assert_allclose(np.linalg.norm(arrays["embeddings"], axis=1), 1, rtol=1e-5)
