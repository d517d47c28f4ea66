"""A classifier of texts that starts with zero weights, learns from one label at a time, and gets a new label meanwhile.

    python docs/examples/embedding_head.py build/embeddings.npz --plot embedding_head.png

Needs the development environment, and the file that embed_texts.py writes. The model takes the embedding of a text, and
knows all labels but one. Texts are posted with their labels, one request each, and each answer comes once the model
that has learned the text is served. After three quarters the last label is added, and its texts come with the others.

The losses are compared with those of scikit-learn's LogisticRegression, fitted to all rows so far whenever they have
grown by 10 %.
"""

import argparse
import base64
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, Final, NamedTuple

import matplotlib as mpl
import numpy as np
from example_service import post, serving
from matplotlib import pyplot as plt
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from softstep import Artifact, write_artifact

mpl.use("Agg")

NEW_LABEL: Final = "eye"
KNOWN_PART: Final = 0.75
# No probability counts as smaller, so that no single row decides a mean.
LEAST_PROBABILITY: Final = 1e-6
# The batch model's C with the least loss on these embeddings; loadtest/embeddings.py tries several.
BATCH_C: Final = 10.0
GROWTH: Final = 1.1
PLOT_WINDOW: Final = 200


class Stream(NamedTuple):
    """Rows in the order in which they are posted, and how many come before the new label is added."""

    embeddings: NDArray[np.float32]
    labels: NDArray[np.str_]
    known: int


class RunResult(NamedTuple):
    """Each row's loss before its step, the seconds until its effect was served, and the seconds of `:classes`."""

    losses: NDArray[np.float64]
    seconds: NDArray[np.float64]
    class_seconds: float


def order_rows(embeddings: NDArray[np.float32], labels: NDArray[np.str_], rows: int) -> Stream:
    """Return a stream of the first rows, where those of the new label are among those that come last."""
    embeddings, labels = embeddings[:rows], labels[:rows]
    early = np.flatnonzero(labels != NEW_LABEL)
    early = early[: int(KNOWN_PART * len(early))]
    late = np.random.RandomState(0).permutation(np.setdiff1d(np.arange(len(labels)), early))
    order = np.concatenate([early, late])
    return Stream(embeddings[order], labels[order], len(early))


def write_zero_model(folder: Path, labels: list[str], features: int) -> None:
    """Write a model that knows nothing: all weights are 0, and all labels equally probable."""
    manifest = {
        "head": "softmax",
        "classes": labels,
        "features": features,
        "dtype": "float32",
        "layers": [{"weight": "weight", "bias": "bias", "activation": "identity"}],
    }
    shape = features, len(labels)
    tensors = {"weight": np.zeros(shape, np.float32), "bias": np.zeros(len(labels), np.float32)}
    write_artifact(folder / "texts" / "1", Artifact.from_fields(manifest, tensors))


def learn_stream(stream: Stream, folder: Path) -> RunResult:
    """Serve the model, and post the rows one after another."""
    labels = np.unique(stream.labels[: stream.known]).tolist()
    write_zero_model(folder / "models", labels, stream.embeddings.shape[1])
    losses, seconds, class_seconds = [], [], 0.0
    with serving(folder) as (address, _):
        url = f"{address}/v1/models/texts"
        for row, (embedding, label) in enumerate(zip(stream.embeddings, stream.labels.tolist(), strict=True)):
            if row == stream.known:
                _, class_seconds = timed_post(f"{url}:classes?wait=true", {"add": [NEW_LABEL]})
            instance = {"b64": base64.b64encode(embedding.tobytes()).decode()}
            body = {"id": f"text-{row}", "instances": [instance], "labels": [label]}
            answer, taken = timed_post(f"{url}:feedback?wait=true", body)
            losses += answer["losses"]
            seconds.append(taken)
    return RunResult(np.array(losses), np.array(seconds), class_seconds)


