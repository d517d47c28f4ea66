"""The learning rule of a model, its constants and its form, from the manifest alone.

`docs/rules.md` describes the rules for users; its table and CONSTANTS agree.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple, get_args

import numpy as np

from service.errors import ArtifactError
from service.record import ROWS_MAX
from service.softmax.kernels.random_features import FEATURES_STEP
from service.softmax.network_learner import NETWORK_RULES
from service.softmax.rule import Form, Rule, RuleName
from service.softmax.sparse_learner import SPARSE_RULES
from service.store.artifact.artifact import Artifact
from service.store.artifact.mixture_record import RANDOM_FEATURES_MAX
from service.store.artifact.mixture_rules import FEATURES, MIXTURE_HEADS, SEED, build_mixture, check_mixture
from service.store.artifact.rule_sizes import MIXTURE_DEFAULT_MAX, NEWTON_DEFAULT_MAX, check_size, is_wide, newton_size


class Constant(NamedTuple):
    """One number of a rule: its default (None: absent), and the least and the greatest value."""

    default: float | None
    least: float
    most: float


RATE_MAX: Final = 1e3
MIN_CONSTANT: Final = 1e-12
# Early steps of FTRL move each weight by about the rate, so they move a row's logits by about rate N for standardized
# features. The default rate is therefore at most WIDE_RATE / N. Folds before WIDE_RATE_FOLD have FTRL_RATE for any N.
FTRL_RATE: Final = 0.3
WIDE_RATE: Final = 16.0
WIDE_RATE_FOLD: Final = 2
_CLIP: Final = Constant(2.0, 1e-3, 1e6)
_SHARED: Final = {
    "clip": _CLIP,
    "step_clip": Constant(8.0, 1e-6, 1e6),
    "forget": Constant(1e-6, 0.0, 0.1),
    "firmness": Constant(0.05, 0.0, 1e6),
    "regret": Constant(20.0, 0.0, 1e6),
}
CONSTANTS: Final[dict[RuleName, dict[str, Constant]]] = {
    "sgd": {
        "rate": Constant(0.01, MIN_CONSTANT, RATE_MAX),
        "clip": _CLIP._replace(default=None),
        "step_clip": _SHARED["step_clip"]._replace(default=None),
    },
    "adagrad": {
        "rate": Constant(0.3, MIN_CONSTANT, RATE_MAX),
        "epsilon": Constant(1e-8, MIN_CONSTANT, 1e6),
        **_SHARED,
    },
    "ftrl": {
        "rate": Constant(FTRL_RATE, MIN_CONSTANT, RATE_MAX),
        "beta": Constant(1.0, MIN_CONSTANT, 1e6),
        **_SHARED,
    },
    "newton": {
        "rate": Constant(4.0, MIN_CONSTANT, RATE_MAX),
        "lambda": Constant(10.0, 1e-6, 1e9),
        "floor": Constant(0.001, 1e-9, 0.25),
        "pull": Constant(0.5, 0.0, 10.0),
        "surprise": Constant(100.0, 0.0, 1e6),
        **_SHARED,
        "clip": _CLIP._replace(default=1.25),
    },
    "mixture": {
        "features": Constant(float(FEATURES), FEATURES_STEP, RANDOM_FEATURES_MAX),
        "seed": Constant(float(SEED), 0.0, ROWS_MAX),
        "rate": Constant(4.0, MIN_CONSTANT, RATE_MAX),
        "lambda": Constant(10.0, 1e-6, 1e9),
        "floor": Constant(0.001, 1e-9, 0.25),
        "pull": Constant(0.5, 0.0, 10.0),
        "surprise": Constant(100.0, 0.0, 1e6),
        "step_clip": _SHARED["step_clip"],
        "forget": _SHARED["forget"],
        "firmness": _SHARED["firmness"],
        "share": Constant(0.4, 0.0, 1.0),
        "linear_share": Constant(0.8, 0.0, 1.0),
    },
}
# Streams from this fold on learn from zero weights by the rule mixture, unless the manifest names another one.
MIXTURE_FOLD: Final = 2
# Models with hidden layers lack these constants.
LINEAR_CONSTANTS: Final = {"clip", "regret"}
# Only models that learn from zero weights have a limit of the regret by default, in streams from this fold on.
REGRET_FOLD: Final = 2
# AdaGrad's first step moves each weight by the rate. For standardized features that is a sensible part of a logit. The
# scale of raw features is unknown, so their steps are small.
RAW_FEATURES_RATE: Final = 0.0003
# All layers of a network move at the same time, and each changes the inputs of the next one; so its steps are smaller.
# Measured in one pass over each of the six data sets of loadtest/datasets.py, geometric means of the progressive loss.
# Seven networks of one to three hidden layers from random weights: AdaGrad 0.266 at the rate 0.05, 0.270 at 0.08 and
# 0.281 at 0.1; then, with all labels changed, 0.379, 0.332 and 0.324. FTRL 0.279 at 0.15, 0.280 at 0.2; then 0.311 and
# 0.295. Weights trained on a tenth of the rows have a loss of 0.252 without learning, 0.223 with AdaGrad and 0.219 with
# FTRL at these rates; those trained on 40 %, 0.187 and 0.182 with both.
NETWORK_RATES: Final[dict[RuleName, float]] = {"adagrad": 0.08, "ftrl": 0.2}

# Models of sparse rows learn their columns as they are, so a clip of standardized ones has no meaning for them.
SPARSE_CONSTANTS: Final = {"clip"}
# A column of a sparse row is present in few rows, so its first steps must move it far. Of ten rates, AdaGrad has the
# least loss at this one, in one pass over each of eight data sets: loadtest/sparse_rates.py; docs/rules.md has a table.
SPARSE_RATE: Final = 0.5
SPARSE_DEFAULTS: Final[dict[RuleName, dict[str, float | None]]] = {
    "sgd": {"clip": None},
    "adagrad": {"rate": SPARSE_RATE, "clip": None},
    "ftrl": {"rate": FTRL_RATE, "clip": None},
}


def default_rule(artifact: Artifact, fold_version: int) -> RuleName:
    """Return the rule for an artifact that names none.

    Args:
        artifact: The artifact.
        fold_version: The version of the fold with which its stream began.
    """
    manifest = artifact.manifest
    if artifact.has_sparse_rows:
        return "adagrad"
    if manifest.mixture is not None:
        return "mixture"
    if manifest.hidden or (manifest.training is None and artifact.weights.any()):
        return "adagrad"
    if manifest.training is None and manifest.head in MIXTURE_HEADS and fold_version >= MIXTURE_FOLD:
        return "mixture" if FEATURES * artifact.n_features <= MIXTURE_DEFAULT_MAX else "ftrl"
    return "newton" if newton_size(artifact.n_features, manifest.n_outputs) <= NEWTON_DEFAULT_MAX else "ftrl"


def learning_form(artifact: Artifact, name: RuleName, constants: Mapping[str, float]) -> Form:
    """Return the form of learning; `softmax/linear_learner.py` describes the forms."""
    manifest = artifact.manifest
    if manifest.hidden:
        return "layers"
    if name == "mixture" or manifest.mixture is not None:
        return "mixture"
    if manifest.delta is not None:
        return "delta"
    if artifact.has_sparse_rows or (name == "sgd" and "clip" not in constants):
        return "plain"
    if manifest.training is not None or manifest.fields is not None:
        return "delta"
    return "plain" if artifact.weights.any() else "running"


def select_rule(artifact: Artifact, fold_version: int) -> tuple[RuleName, dict[str, float]]:
    """Return the rule of an artifact, and the constants that its manifest sets.

    Args:
        artifact: The artifact.
        fold_version: The version of the fold, which decides the default.

    Raises:
        ArtifactError: The manifest names an unknown rule or constant, or a number outside its range.
    """
    learning, delta = artifact.manifest.learning, artifact.manifest.delta
    name = default_rule(artifact, fold_version) if learning is None else parse_rule_name(learning.rule)
    constants = {} if learning is None else dict(learning.constants)
    if delta is not None and name != "mixture" and constants.setdefault("clip", delta.clip) != delta.clip:
        raise ArtifactError("learning.constants.clip must equal the clip of the delta")
    check_constants(name, constants, artifact)
    check_size(name, constants, artifact, artifact.manifest.n_outputs)
    if name == "mixture":
        check_mixture(artifact, constants)
    elif artifact.manifest.mixture is not None:
        raise ArtifactError("a mixture of experts learns by the rule mixture")
    return name, constants


def parse_rule_name(name: str) -> RuleName:
    """Return the name of a rule.

    Raises:
        ArtifactError: There is no such rule.
    """
    for rule in get_args(RuleName):
        if rule == name:
            return rule  # type: ignore[no-any-return]  # get_args forgets the literals
    raise ArtifactError(f"learning.rule must be one of {', '.join(CONSTANTS)}")


def check_constants(name: RuleName, constants: Mapping[str, float], artifact: Artifact) -> None:
    """Raise ArtifactError if a model cannot learn by a rule with these constants, or a number is out of range.

    Args:
        name: The rule.
        constants: The constants that are set.
        artifact: The artifact. With hidden layers it cannot use newton, and lacks LINEAR_CONSTANTS; with sparse rows it
            lacks SPARSE_CONSTANTS too.
    """
    missing: set[str] = set()
    if artifact.manifest.hidden:
        missing = LINEAR_CONSTANTS
        if name not in NETWORK_RULES:
            raise ArtifactError(f"a model with hidden layers learns by {', '.join(NETWORK_RULES)}")
    elif artifact.has_sparse_rows:
        missing = SPARSE_CONSTANTS
        if name not in SPARSE_RULES:
            raise ArtifactError(f"a model of sparse rows learns by {', '.join(SPARSE_RULES)}")
    table = {key: constant for key, constant in CONSTANTS[name].items() if key not in missing}
    if not constants.keys() <= table.keys():
        raise ArtifactError(f"learning.constants of {name} are {', '.join(table)}")
    for constant, value in constants.items():
        _, least, most = table[constant]
        if not least <= value <= most:
            raise ArtifactError(f"learning.constants.{constant} of {name} must be from {least:g} to {most:g}")


def effective_constants(
    artifact: Artifact, name: RuleName, form: Form, constants: Mapping[str, float], fold_version: int
) -> dict[str, float]:
    """Return every constant in effect by its name: the given ones, and defaults for the others.

    Args:
        artifact: The artifact.
        name: The rule.
        form: The form of learning.
        constants: The constants that are set.
        fold_version: The version of the fold, which decides the defaults.
    """
    defaults = {key: constant.default for key, constant in CONSTANTS[name].items()}
    if name == "adagrad" and form == "plain":
        defaults["rate"] = RAW_FEATURES_RATE
    if name == "ftrl" and fold_version >= WIDE_RATE_FOLD:
        defaults["rate"] = min(FTRL_RATE, WIDE_RATE / artifact.n_features)
    if artifact.has_sparse_rows:
        defaults |= SPARSE_DEFAULTS.get(name, {})
    if form == "layers":
        defaults |= {"rate": NETWORK_RATES.get(name, defaults["rate"]), "clip": None}
    if form != "running" or fold_version < REGRET_FOLD:
        defaults["regret"] = None
    return {key: value for key, value in {**defaults, **constants}.items() if value is not None}


def build_rule(
    artifact: Artifact,
    name: RuleName,
    form: Form,
    constants: Mapping[str, float],
    *,
    fold_version: int,
    rows: int | None = None,
) -> Rule:
    """Return the rule with all its numbers.

    Args:
        artifact: The artifact.
        name: The rule.
        form: The form of learning.
        constants: The constants that are set.
        fold_version: The version of the fold, which decides the defaults.
        rows: The rows that the trained weights come from; None takes those of the training set.
    """
    values = effective_constants(artifact, name, form, constants, fold_version)
    training = artifact.manifest.training
    if rows is None:
        rows = 0 if training is None or form not in {"delta", "layers", "mixture"} else training.rows
    firmness = values.get("firmness", 0.0) * rows
    if name == "mixture":
        wide = is_wide(artifact)
        base = build_rule(artifact, "ftrl" if wide else "newton", "running", {}, fold_version=fold_version)
        return build_mixture(values, firmness, base, wide=wide)
    return Rule(
        name=name,
        rate=values["rate"],
        offset=values.get("epsilon", values.get("beta", 0.0)),
        floor=values.get("floor", 0.0),
        pull=values.get("pull", 0.0),
        forget=values.get("forget", 0.0),
        surprise=values.get("surprise", 0.0),
        # The rows of the training set count as rows in the sums.
        start=1 / (values["lambda"] + firmness) if name == "newton" else firmness,
        step_clip=values.get("step_clip", np.inf),
        clip=values.get("clip", np.inf),
        regret=values.get("regret", 0.0),
    )
