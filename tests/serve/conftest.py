"""The fast server and the plain one, side by side in this process."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.server_pair import Pair


@pytest.fixture(scope="session")
def pair(models: Path) -> Iterator[Pair]:
    """Both with the limits that are set by default, shared by all tests."""
    with Pair(models) as running:
        yield running


@pytest.fixture
def paired(models: Path) -> Iterator[Callable[..., Pair]]:
    """Starts both with other settings, for one test."""
    with ExitStack() as stack:

        def start(models: Path = models, **settings: Any) -> Pair:
            return stack.enter_context(Pair(models, **settings))

        yield start