def timed_post(url: str, body: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """Send a request; return the answer and the seconds until it was there."""
    began = time.perf_counter()
    answer = post(url, body)
    if answer is None:
        raise SystemExit(f"no answer from {url}")
    return answer, time.perf_counter() - began


def batch_losses(X: NDArray[Any], y: NDArray[np.int64], n_classes: int, C: float = BATCH_C) -> NDArray[np.float64]:
    """Return each row's loss by the newest of the models that are fitted whenever the rows have grown by 10 %.

    A fit has no probability for a label without rows. So the uniform guess is mixed in, with the weight of one row.

    Args:
        X: The features of all rows, in their order.
        y: The class indices.
        n_classes: The number of classes.
        C: LogisticRegression's inverse strength of regularization.
    """
    losses, count = np.empty(len(y)), 0
    while count < len(y):
        end = min(max(count + 1, int(count * GROWTH)), len(y))
        P = np.full((end - count, n_classes), 1 / n_classes)
        if len(np.unique(y[:count])) > 1:
            with warnings.catch_warnings():
                # The first fits have about as many labels as rows, of which scikit-learn warns.
                warnings.simplefilter("ignore", UserWarning)
                model = LogisticRegression(C=C, max_iter=1000).fit(X[:count], y[:count])
            P /= count + 1
            P[:, model.classes_] += model.predict_proba(X[count:end]) * count / (count + 1)
        losses[count:end] = -np.log(np.maximum(P[np.arange(end - count), y[count:end]], LEAST_PROBABILITY))
        count = end
    return losses


def plot(stream: Stream, result: RunResult, batch: NDArray[np.float64], path: Path) -> None:
    """Draw the running mean of both losses."""
    figure, axes = plt.subplots(figsize=(8, 4))
    window = min(PLOT_WINDOW, len(batch))
    for name, losses, color in (
        ("Softstep, a step for each label", result.losses, "#c0504d"),
        ("LogisticRegression, fitted again after each 10 % more rows", batch, "#4a6fa5"),
    ):
        means = np.convolve(losses, np.ones(window) / window, "valid")
        label = f"{name}: {losses[: stream.known].mean():.2f}"
        axes.plot(np.arange(window, len(losses) + 1), means, label=label, color=color)
    axes.axvline(stream.known, color="gray", linestyle=":", label=f"“{NEW_LABEL}” is added")
    axes.set(xlabel="labels posted", ylabel=f"loss before the step, mean of {window}", ylim=(0, None))
    axes.legend(frameon=False, title="mean loss until the new label")
    figure.tight_layout()
    figure.savefig(path, dpi=120, metadata={"Software": None})


def main() -> None:
    """Run, print the result, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the embeddings, as embed_texts.py writes them")
    parser.add_argument("--rows", type=int, default=4000, help="texts to post")
    parser.add_argument("--plot", type=Path, help="a PNG file to draw; adds some 20 seconds for the batch model")
    arguments = parser.parse_args()
    with np.load(arguments.file) as arrays:
        stream = order_rows(arrays["embeddings"], arrays["labels"], arguments.rows)
    with tempfile.TemporaryDirectory() as folder:
        result = learn_stream(stream, Path(folder))
    new = result.losses[stream.labels == NEW_LABEL]
    fifth = max(1, len(new) // 5)
    print(
        f"{len(stream.labels)} labels learned, {np.median(result.seconds) * 1000:.1f} ms each until they were served; "
        f"mean loss of the first {stream.known}: {result.losses[: stream.known].mean():.3f}"
    )
    print(
        f"{NEW_LABEL} added in {result.class_seconds * 1000:.1f} ms; loss of its {len(new)} texts: "
        f"first fifth {new[:fifth].mean():.2f}, last fifth {new[-fifth:].mean():.2f}"
    )
    if arguments.plot is not None:
        classes, y = np.unique(stream.labels, return_inverse=True)
        plot(stream, result, batch_losses(stream.embeddings, y, len(classes)), arguments.plot)


if __name__ == "__main__":
    main()
