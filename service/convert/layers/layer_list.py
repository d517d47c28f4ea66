"""Parse `--layers`: the tensors of each layer, and its activation.

w1,b1:relu,w2,b2       weight and bias of each layer; after the colon the activation of a hidden layer
w1,:tanh,w2,           an empty name for a layer without bias
w,b:softmax            the activation of the last layer is the head: softmax or sigmoid; by default softmax, or
sigmoid for one output
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from service.convert.converted_model import Activation
from service.errors import ConversionError
from service.store.artifact.manifest import LAYERS_MAX

HIDDEN: Final[dict[str, Activation]] = {"relu": "relu", "sigmoid": "sigmoid", "tanh": "tanh"}
LAST: Final = frozenset({"", "identity", "softmax", "sigmoid"})


class NamedLayer(NamedTuple):
    """A layer as `--layers` names it.

    Attributes:
        weight: The name of its weight.
        bias: The name of its bias, or "".
        activation: The word after the colon, or "".
    """

    weight: str
    bias: str
    activation: str

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its tensors."""
        return (self.weight, self.bias) if self.bias else (self.weight,)


def parse_layers(text: str) -> list[NamedLayer]:
    """Return the layers, the first one first.

    Raises:
        ConversionError: The text has another form.
    """
    if not text:
        raise ConversionError("name the tensors of each layer, as in --layers w1,b1:relu,w2,b2")
    words = text.split(",")
    if len(words) % 2:
        raise ConversionError("--layers must have a weight and a bias for each layer, as in w1,b1:relu,w2,b2")
    layers = []
    for weight, bias in zip(words[::2], words[1::2], strict=True):
        bias_name, _, activation = bias.partition(":")
        layers.append(NamedLayer(weight.strip(), bias_name.strip(), activation.strip().lower()))
    check_layers(layers)
    return layers


def check_layers(layers: Sequence[NamedLayer]) -> None:
    """Raise ConversionError if a layer has no weight, or an activation that is not known at its place."""
    if len(layers) > LAYERS_MAX:
        raise ConversionError(f"--layers has more than {LAYERS_MAX} layers")
    for number, layer in enumerate(layers, start=1):
        is_last = number == len(layers)
        if not layer.weight:
            raise ConversionError(f"layer {number} of --layers has no weight")
        if layer.activation not in (LAST if is_last else HIDDEN):
            words = "softmax, sigmoid or nothing" if is_last else "relu, sigmoid or tanh"
            raise ConversionError(f"the activation of layer {number} of --layers must be {words}")
