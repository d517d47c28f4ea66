"""Which rule and form a manifest chooses, and which constants it may set."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import ArtifactError
from service.learn.state import LearnerState
from service.softmax.network_learner import NETWORK_RULES
from service.store.artifact.artifact import Artifact
from service.store.artifact.fingerprint import FOLD_VERSION
from service.store.artifact.learning_rules import (
    CONSTANTS,
    NETWORK_RATES,
    RAW_FEATURES_RATE,
    build_rule,
    default_rule,
    learning_form,
)
from service.store.artifact.rule_sizes import MIXTURE_DEFAULT_MAX, NEWTON_DEFAULT_MAX, check_size, is_wide
from tests.support.artifacts import artifact

DOCUMENT = (Path(__file__).parents[3] / "docs" / "rules.md").read_text()


def learns(kind: str, learning: dict[str, Any] | None = None, **fields: Any) -> tuple[str, str]:
    """The rule and the form of an artifact with a `learning` field."""
    found = LearnerState(artifact(kind, **fields, **({} if learning is None else {"learning": learning}))).rule_settings
    return found["rule"], found["form"]


@pytest.mark.parametrize(
    ("kind", "learning", "rule", "form"),
    [
        ("zero", None, "mixture", "mixture"),
        ("trained", None, "newton", "delta"),
        ("staged", None, "newton", "delta"),
        ("raw", None, "adagrad", "plain"),
        ("zero", {"rule": "newton"}, "newton", "running"),
        ("zero", {"rule": "ftrl"}, "ftrl", "running"),
        ("trained", {"rule": "adagrad"}, "adagrad", "delta"),
        ("trained", {"rule": "mixture"}, "mixture", "mixture"),
        ("raw", {"rule": "mixture"}, "mixture", "mixture"),
        ("raw", {"rule": "newton"}, "newton", "plain"),
        ("network", None, "adagrad", "layers"),
        ("network", {"rule": "ftrl"}, "ftrl", "layers"),
        ("network", {"rule": "sgd"}, "sgd", "layers"),
        ("zero", {"rule": "sgd"}, "sgd", "plain"),
        ("trained", {"rule": "sgd"}, "sgd", "plain"),
        ("zero", {"rule": "sgd", "constants": {"clip": 2.0}}, "sgd", "running"),
        ("trained", {"rule": "sgd", "constants": {"clip": 2.0}}, "sgd", "delta"),
    ],
)
def test_rule_and_form(kind: str, learning: dict[str, Any] | None, rule: str, form: str) -> None:
    """A manifest without `learning` gets its rule by what is known of it; sgd has no stage unless it has a clip."""
    assert learns(kind, learning) == (rule, form)


def test_the_default_rule_of_a_trained_model_follows_the_size() -> None:
    """Newton's matrices grow with K (N + 1)^2; above the bound ftrl is the default."""
    N = 127
    assert NEWTON_DEFAULT_MAX == 16 * (N + 1) ** 2
    assert default_rule(artifact("trained", N=N, K=16), FOLD_VERSION) == "newton"
    assert default_rule(artifact("trained", N=N, K=17), FOLD_VERSION) == "ftrl"
    assert default_rule(artifact("trained", "sigmoid", N=511), FOLD_VERSION) == "newton"
    assert default_rule(artifact("trained", "sigmoid", N=512), FOLD_VERSION) == "ftrl"


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_the_default_rule_from_zero_weights_follows_the_features(head: str) -> None:
    """A mixture draws 256 functions of the features for each row; above 2^21 products ftrl is the default."""
    N = MIXTURE_DEFAULT_MAX // 256
    assert default_rule(artifact("zero", head, N=N), FOLD_VERSION) == "mixture"
    assert default_rule(artifact("zero", head, N=N + 1), FOLD_VERSION) == "ftrl"


@pytest.mark.parametrize(
    ("head", "N", "K", "rule"),
    [
        ("softmax", 4, 3, "newton"),
        ("softmax", 127, 17, "ftrl"),
        ("sigmoid", 511, 1, "newton"),
        ("sigmoid", 512, 1, "ftrl"),
    ],
)
def test_streams_of_fold_1_keep_their_rule(head: str, N: int, K: int, rule: str) -> None:
    """From zero weights they learn by newton, or ftrl if they are larger; later streams learn by mixture."""
    source = artifact("zero", head, N=N, K=K)
    for fold, expected in ((1, rule), (2, "mixture")):
        assert LearnerState(source, fold).rule_settings["rule"] == expected
    assert LearnerState(source, 1).copy().rule_settings["rule"] == rule


