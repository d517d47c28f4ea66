"""The objectives of training have the values and gradients of autograd, which differentiates their plain formulas."""

import itertools
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from service.softmax.classifier import Head
from service.softmax.linear_objective import LinearObjective
from service.softmax.network_objective import NetworkObjective
from tests.clients.environments import AUTOGRAD
from tests.support.paths import ROOT
from tests.support.training_blocks import Problem, draw_problem

SCRIPT = ROOT / "tests" / "clients" / "autograd_gradients.py"
HEADS: tuple[tuple[Head, int], ...] = (("softmax", 4), ("sigmoid", 2), ("multilabel", 3))
Objective = LinearObjective | NetworkObjective


class Case(NamedTuple):
    """An objective and the parameters at which it is differentiated.

    Attributes:
        objective: The objective.
        parameters: (n,) float64.
        problem: Its rows.
        C: The inverse strength of its penalty.
        activation: The activation of the hidden layers.
    """

    objective: Objective
    parameters: np.ndarray
    problem: Problem
    C: float
    activation: str


def draw_cases() -> list[Case]:
    """Return linear models on dense and sparse rows, and networks of each activation with one and two hidden layers."""
    rng, cases = np.random.default_rng(0), []
    for seed, ((head, n_classes), C) in enumerate(itertools.product(HEADS, (0.05, 3.0, np.inf))):
        problem = draw_problem(seed, head, n_classes, 70, 11, kept=0.6)
        objectives: list[tuple[Objective, str]] = [
            (LinearObjective(blocks, head, n_classes, C), "none") for blocks in (problem.dense(), problem.sparse())
        ]
        for activation, hidden in itertools.product(("relu", "tanh", "sigmoid"), ((5,), (9, 4))):
            network = NetworkObjective(
                problem.dense(),
                head,
                n_classes,
                C,
                hidden=hidden,
                activation=activation,  # type: ignore[arg-type]
            )
            objectives.append((network, activation))
        for objective, activation in objectives:
            K = 1 if head == "sigmoid" else n_classes
            parameters = rng.normal(size=objective.n_parameters)
            if activation == "none":
                # Parameters of a linear model have padding, which is not differentiated.
                parameters = objective.pack((), rng.normal(size=(11, K)), rng.normal(size=K))
            cases.append(Case(objective, parameters, problem, C, activation))
    return cases


def layers_of(case: Case, parameters: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the weights and the bias of each layer."""
    hidden, weights, bias = case.objective.unpack(parameters)
    return [*((layer.weights, layer.bias) for layer in hidden), (weights, bias)]


def test_values_and_gradients_are_those_of_automatic_differentiation(tmp_path: Path) -> None:
    """Of every head and activation, with and without a penalty, to the rounding of float64."""
    cases = draw_cases()
    arrays: dict[str, Any] = {"names": [f"{case.problem.head} {case.activation}" for case in cases]}
    for i, case in enumerate(cases):
        labels = case.problem.labels
        Y = (
            np.eye(case.problem.n_classes)[labels]
            if case.problem.head == "softmax"
            else labels.reshape(len(labels), -1)
        )
        arrays |= {f"{i}.X": case.problem.X.astype(np.float64), f"{i}.Y": Y.astype(np.float64)}
        arrays |= {f"{i}.rows": case.problem.weights, f"{i}.C": case.C}
        for k, (weights, bias) in enumerate(layers_of(case, case.parameters)):
            arrays |= {f"{i}.W{k}": weights, f"{i}.b{k}": bias}
    np.savez(tmp_path / "cases.npz", **arrays)
    command = [str(AUTOGRAD.ensure()), str(SCRIPT), str(tmp_path / "cases.npz"), str(tmp_path / "answers.npz")]
    subprocess.run(command, check=True)
    with np.load(tmp_path / "answers.npz") as answers:
        for i, case in enumerate(cases):
            value, gradient = case.objective.evaluate(case.parameters)
            np.testing.assert_allclose(value, answers[f"{i}.value"], rtol=1e-12)
            for k, parts in enumerate(layers_of(case, gradient)):
                for name, part in zip(("W", "b"), parts, strict=True):
                    np.testing.assert_allclose(part, answers[f"{i}.{name}{k}"], rtol=1e-9, atol=1e-12)
