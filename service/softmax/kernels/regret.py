"""A limit of the regret: how much more than a uniform guess a model may lose while it learns from zero weights.

    regret (1,) float64    the sum of loss - u over the learned rows, at most `limit`; u is the loss of a uniform guess
    limit                  the constant `regret` times u; 0 sets no limit

If the steps are too large for what the rows tell, a model loses more than a uniform guess, and its regret grows. Steps
then become smaller in proportion to regret / limit, down to SLOWEST of the rate. The weights of the features shrink, by
SHRINK a row at the limit. So the answers return to the frequencies of the classes, which the biases go on learning. A
model that predicts better than a uniform guess has a negative regret and learns at its full rate.

The regret stops at the limit, so that a model that begins to learn gets below it within few rows.
"""

import numpy as np

from service.compiler import inlined
from service.softmax.kernels.exp_log import log_64
from service.softmax.kernels.heads import MULTILABEL, SIGMOID
from service.softmax.kernels.lane_operations import load, spread
from service.softmax.kernels.rules import set_weights, weight_limit
from service.softmax.kernels.wide import WIDE

# The factor of the rate at the limit. After 3,000 rows of noise, 64 features and 10 classes, a clear signal is learned
# some 500 rows later with 0.05.
SLOWEST = 0.1
# The share of each weight that a row removes at the limit.
SHRINK = 0.02


@inlined
def uniform_loss(head, K):
    """The loss of equal probabilities for all classes, for targets that sum to 1; for multilabel, of 1/2 for each."""
    if head == SIGMOID:
        return log_64(2.0)
    if head == MULTILABEL:
        return K * log_64(2.0)
    return log_64(np.float64(K))


@inlined
def regret_share(regret, limit):
    """The regret as a part of its limit, from 0 to 1."""
    return 0.0 if regret[0] <= 0.0 else min(regret[0] / limit, 1.0)


@inlined
def update_regret(regret, head, K, target, loss, uniform, limit):
    """Count the loss of one row."""
    mass = 1.0
    if head not in (SIGMOID, MULTILABEL):
        mass = 0.0
        for k in range(K):
            mass += target[0, k]
    regret[0] = min(regret[0] + (loss - mass * uniform), limit)


@inlined
def shrink_weights(masters, panels, D, share):
    """Shrink the learned weights of the features; masters and panels as in rules.py."""
    count, width = masters.shape[0] // D, masters.shape[1]
    F = panels.shape[0] // count - 1
    factor = spread(load(masters, 0, 0), 1.0 - SHRINK * share)
    limit = spread(factor, weight_limit(panels))
    for c in range(count):
        for j in range(1, D):
            row = c * D + j
            for k in range(0, width, WIDE):
                set_weights(masters, row, panels, c * (F + 1) + F + 1 - D + j, k, factor * load(masters, row, k), limit)
