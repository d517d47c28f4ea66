"""The sizes of models: for which of them a learning rule is the default, and for which it may be chosen."""

from collections.abc import Mapping
from typing import Final

from service.errors import ArtifactError
from service.softmax.kernels.mixture_inputs import STAGE_ROWS
from service.softmax.rule import RuleName
from service.store.artifact.artifact import Artifact
from service.store.artifact.mixture_rules import drawn_features

# Newton's time and memory grow with K (N + 1)^2, and so do those of a mixture on narrow rows. Up to the first limit
# they are the default: a step of newton on digits, at 42,250, takes some 8 microseconds. Up to the second they may be
# chosen, and classes may be added: the matrices take 16 MiB.
NEWTON_DEFAULT_MAX: Final = 1 << 18
NEWTON_MAX: Final = 1 << 22
NARROW_FEATURES_MAX: Final = 128
# The M random features of a row take M N multiplications. Up to the first limit a mixture is the default, and up to the
# second it may be chosen.
MIXTURE_DEFAULT_MAX: Final = 1 << 21
MIXTURE_MAX: Final = 1 << 24


def newton_size(n_features: int, n_outputs: int) -> int:
    """Return K (N + 1)^2, to which the time and memory of Newton's rule are proportional."""
    return n_outputs * (n_features + 1) ** 2


def is_wide(artifact: Artifact) -> bool:
    """Return whether a mixture learns rows as wide ones, without an expert that has a curvature for each class.

    The artifact decides this for the whole stream, so added classes never change it.
    """
    manifest = artifact.manifest
    if manifest.mixture is not None:
        return manifest.mixture.linear is None
    N = artifact.n_features
    return N > NARROW_FEATURES_MAX or newton_size(N, manifest.n_outputs) > NEWTON_DEFAULT_MAX


def check_size(name: RuleName, constants: Mapping[str, float], artifact: Artifact, n_outputs: int) -> None:
    """Raise ArtifactError if a model has too many features and logits for a rule.

    Args:
        name: The rule.
        constants: The constants that are set.
        artifact: The artifact.
        n_outputs: The number of logits, which grows with added classes.
    """
    N = artifact.n_features
    if name == "mixture" and drawn_features(constants)[0] * N > MIXTURE_MAX:
        raise ArtifactError(f"the rule mixture is limited to {MIXTURE_MAX} features times random features")
    has_matrices = name == "newton" or (name == "mixture" and not is_wide(artifact))
    if has_matrices and newton_size(N, n_outputs) > NEWTON_MAX:
        raise ArtifactError(f"the rule {name} is limited to K (N + 1)^2 = {NEWTON_MAX}; use ftrl for larger models")


def mixture_numbers(artifact: Artifact, constants: Mapping[str, float], n_outputs: int) -> int:
    """Return how many numbers the tensors of an exported mixture have at most.

    Args:
        artifact: The artifact.
        constants: The constants that are set.
        n_outputs: The number of logits.
    """
    N, M, wide = artifact.n_features, int(drawn_features(constants)[0]), is_wide(artifact)
    # A trained model with a delta and the expert base take the row alone, and so does the linear expert of narrow rows.
    rows, features = (3 if wide else 4) * (1 + N), 2 * (1 + M + (0 if wide else N))
    return n_outputs * (rows + features) + STAGE_ROWS * N
