"""A browser, and services whose console it shows."""

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from string import ascii_lowercase

import numpy as np
import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from service.store.artifact.artifact import Artifact, write_artifact
from tests.support.artifact_files import HEAD_LAYER
from tests.support.console_page import BACKGROUND, CHROMIUM, DEADLINE_MS
from tests.support.field_artifacts import DENSE_FIELDS, SPARSE_FIELDS, field_artifact
from tests.support.model_artifacts import make_artifact
from tests.support.paths import SHIPPED
from tests.support.running_service import Service, serving
from tests.support.shared_values import SHARED_FIELDS


class EmptyPage(BaseHTTPRequestHandler):
    """Answers every request with a page that has nothing in it."""

    def do_GET(self) -> None:
        """Answer a request."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


# Names that would be markup, or break a line, a layout or a direction, if they were not shown as text.
HOSTILE = ["<img src=x onerror=alert(1)>", "x" * 256, "ab\u202ecd", "';\"`${1}"]


# The fields of a model, and the columns of each; the last name would break a page that takes it for anything but text.
HOSTILE_FIELD = "<img onerror=alert(1)>\u202e" + "x" * 200
FORM_FIELDS = (
    ({"name": "age", "kind": "number", "mean": 40.0, "scale": 10.0, "flag": True}, 2),
    ({"name": "country", "kind": "category", "values": ["DE", "PT", 7], "unknown": "other"}, 4),
    ({"name": "member", "kind": "boolean", "missing": "column"}, 2),
    ({"name": "subject", "kind": "text", "words": [1, 1], "terms": ["it's", "late", "refund"]}, 3),
    ({"name": "basket", "kind": "bag", "terms": ["milk", "tea"]}, 2),
    ({"name": "picture", "kind": "vector", "size": 3, "missing": "refuse"}, 3),
    ({"name": HOSTILE_FIELD, "kind": "number", "missing": "none"}, 1),
)


def make_form_artifact() -> Artifact:
    """Return a model with fields of most kinds and random weights."""
    fields, widths = zip(*FORM_FIELDS, strict=True)
    manifest = {"head": "softmax", "classes": ["a", "b", "c"], "fields": list(fields), "dtype": "float32"}
    weight = np.random.default_rng(2).standard_normal((sum(widths), 3), np.float32)
    return Artifact.from_fields(
        manifest | {"layers": [HEAD_LAYER]}, {"weight": weight, "bias": np.zeros(3, np.float32)}
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium without a window. On a loaded machine a page takes longer than Playwright expects."""
    expect.set_options(timeout=DEADLINE_MS)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=BACKGROUND)
        yield running
        running.close()


@pytest.fixture(scope="module")
def console_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped models, one with hostile names, one of two versions, and some with many classes."""
    folder = tmp_path_factory.mktemp("console") / "models"
    shutil.copytree(SHIPPED, folder, ignore=shutil.ignore_patterns("*.py"))
    hostile = make_artifact("softmax", 4, HOSTILE)
    write_artifact(folder / "hostile" / "1", hostile)
    manifest = folder / "hostile" / "1" / "model.json"
    fields = json.loads(manifest.read_text())
    fields |= {"features": HOSTILE, "provenance": {HOSTILE[0]: HOSTILE[1]}}
    manifest.write_text(json.dumps(fields))
    write_artifact(folder / "form" / "1", make_form_artifact())
    write_artifact(folder / "sparse" / "1", field_artifact(SPARSE_FIELDS))
    gaps = field_artifact((DENSE_FIELDS[0], DENSE_FIELDS[2], SPARSE_FIELDS[6]))
    write_artifact(folder / "gaps" / "1", gaps)
    write_artifact(folder / "shared" / "1", field_artifact(SHARED_FIELDS))
    write_artifact(folder / "wide" / "1", make_artifact("softmax", 20, [f"c{k}" for k in range(1000)]))
    write_artifact(folder / "letters" / "1", make_artifact("softmax", 3, list(ascii_lowercase)))
    for version in ("9", "10"):
        write_artifact(folder / "versions" / version, make_artifact("softmax", 3, ["a", "b"], seed=int(version)))
    return folder


@pytest.fixture(scope="module")
def console(console_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with two workers and those models."""
    with serving(console_models, tmp_path_factory.mktemp("console"), workers=2) as running:
        yield running


@pytest.fixture(scope="module")
def other_site() -> Iterator[str]:
    """The address of a page of another site: another host than that of services, at a port of its own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), EmptyPage) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()
