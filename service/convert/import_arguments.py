"""The arguments of `softstep import`. Every command loads them, so nothing but argparse is imported here."""

import argparse  # noqa: TC003  # as in command_line.py
from pathlib import Path


def add_import_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `softstep import` to the commands."""
    command = commands.add_parser("import", help="convert a model of another library, and prove that it is equal")
    command.add_argument("source", type=Path, help=".skops, ONNX, safetensors, .npz, or Vowpal Wabbit's readable model")
    command.add_argument("--name", required=True, help="name of the model")
    command.add_argument("--models", type=Path, help="models directory, which gets the next version")
    command.add_argument("--json", action="store_true", help="print the result as one JSON object")
    proof = command.add_argument_group("proof")
    proof.add_argument(
        "--rows",
        type=Path,
        metavar="FILE",
        help="CSV or JSON Lines of rows to compare too; with --training-rows, a sample of them",
    )
    proof.add_argument(
        "--expected",
        type=Path,
        metavar="FILE",
        help="the source's probabilities of --rows, with a column for each class",
    )
    facts = command.add_argument_group("what the source does not say")
    facts.add_argument("--training-rows", type=int, metavar="N", help="rows that the source was trained on")
    facts.add_argument("--classes", type=_split, default=(), metavar="A,B,…", help="names of the classes, in order")
    facts.add_argument("--features", type=_split, default=(), metavar="A,B,…", help="names of the numbers of a row")
    layers = command.add_argument_group("safetensors and .npz")
    layers.add_argument(
        "--layers",
        default="",
        metavar="W1,B1:relu,W2,B2",
        help="tensors of each layer, and the activation of hidden ones",
    )
    layers.add_argument("--head", choices=("softmax", "sigmoid", "multilabel", "ovr"), help="default: by the outputs")
    layers.add_argument("--vector", default="", metavar="NAME", help="take a row as one field with a list of numbers")
    layers.add_argument(
        "--weight-rows",
        choices=("outputs", "inputs"),
        default="",
        help="if both fit: PyTorch has outputs, Keras inputs",
    )
    vowpal = command.add_argument_group("Vowpal Wabbit")
    vowpal.add_argument(
        "--namespaces", type=_split, default=(), metavar="A,B,…", help='namespaces of the rows; "" is the default one'
    )


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))
