"""Convert a PyTorch network into an artifact: `Linear` modules with a `Sigmoid`, `Tanh` or `ReLU` between each two.

    artifact = artifact_of(model, head="softmax", classes=["no", "yes"], features=["age", "height"])
    write_artifact(Path("models/mine/1"), artifact)

This needs no import of PyTorch: only the class name, `weight` and `bias` of each module are used. The head is not a
module: leave out a final `Softmax` or `Sigmoid` with `artifact_of(model[:-1], …)`, as losses such as `CrossEntropyLoss`
do in training.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from softstep import Artifact

ACTIVATIONS = {"Sigmoid": "sigmoid", "Tanh": "tanh", "ReLU": "relu"}
# These have no effect once a network is trained.
IGNORED = {"Dropout", "Identity"}


def artifact_of(modules: Iterable[Any], **fields: object) -> Artifact:
    """Convert a `torch.nn.Sequential`, or any modules in their order, into an artifact.

    Args:
        modules: `Linear`, activation, `Linear`, …; the last `Linear` gives the logits.
        fields: The other fields of the manifest: `head`, `classes`, `features`, and any optional ones.

    Raises:
        ValueError: A module has another class, or is at the wrong place.
        ArtifactError: The fields or the sizes contradict each other.
    """
    layers: list[dict[str, str]] = []
    tensors: dict[str, Any] = {}
    for module in modules:
        kind = type(module).__name__
        if kind == "Linear":
            weight, bias = (f"layers.{len(layers)}.{name}" for name in ("weight", "bias"))
            tensors[weight] = _array(module.weight).T
            tensors[bias] = np.zeros(len(module.weight), np.float32) if module.bias is None else _array(module.bias)
            layers.append({"weight": weight, "bias": bias, "activation": "identity"})
        elif kind in ACTIVATIONS and layers and layers[-1]["activation"] == "identity":
            layers[-1]["activation"] = ACTIVATIONS[kind]
        elif kind not in IGNORED:
            raise ValueError("give Linear modules with one Sigmoid, Tanh or ReLU between each two, and no head")
    return Artifact.from_fields({"dtype": "float32", "layers": layers, **fields}, tensors)


def _array(tensor: Any) -> Any:  # noqa: ANN401  # PyTorch may be missing, and so its types
    return tensor.detach().cpu().numpy().astype(np.float32)
