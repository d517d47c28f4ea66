"""Make fields and weights of a readable model of Vowpal Wabbit.

Each namespace is a bag, and each interaction of two or three namespaces a cross. All of them share one table in Vowpal
Wabbit, so each gets a copy of it: a feature of the hash h has its weight of the class k at

    (2**s h + k) mod 2**bits         s: the smallest number with 2**s >= K; 0 for a binary model

which is row h mod 2**(bits - s) of the table as a matrix (2**(bits - s), 2**s). A cross has the same rows, because its
hash is made by products and exclusive or, which keep the lower bits. The constant is the feature of one fixed hash.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np

from service.convert.converted_model import ConvertedModel, DenseLayer, Doubles
from service.convert.vowpal.model_options import ModelOptions, parse_options
from service.convert.vowpal.readable_model import ReadableModel, read_readable_model
from service.errors import ConversionError
from service.fields.column_blocks import FieldLimits
from service.fields.kernels.cross_kernels import FNV_PRIME
from service.fields.kernels.murmur3 import hash_names_vw
from service.fields.term_table import pack_names
from service.record import NAME_CHARACTERS_MAX
from service.softmax.sparse_weights import SPARSE_WEIGHTS_MAX, padded_width

# The hash of the constant feature in Vowpal Wabbit.
CONSTANT: Final = 11_650_396
# Names of each namespace, and columns of each cross, that generated rows aim at.
WORDS_OF_A_FIELD, PAIRS = 16, 8
DEFAULT_NAME: Final = "features"
BINARY_CLASSES: Final = ("-1", "1")


class VowpalModel:
    """A readable model and its conversion.

    Args:
        path: The file of `--readable_model` or `--invert_hash`.
        namespaces: The namespaces of the rows; "" is the default one. By default those that the file names, or else
            the default one alone.
        classes: The names of the classes, in the order of Vowpal Wabbit; by default -1 and 1, or the labels of `--oaa`.

    Attributes:
        file: The content of the file.
        options: What predictions need.
        fields: The name of the field of each namespace.

    Raises:
        ConversionError: It cannot be converted.
    """

    def __init__(self, path: Path, namespaces: Sequence[str] = (), classes: Sequence[str] = ()) -> None:
        self.file: Final[ReadableModel] = read_readable_model(path)
        self.options: Final[ModelOptions] = parse_options(self.file.options)
        self._classes: Final = tuple(classes) or self.options.labels or BINARY_CLASSES
        if len(self._classes) != (self.options.n_classes or len(BINARY_CLASSES)):
            raise ConversionError(f"the model has {self.options.n_classes or len(BINARY_CLASSES)} classes")
        self.fields: Final = name_fields(namespaces or tuple(self.file.names) or [""])

    def convert(self) -> ConvertedModel:
        """Return the converted model.

        Raises:
            ConversionError: It would have more columns or weights than a model may have.
        """
        bits, K = self.file.bits - self.options.shift, max(1, self.options.n_classes)
        if bits < 1:
            raise ConversionError("the table of the model is smaller than the number of its classes")
        fields = [*self._bags(bits), *self._crosses(bits)]
        columns = len(fields) << bits
        if columns > FieldLimits().columns_max or columns * padded_width(K) > SPARSE_WEIGHTS_MAX:
            raise ConversionError(
                f"{len(fields)} namespaces and crosses of {self.file.bits} bits have more columns than a model may; "
                f"train with fewer bits (-b)"
            )
        table = self._make_table(bits, K)
        bias = np.zeros(K)
        if self.options.has_constant:
            bias = table[CONSTANT % len(table)].copy()
        return ConvertedModel(
            head="ovr" if self.options.n_classes else "sigmoid",
            classes=self._classes,
            layers=[DenseLayer(np.tile(table, (len(fields), 1)), bias, "identity")],
            fields=fields,
            provenance={"source": f"Vowpal Wabbit {self.file.version}"},
            words=dict(self._list_words(bits, fields)),
        )

    def _list_words(self, bits: int, fields: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[str]]]:
        """Yield names of features that have weights: those of the file, or numbers, which are their own hash.

        For each cross of two namespaces there are pairs of numbers whose product falls on a weight.
        """
        mask, hit = (1 << bits) - 1, np.unique(self.file.indices >> self.options.shift).tolist()
        chosen = hit[:: max(1, len(hit) // WORDS_OF_A_FIELD)]
        columns = dict.fromkeys(self.fields.values(), chosen[:WORDS_OF_A_FIELD])
        for cross in fields[len(self.fields) :]:
            if len(cross["fields"]) == 2:  # noqa: PLR2004  # a pair
                first, second = cross["fields"]
                columns[second] = [
                    *columns[second],
                    *((FNV_PRIME * a ^ c) & mask for a in columns[first][:2] for c in chosen[:PAIRS]),
                ]
        for namespace, name in self.fields.items():
            seed = hash_namespace(namespace)
            numbers = [str((column - seed) & mask) for column in columns[name]]
            yield name, list(self.file.names.get(namespace, ())) or numbers

    def _make_table(self, bits: int, n_outputs: int) -> Doubles:
        """Return the table (2**bits, K) of the weights of each hash."""
        table = np.zeros((1 << bits, 1 << self.options.shift))
        table.reshape(-1)[self.file.indices] = self.file.weights
        return np.ascontiguousarray(table[:, :n_outputs])

    def _bags(self, bits: int) -> Iterator[dict[str, Any]]:
        for namespace, name in self.fields.items():
            yield {"name": name, "kind": "bag", "hashing": "vw", "bits": bits, "seed": hash_namespace(namespace)}

    def _crosses(self, bits: int) -> Iterator[dict[str, Any]]:
        """Yield the crosses of an interaction: one for each choice of namespaces with its first letters."""
        for letters in self.options.interactions:
            choices = [[name for space, name in self.fields.items() if space[:1] == letter] for letter in letters]
            if not all(choices):
                letter = next(letter for letter, names in zip(letters, choices, strict=True) if not names)
                raise ConversionError(
                    f"no namespace begins with {json.dumps(letter)}, which an interaction of the model needs; "
                    f"name all with --namespaces"
                )
            for names in product(*choices):
                yield {
                    "name": "*".join(names)[:NAME_CHARACTERS_MAX],
                    "kind": "cross",
                    "hashing": "vw",
                    "fields": names,
                    "bits": bits,
                }


def name_fields(namespaces: Sequence[str]) -> dict[str, str]:
    """Return the name of the field of each namespace; that of the default one is "features".

    Raises:
        ConversionError: A namespace occurs twice, or can be no name.
    """
    names = {namespace: namespace or DEFAULT_NAME for namespace in namespaces}
    if len(names) < len(namespaces) or len(set(names.values())) < len(names):
        raise ConversionError("the namespaces must differ from each other")
    if any(len(name) > NAME_CHARACTERS_MAX or set(name) & set(" \t:|\n\r*") for name in names.values()):
        raise ConversionError(
            f"a namespace has at most {NAME_CHARACTERS_MAX} characters, and no white space, colon, bar or asterisk"
        )
    return names


def hash_namespace(namespace: str) -> int:
    """Return the hash of a namespace, by which its names are hashed; 0 for the default one."""
    if not namespace:
        return 0
    found = np.empty(1, np.int64)
    hash_names_vw(*pack_names([namespace.encode()]), 0, 1 << 32, found)
    return int(found[0])
