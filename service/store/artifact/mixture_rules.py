"""The rule mixture: for which models it is, and its numbers; learning_rules.py has the table of its constants."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from service.errors import ArtifactError
from service.softmax.kernels.random_features import FEATURES_STEP
from service.softmax.rule import MixtureConstants, Rule
from service.store.artifact.artifact import Artifact

MIXTURE_HEADS: Final = ("softmax", "sigmoid")
FEATURES: Final = 256
SEED: Final = 11


def drawn_features(constants: Mapping[str, float]) -> tuple[float, float]:
    """Return the number of random features and their seed: the given ones, or the defaults."""
    return constants.get("features", FEATURES), constants.get("seed", SEED)


def check_drawn_features(constants: Mapping[str, float]) -> None:
    """Raise ArtifactError if these constants, each within its range, draw no random features."""
    features, seed = drawn_features(constants)
    if features % FEATURES_STEP or seed != int(seed):
        raise ArtifactError(
            f"learning.constants of mixture: features must be a multiple of {FEATURES_STEP}, and seed a whole number"
        )


def check_mixture(artifact: Artifact, constants: Mapping[str, float]) -> None:
    """Raise ArtifactError if the rule mixture cannot learn a model with these constants, each within its range."""
    manifest = artifact.manifest
    if manifest.head not in MIXTURE_HEADS:
        raise ArtifactError("the rule mixture is for softmax and sigmoid heads; use newton, ftrl or adagrad")
    check_drawn_features(constants)
    record = manifest.mixture
    if record is not None and (record.random_features, record.seed) != drawn_features(constants):
        raise ArtifactError("learning.constants features and seed must be those of the mixture")


def build_mixture(values: Mapping[str, float], firmness: float, base: Rule, *, wide: bool) -> Rule:
    """Return the rule with all its numbers.

    Args:
        values: Every constant in effect.
        firmness: What the rows of the trained weights add to `lambda`.
        base: The rule of the base expert, newton or ftrl, for weights that are not trained.
        wide: Whether rows are wide.
    """
    start = 1 / (values["lambda"] + firmness)
    return Rule(
        name="mixture",
        rate=values["rate"],
        floor=values["floor"],
        pull=values["pull"],
        forget=values["forget"],
        surprise=values["surprise"],
        start=1 / values["lambda"],
        step_clip=values["step_clip"],
        mixture=MixtureConstants(
            features=int(values["features"]),
            seed=int(values["seed"]),
            offset_start=start,
            share=values["share"],
            linear_share=values["linear_share"],
            base=replace(base, start=firmness if wide else start),
            is_wide=wide,
        ),
    )