@pytest.mark.parametrize("head", ["multilabel", "ovr"])
def test_other_heads_keep_newton(head: str) -> None:
    """Their outputs are no distribution that a mixture could average."""
    assert default_rule(artifact("zero", head), FOLD_VERSION) == "newton"
    assert default_rule(artifact("zero", head, N=300), FOLD_VERSION) == "ftrl"


@pytest.mark.parametrize(
    ("head", "N", "K", "wide"),
    [
        ("softmax", 128, 15, False),
        ("softmax", 128, 16, True),
        ("softmax", 129, 2, True),
        ("sigmoid", 128, 1, False),
        ("sigmoid", 129, 1, True),
    ],
)
def test_a_mixture_learns_rows_as_wide_ones_by_the_size_at_its_start(head: str, N: int, K: int, *, wide: bool) -> None:
    """Narrow rows have at most 128 features, and matrices of at most 2^18 numbers."""
    source = artifact("zero", head, N=N, K=K)
    assert is_wide(source) is wide
    rule = build_rule(source, "mixture", "mixture", {}, fold_version=FOLD_VERSION)
    assert rule.mixture is not None
    assert rule.mixture.is_wide is wide
    assert rule.mixture.base.name == ("ftrl" if wide else "newton")


def test_the_most_logits_of_a_mixture() -> None:
    """The matrices of narrow rows take 16 MiB at most; wide rows have none, and the product of M and N a limit."""
    narrow, wide = artifact("zero", N=127), artifact("zero", N=200)
    check_size("mixture", {}, narrow, 256)
    check_size("mixture", {}, wide, 1 << 20)
    check_size("mixture", {"features": 4096.0}, artifact("zero", N=4096), 3)
    for source, constants, K in ((narrow, {}, 257), (artifact("zero", N=4097), {"features": 4096.0}, 3)):
        with pytest.raises(ArtifactError, match="rule mixture is limited"):
            check_size("mixture", constants, source, K)


@pytest.mark.parametrize("rule", CONSTANTS)
def test_the_document_names_every_constant(rule: str) -> None:
    """docs/rules.md has each rule's constants with their defaults, and no other rule."""
    (line,) = [line for line in DOCUMENT.splitlines() if line.startswith(f"| `{rule}` |") and "rate" in line]
    shared = DOCUMENT[DOCUMENT.index("- `clip` cuts") : DOCUMENT.index("`newton` is refused")]
    for name, constant in CONSTANTS[rule].items():  # type: ignore[index]  # a rule's name
        assert f"`{name}`" in line + shared, name
        if constant.default is not None and f"`{name}`" in line:
            assert f"`{name}` {constant.default:g}" in line.replace("1e-8", "1e-08"), name


def start(source: Artifact) -> float:
    """Return the start value of the rule's sums."""
    # A state publishes none of its rule's constants.
    return LearnerState(source)._learner.rule.start


def test_constants_take_effect() -> None:
    """A constant of the manifest is the one that is used; the others keep their defaults."""
    source = artifact("zero", learning={"rule": "newton", "constants": {"rate": 2.0, "lambda": 4.0}})
    constants = LearnerState(source).rule_settings["constants"]
    assert (constants["rate"], constants["lambda"], constants["clip"]) == (2.0, 4.0, 1.25)
    assert start(source) == 0.25
    assert LearnerState(artifact("raw")).rule_settings["constants"]["rate"] == RAW_FEATURES_RATE
    learning = {"rule": "adagrad", "constants": {"epsilon": 0.5}}
    network = LearnerState(artifact("network", learning=learning)).rule_settings["constants"]
    assert (network["rate"], network["epsilon"], "clip" in network) == (NETWORK_RATES["adagrad"], 0.5, False)
    assert LearnerState(artifact("zero", learning={"rule": "sgd"})).rule_settings["constants"] == {"rate": 0.01}


@pytest.mark.parametrize(
    ("kind", "N", "constants", "fold", "rate"),
    [
        ("zero", 53, {}, 2, 0.3),
        ("zero", 64, {}, 2, 0.25),
        ("trained", 4096, {}, 2, 1 / 256),
        ("raw", 64, {}, 2, 0.25),
        ("zero", 64, {"rate": 0.3}, 2, 0.3),
        ("zero", 4096, {}, 1, 0.3),
        ("network", 4096, {}, 2, NETWORK_RATES["ftrl"]),
    ],
)
def test_the_default_rate_of_ftrl_follows_the_width(
    kind: str, N: int, constants: dict[str, float], fold: int, rate: float
) -> None:
    """It is min(0.3, 16 / N) from fold 2 on; a rate of the manifest and that of a network stay."""
    source = artifact(kind, N=N, learning={"rule": "ftrl", "constants": constants})
    assert LearnerState(source, fold).rule_settings["constants"]["rate"] == rate
    form = learning_form(source, "ftrl", constants)
    assert build_rule(source, "ftrl", form, constants, fold_version=fold).rate == rate


