"""docs/examples/torch_network.py makes what a PyTorch network is; of PyTorch where it is there, else of its like."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import ArtifactError
from service.store.artifact.artifact import read_artifact, write_artifact
from service.store.artifact.model_factory import build_model
from tests.support.scripts import load_script

ROOT = Path(__file__).parents[3]
RANDOM = np.random.default_rng(0)
FIELDS = {"head": "softmax", "classes": ["a", "b", "c"], "features": ["w", "x", "y", "z"]}


class Tensor:
    """An array with the methods that PyTorch's tensors have."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def detach(self) -> "Tensor":
        """As PyTorch."""
        return self

    cpu = detach

    def numpy(self) -> NDArray[Any]:
        """As PyTorch."""
        return self.array


class Linear:
    """A layer with its weights the way PyTorch has them, (outputs, inputs)."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        self.weight = Tensor(RANDOM.standard_normal((outputs, inputs)))
        self.bias = Tensor(RANDOM.standard_normal(outputs)) if bias else None


class Sigmoid:
    """An activation; only its name counts."""


class Tanh(Sigmoid):
    """As above."""


class ReLU(Sigmoid):
    """As above."""


class Dropout(Sigmoid):
    """Nothing, after training."""


class Softmax(Sigmoid):
    """A head."""


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """The script; it lies in no package."""
    return load_script("docs/examples/torch_network.py")


def test_an_artifact_of_plain_arrays(example: ModuleType, tmp_path: Path) -> None:
    """Through the disk it answers what the modules' formulas give, transposed weights and a missing bias included."""
    modules = [Linear(4, 6), Dropout(), Sigmoid(), Linear(6, 5, bias=False), Tanh(), Linear(5, 2), ReLU(), Linear(2, 3)]
    write_artifact(tmp_path / "1", example.artifact_of(modules, **FIELDS))
    made = read_artifact(tmp_path / "1", 1 << 20)
    assert [layer.activation for layer in made.manifest.layers] == ["sigmoid", "tanh", "relu", "identity"]
    X = RANDOM.standard_normal((20, 4)).astype(np.float32)
    A: Any = X.astype(np.float64)
    functions = {"Sigmoid": lambda z: 1 / (1 + np.exp(-z)), "Tanh": np.tanh, "ReLU": lambda z: np.maximum(z, 0)}
    for module in modules:
        if isinstance(module, Linear):
            A = A @ module.weight.array.T + (0 if module.bias is None else module.bias.array)
        else:
            A = functions.get(type(module).__name__, lambda z: z)(A)
    powers = np.exp(A - A.max(axis=1, keepdims=True))
    np.testing.assert_allclose(build_model(made).predict(X), powers / powers.sum(axis=1, keepdims=True), atol=1e-6)


def test_modules_that_make_no_network(example: ModuleType) -> None:
    """A head, two activations in a row, or none between two layers."""
    for modules in (
        [Linear(4, 3), Softmax()],
        [Linear(4, 5), Tanh(), ReLU(), Linear(5, 3)],
        [Sigmoid(), Linear(4, 3)],
    ):
        with pytest.raises(ValueError, match="no head"):
            example.artifact_of(modules, **FIELDS)
    for modules in ([Linear(4, 5), Linear(5, 3)], [Linear(4, 5), Tanh(), Linear(6, 3)], []):
        with pytest.raises(ArtifactError):
            example.artifact_of(modules, **FIELDS)


def test_an_artifact_of_torch(example: ModuleType) -> None:
    """A real network's own probabilities, to 1e-6."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)
    )
    X = RANDOM.standard_normal((20, 4)).astype(np.float32)
    expected = torch.softmax(network(torch.from_numpy(X)), dim=1).detach().numpy()
    np.testing.assert_allclose(build_model(example.artifact_of(network, **FIELDS)).predict(X), expected, atol=1e-6)
