"""Calibrations shared by tests."""

from service.softmax.calibration import IDENTITY, KINDS, Calibration
from service.softmax.classifier import Head


def identity_calibration(head: Head) -> Calibration:
    """Return the calibration that changes no logit."""
    return Calibration(KINDS[head], tuple(IDENTITY[KINDS[head]].values()))


def fixed_calibration(head: Head) -> Calibration:
    """Return a calibration that changes every logit."""
    return Calibration("temperature", (2.7,)) if head == "softmax" else Calibration("platt", (0.6, -0.8))