@pytest.mark.parametrize(
    ("kind", "rule", "fold", "regret"),
    [
        ("zero", "newton", 2, 20.0),
        ("zero", "ftrl", 2, 20.0),
        ("zero", "adagrad", 2, 20.0),
        ("zero", "newton", 1, None),
        ("zero", "sgd", 2, None),
        ("trained", "newton", 2, None),
        ("raw", "adagrad", 2, None),
        ("network", "ftrl", 2, None),
    ],
)
def test_models_that_learn_from_zero_weights_limit_their_regret(
    kind: str, rule: str, fold: int, regret: float | None
) -> None:
    """Others have no limit by default, and so have streams of fold 1."""
    state = LearnerState(artifact(kind, learning={"rule": rule}), fold)
    assert state.rule_settings["constants"].get("regret") == regret
    assert ("regret" in state.tensors()) == (regret is not None)


def test_training_rows_make_weights_firm() -> None:
    """P starts at 1 / (lambda + firmness rows), G at firmness rows; without statistics the rows are not known."""
    assert start(artifact("trained")) == 1 / (10 + 0.05 * 200)
    assert start(artifact("trained", learning={"rule": "ftrl"})) == 10.0
    assert start(artifact("zero", learning={"rule": "ftrl"})) == 0.0
    assert start(artifact("network")) == 10.0
    huge = {"mean": [0.0] * 4, "scale": [1.0] * 4, "rows": 2**53}
    firm = {"rule": "ftrl", "constants": {"firmness": 1e6}}
    squares = LearnerState(artifact("trained", training=huge, learning=firm)).tensors()["squares"]
    assert np.isfinite(squares).all()


@pytest.mark.parametrize(
    ("learning", "reason"),
    [
        ({"rule": "adam"}, "sgd, adagrad, ftrl, newton"),
        ({"rule": "sgd", "constants": {"momentum": 0.9}}, "rate, clip, step_clip"),
        ({"rule": "sgd", "constants": {"rate": 0.0}}, "from 1e-12 to 1000"),
        ({"rule": "sgd", "constants": {"rate": -1.0}}, "constants.rate"),
        ({"rule": "ftrl", "constants": {"beta": 0.0}}, "constants.beta"),
        ({"rule": "ftrl", "constants": {"lambda": 1.0}}, "rate, beta"),
        ({"rule": "newton", "constants": {"forget": 0.5}}, "constants.forget"),
        ({"rule": "newton", "constants": {"clip": 0.0}}, "constants.clip"),
    ],
)
def test_unknown_rules_and_constants_are_refused(learning: dict[str, Any], reason: str) -> None:
    """The reason names what would be right."""
    with pytest.raises(ArtifactError, match=reason):
        LearnerState(artifact("zero", learning=learning))


@pytest.mark.parametrize("rule", NETWORK_RULES)
def test_a_network_has_no_clip_but_its_stages(rule: str) -> None:
    """The reason names the constants that there are; the document names the rates of networks."""
    with pytest.raises(ArtifactError, match=f"constants of {rule} are rate, .*step_clip"):
        LearnerState(artifact("network", learning={"rule": rule, "constants": {"clip": 1.0}}))
    (line,) = [line for line in DOCUMENT.splitlines() if line.startswith(f"| `{rule}` |") and "rate" in line]
    rate = NETWORK_RATES.get(rule)  # type: ignore[call-overload]  # a rule's name
    assert ("in a network" in line) == (rate is not None)
    assert rate is None or f"{rate:g} in a network" in line


def test_newton_has_a_largest_size() -> None:
    """Asked for, Newton is refused where its matrices would take more than 16 MiB or so."""
    with pytest.raises(ArtifactError, match="use ftrl for larger models"):
        LearnerState(artifact("zero", N=2000, K=3, learning={"rule": "newton"}))


def test_statistics_that_no_model_can_have() -> None:
    """A stage that cannot be represented in the dtype is an error of the artifact."""
    stage = {"mean": [1e300] * 4, "scale": [1.0] * 4}
    with pytest.raises(ArtifactError, match="representable"):
        LearnerState(artifact("raw", stage=stage))
