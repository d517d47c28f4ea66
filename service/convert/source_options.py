"""The facts about a source that the command line gives, and the result of reading it."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.convert.converted_model import ConvertedModel, Head, Source


@dataclass(frozen=True)
class SourceOptions:
    """Facts that a file does not have; which of them are needed depends on the kind of source.

    Attributes:
        classes: The names of the classes; empty for those of the source.
        features: The names of the numbers of a row; empty for those of the source.
        vector: The name of the field that has all numbers as a list, or "".
        head: The head, or None for that of the source.
        layers: The tensors of each layer, as `--layers` has them.
        weight_rows: "outputs" or "inputs", of which a weight matrix has a row each; "" to find out.
        namespaces: The namespaces of Vowpal Wabbit; "" is the default one.
        training_rows: The number of rows that the source was trained on, or None if only the source may know it.
    """

    classes: Sequence[str] = ()
    features: Sequence[str] = ()
    vector: str = ""
    head: Head | None = None
    layers: str = ""
    weight_rows: str = ""
    namespaces: Sequence[str] = ()
    training_rows: int | None = None


@dataclass(frozen=True)
class ReadSource:
    """A source that was read.

    Attributes:
        model: The converted model.
        source: The source to ask, or None if it cannot be asked at all.
        compared_with: What answers, for the provenance, such as "Vowpal Wabbit".
    """

    model: ConvertedModel
    source: Source | None
    compared_with: str
