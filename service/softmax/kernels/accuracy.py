"""The accuracy of one answer: whether it equals the target, how confident it is, and how far that is right."""

import numpy as np

from service.compiler import inlined
from service.softmax.kernels.heads import MULTILABEL, SIGMOID


@inlined
def is_hit(head, K, wanted, target, label, p, thresholds):
    """Whether the prediction equals the target: its class, its largest, or for multilabel each side of a threshold."""
    if head == SIGMOID:
        return label == (1 if target[0, 0] > 0.5 else 0)
    if head == MULTILABEL:
        same = True
        for k in range(K):
            same &= (p[0, k] >= thresholds[k]) == (target[0, k] >= 0.5)
        return same
    if wanted >= 0:
        return label == wanted
    best = 0
    for k in range(K):
        if target[0, k] > target[0, best]:
            best = k
    return label == best


@inlined
def certainty(head, K, target, label, answer):
    """The confidence and accuracy of an answer: the probability of its class, and the target of that class.

    A multilabel answer has the means over its classes, each predicted as present if its p is at least 0.5.
    """
    if head == SIGMOID:
        return np.float64(answer[0, label]), target[0, 0] if label == 1 else 1.0 - target[0, 0]
    if head != MULTILABEL:
        return np.float64(answer[0, label]), target[0, label]
    confidence, right = 0.0, 0.0
    for k in range(K):
        p = np.float64(answer[0, k])
        confidence += p if p >= 0.5 else 1.0 - p
        right += target[0, k] if p >= 0.5 else 1.0 - target[0, k]
    return confidence / K, right / K
