"""Makes an artifact of a PyTorch network: `Linear` modules with a `Sigmoid`, `Tanh` or `ReLU` between each two.

    artifact = artifact_of(model, head="softmax", classes=["no", "yes"], features=["age", "height"])
    write_artifact(Path("models/mine/1"), artifact)

PyTorch itself is not imported: of a module its class's name, its `weight` and its `bias` are needed. The head is no
module here: a `Softmax` or `Sigmoid` at the end is left out, `artifact_of(model[:-1], …)`, as a loss such as
`CrossEntropyLoss` leaves it out in training.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from service.store.artifact.artifact import Artifact

ACTIVATIONS = {"Sigmoid": "sigmoid", "Tanh": "tanh", "ReLU": "relu"}
# They do nothing once a network is trained.
PASSED_OVER = {"Dropout", "Identity"}


def artifact_of(modules: Iterable[Any], **fields: object) -> Artifact:
    """The artifact of a `torch.nn.Sequential`, or of any modules in their order.

    Args:
        modules: `Linear`, activation, `Linear`, …; the last `Linear` gives the logits.
        fields: The other fields of the manifest: `head`, `classes`, `features`, and any that may be left out.

    Raises:
        ValueError: A module is none that a network is made of here, or stands where it cannot.
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
        elif kind not in PASSED_OVER:
            raise ValueError("give Linear modules with one Sigmoid, Tanh or ReLU between each two, and no head")
    return Artifact.from_fields({"dtype": "float32", "layers": layers, **fields}, tensors)


def _array(tensor: Any) -> Any:  # noqa: ANN401  # a library that need not be there has no types here
    return tensor.detach().cpu().numpy().astype(np.float32)
