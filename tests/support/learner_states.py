"""Compare learner states, and draw random sequences of events for them."""

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import strategies as st

from service.errors import ArtifactError
from service.learn.state import LearnerState
from service.store.artifact.artifact import Artifact
from tests.support.artifacts import rows, rules_of

Event = Callable[[LearnerState], object]


def state_events(source: Artifact, kind: str) -> st.SearchStrategy[Event]:
    """Draw an event of a stream: rows, classes, another rule, pause, shadow mode."""
    X, Y = rows(source)

    def fold(start: int, count: int) -> Event:
        def event(state: LearnerState) -> object:
            missing = 0 if source.manifest.head == "sigmoid" else state.n_classes - Y.shape[1]
            targets = np.hstack([Y, np.zeros((len(Y), missing))])[start : start + count]
            return state.fold_rows(X[start : start + count].copy(), Y=targets)

        return event

    def change(changes: dict[str, object]) -> Event:
        def event(state: LearnerState) -> object:
            is_mixture, rule = state.rule_settings["rule"] == "mixture", changes.get("rule", "mixture")
            refused = pytest.raises(ArtifactError) if is_mixture and rule != "mixture" else nullcontext()
            with refused:
                state.configure(changes)
            return None

        return event

    rules = rules_of(kind, source.manifest.head)
    changes = st.sampled_from(
        [{"rule": rule} for rule in rules]
        + [{"constants": {"rate": 0.2}}]
        + [{"rule": rule, "constants": {"clip": 2.0}} for rule in rules if rule == "newton"]
        + [{switch: value} for switch in ("paused", "shadow") for value in (True, False)]
    )
    steps = [st.builds(fold, st.integers(0, 50), st.integers(1, 10)), changes.map(change)]
    if source.manifest.head != "sigmoid":
        steps.append(st.integers(1, 2).map(lambda count: lambda state: state.add_classes(count)))
    return st.one_of(steps)


def has_same_bits(one: LearnerState, other: LearnerState) -> bool:
    """Return whether two states hold and serve the same bits."""
    a, b = one.tensors(), other.tensors()
    parts = zip(one.served_parameters().tensors(), other.served_parameters().tensors(), strict=True)
    return (
        a.keys() == b.keys()
        and all(a[name].tobytes() == b[name].tobytes() for name in a)
        and all(x.tobytes() == y.tobytes() for x, y in parts)
        and one.scalars() == other.scalars()
    )
