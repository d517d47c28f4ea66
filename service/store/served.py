"""From an artifact to the model that answers: the one place that reads a manifest's stage, statistics and delta."""

import numpy as np

from service.softmax.classifier import Classifier
from service.softmax.learned import Served
from service.softmax.model import Delta, Stage
from service.store.artifact import Artifact


def stage_of(artifact: Artifact) -> Stage | None:
    """What is done to a row before the weights see it."""
    stage = artifact.manifest.stage
    return None if stage is None else Stage(np.array(stage.mean), np.array(stage.scale), stage.clip)


def delta_of(artifact: Artifact) -> Delta | None:
    """What learning has added: the delta's weights behind the training statistics."""
    delta, training = artifact.manifest.delta, artifact.manifest.training
    if delta is None or training is None:
        return None
    stage = Stage(np.array(training.mean), np.array(training.scale), delta.clip)
    return Delta(artifact.tensors[delta.weight], stage)


def served_of(artifact: Artifact) -> Served:
    """What an artifact answers with before anything is learned: state(0)."""
    manifest = artifact.manifest
    stage, delta = stage_of(artifact), delta_of(artifact)
    return Served(manifest.head, artifact.weights, artifact.bias, stage, delta, manifest.scaling)


def model_of(artifact: Artifact) -> Classifier:
    """The model that an artifact describes.

    Raises:
        ValueError: A statistic cannot be represented in the model's dtype.
    """
    return served_of(artifact).model()
