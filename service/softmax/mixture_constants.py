"""The constants of the rule mixture, as kernels/mixture_fold.py takes them."""

from typing import Final

import numpy as np

from service.softmax.arrays import Doubles
from service.softmax.kernels import mixture_fold
from service.softmax.rule import MixtureConstants, Rule

# Of the weights of the mixture: the diagonal of its curvature, what is kept of it for each row, and the part of the
# guard that is spread evenly.
MIXTURE_NUMBERS: Final = (10.0, 0.999, 0.001)


def mixture_constants(rule: Rule) -> MixtureConstants:
    """Return what only the rule mixture has.

    Raises:
        ValueError: It is another rule.
    """
    if rule.mixture is None:
        raise ValueError("a mixture of experts learns by the rule mixture")
    return rule.mixture


def kernel_constants(rule: Rule) -> Doubles:
    """Return the constants of a rule mixture in the order of the kernel."""
    numbers = mixture_constants(rule)
    values = {
        mixture_fold.RATE: rule.rate,
        mixture_fold.LAMBDA: 1 / rule.start,
        mixture_fold.FIRM: 1 / numbers.offset_start,
        mixture_fold.FLOOR: rule.floor,
        mixture_fold.PULL: rule.pull,
        mixture_fold.FORGET: rule.forget,
        mixture_fold.SURPRISE: rule.surprise,
        mixture_fold.STEP_CLIP: rule.step_clip,
        mixture_fold.SHARE_A: numbers.share,
        mixture_fold.SHARE_L: numbers.linear_share,
        mixture_fold.B_RATE: numbers.base.rate,
        mixture_fold.B_BETA: numbers.base.offset,
    }
    constants = np.zeros(mixture_fold.CONSTANTS)
    constants[list(values)] = list(values.values())
    constants[[mixture_fold.MIX_LAMBDA, mixture_fold.MIX_KEEP, mixture_fold.MIX_SHARE]] = MIXTURE_NUMBERS
    return constants
