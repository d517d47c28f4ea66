"""Predict with a Softstep model from its two files, with NumPy alone.

    $ python read_model.py models/penguins/1 '{"bill_length_mm": 39.1, "island": "Torgersen"}'

    model = Model("models/penguins/1")
    P = model.predict([{"bill_length_mm": 39.1, "island": "Torgersen"}])     (rows, classes)

`model.json` says what the tensors in `model.safetensors` mean: docs/manifest.md and docs/fields.md describe it, and
docs/mathematics/ has the formulas. Everything is computed in float64, one row after another, so that it can be read. A
row is a list of numbers, or for a model with fields an object of names and values. Values are not checked as Softstep
checks them.
"""

import hashlib
import json
import math
import re
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

Entries = dict[int, float]
"""The numbers of a row by their columns; those that are left out are 0."""

DTYPES = {"F32": "<f4", "F64": "<f8", "I64": "<i8", "U8": "u1"}
WORDS = {"long_words": r"\b\w\w+\b", "words": r"\b\w+\b", "whitespace": r"\S+"}
UINT32, SIGN, FNV_PRIME = 0xFFFFFFFF, 0x80000000, 16_777_619


class Model:
    """A model: the manifest, the tensors, and the fields of a row."""

    def __init__(self, folder: str | Path) -> None:
        self.manifest = json.loads(Path(folder, "model.json").read_text("utf-8"))
        raw = Path(folder, "model.safetensors").read_bytes()
        if hashlib.sha256(raw).hexdigest() != self.manifest["tensors_sha256"]:
            raise ValueError("model.safetensors does not belong to model.json")
        self.tensors = read_tensors(raw)
        self.fields = [Field(record, self.tensors) for record in self.manifest.get("fields", ())]
        self.n_features = sum(field.n_columns for field in self.fields) or len(self.manifest.get("features", ()))

    def predict(self, rows: Sequence[Any]) -> np.ndarray:
        """Return the probabilities (B, C) of B rows, in the order of the classes."""
        return np.array([self.apply_head(self.compute_logits(self.encode(row))) for row in rows])

    def label(self, probabilities: np.ndarray) -> str | list[str]:
        """Return the class of a row from its probabilities (C,), or the classes of a multilabel model."""
        classes = self.manifest["classes"]
        if self.manifest["head"] != "multilabel":
            return classes[int(np.argmax(probabilities))]
        thresholds = self.manifest.get("thresholds") or [0.5] * len(classes)
        return [name for name, p, least in zip(classes, probabilities, thresholds, strict=True) if p >= least]

    def encode(self, row: Any) -> Entries:  # noqa: ANN401  # a list or an object
        """Return the numbers of a row: its features, or the columns of its fields."""
        if not self.fields:
            return dict(enumerate(map(float, row)))
        sources = list(dict.fromkeys(field.source for field in self.fields if field.source is not None))
        row = row if isinstance(row, dict) else dict(zip(sources, row, strict=True))
        if self.manifest.get("others") != "ignore" and not row.keys() <= set(sources):
            raise ValueError("a row has a name that is no field")
        parts: dict[str, Entries] = {}
        entries, start = {}, 0
        for field in self.fields:
            part = field.cross([parts[name] for name in field.of]) if field.of else field.encode(row.get(field.source))
            parts[field.name] = {column: value for column, value in sorted(part.items()) if value}
            entries |= {start + column: value for column, value in parts[field.name].items()}
            start += field.n_columns
        return entries

    def compute_logits(self, entries: Entries) -> np.ndarray:
        """Return the logits (K,) of a row, calibrated."""
        manifest = self.manifest
        columns, x = np.array(list(entries), np.int64), np.array(list(entries.values()))
        first, *others = manifest["layers"]
        weights, bias = self.tensors[first["weight"]], self.tensors[first["bias"]]
        z = standardize(x, manifest.get("stage")) @ weights[columns] + bias
        if delta := manifest.get("delta"):
            statistics = {"clip": delta["clip"], **({} if self.fields else manifest["training"])}
            z += standardize(x, statistics) @ self.tensors[delta["weight"]][columns]
        for layer, previous in zip(others, manifest["layers"], strict=False):
            a = activate(z, previous["activation"])
            z = a @ self.tensors[layer["weight"]] + self.tensors[layer["bias"]]
        scaling = manifest.get("calibration", {})
        return self.mix(entries, z) / scaling.get("temperature", 1.0) * scaling.get("a", 1.0) + scaling.get("b", 0.0)

    def mix(self, entries: Entries, z: np.ndarray) -> np.ndarray:  # noqa: ARG002  # read_mixture.py needs them
        """Return the logits of a learned mixture from a row and the logits of the layers; here there is none."""
        if "mixture" in self.manifest:
            raise NotImplementedError("the model has a learned mixture: use MixtureModel of read_mixture.py")
        return z

    def apply_head(self, z: np.ndarray) -> np.ndarray:
        """Return the probabilities (C,) of logits (K,)."""
        head = self.manifest["head"]
        if head in {"softmax", "sigmoid"}:
            return softmax(z if head == "softmax" else np.array([0.0, z[0]]))
        logs = -np.logaddexp(0, -z)  # ln sigma(z)
        return np.exp(logs) if head == "multilabel" else softmax(logs)


def read_tensors(raw: bytes) -> dict[str, np.ndarray]:
    """Return the tensors of a safetensors file: 8 bytes with the length of the JSON header, the header, the numbers."""
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    header.pop("__metadata__", None)
    tensors = {}
    for name, tensor in header.items():
        first, end = tensor["data_offsets"]
        tensors[name] = np.frombuffer(raw[start + first : start + end], DTYPES[tensor["dtype"]]).reshape(
            tensor["shape"]
        )
    return tensors


def standardize(x: np.ndarray, statistics: dict[str, Any] | None) -> np.ndarray:
    """Return (x - mean) / scale, cut to [-clip, clip]; all three are optional."""
    mean, scale, clip = ((statistics or {}).get(name) for name in ("mean", "scale", "clip"))
    z = (x - np.array(0.0 if mean is None else mean)) / np.array(1.0 if scale is None else scale)
    return z if clip is None else np.clip(z, -clip, clip)


def activate(z: np.ndarray, activation: str) -> np.ndarray:
    """Return the activation of a hidden layer."""
    if activation == "relu":
        return np.maximum(z, 0.0)
    return np.tanh(z) if activation == "tanh" else np.exp(-np.logaddexp(0, -z))


def softmax(z: np.ndarray) -> np.ndarray:
    """Return e^z divided by its sum."""
    powers = np.exp(z - z.max())
    return powers / powers.sum()


class Field:
    """A field of a row, and its columns: those of its values, then `other` and `missing` where it has them."""

    def __init__(self, record: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        self.record, self.kind, self.name = record, record["kind"], record["name"]
        self.source = None if self.kind == "cross" else record.get("source", self.name)
        self.of = record.get("fields", ())
        names = [name_category(value) for value in record.get("values", ())]
        if isinstance(terms := record.get("terms", ()), dict):
            text, ends = tensors[terms["bytes"]].tobytes(), tensors[terms["ends"]].tolist()
            names = [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        else:
            names += [term.encode() for term in terms]
        self.columns = {name: column for column, name in enumerate(names)}
        self.bits = record.get("bits")
        self.numbers = {name: as_array(record.get(name), tensors) for name in ("mean", "scale", "idf")}
        width = 1 << self.bits if self.bits else len(names) or record.get("size", 1)
        has_missing = record.get("missing") == "column" or record.get("flag", False)
        self.other = width if record.get("unknown") == "other" else None
        self.n_columns = width + (self.other is not None) + has_missing
        self.missing = self.n_columns - 1 if has_missing else None

    def encode(self, value: Any) -> Entries:  # noqa: ANN401  # any JSON value
        """Return the entries of a value in the columns of this field."""
        entries: Entries = {}
        if value is None or (isinstance(value, float) and math.isnan(value)):
            rule = self.record.get("missing")
            if rule == "refuse":
                raise ValueError("a value is missing")
            if self.missing is not None:
                entries[self.missing] = 1.0
            if not isinstance(rule, dict):
                return entries
            value = rule["value"]
        if self.kind in {"number", "boolean", "vector"}:
            z = standardize(np.array(value, float).reshape(-1), {**self.record, **self.numbers})
            return dict(enumerate(z.tolist())) | entries
        if self.kind == "category":
            return self.add([(name_category(value), 1.0)]) | entries
        if self.kind == "text":
            return self.weigh(self.add([(name.encode(), 1.0) for name in self.list_ngrams(value)])) | entries
        pairs = value.items() if isinstance(value, dict) else [(name, 1.0) for name in value]
        return self.weigh(self.add([(name.encode(), amount) for name, amount in pairs])) | entries

    def add(self, amounts: list[tuple[bytes, float]]) -> Entries:
        """Return the sum of the amounts of the names in each column."""
        found = [(*self.find(name), amount) for name, amount in amounts]
        return add_up([(column, sign * amount) for column, sign, amount in found if column is not None])

    def find(self, name: bytes) -> tuple[int | None, int]:
        """Return the column of a name, None if it has none, and the sign of its entry."""
        if not self.bits:
            column = self.columns.get(name, self.other)
            if column is None and self.record.get("unknown") == "refuse":
                raise ValueError("a category or name is unknown")
            return column, 1
        seed = self.record.get("seed", 0)
        if self.record.get("hashing") == "vw":
            name = name.strip(bytes(range(33)))
            h = int(name or b"0") + seed if re.fullmatch(rb"[0-9]*", name) else murmur3(name, seed)
            return h % (1 << self.bits), 1
        return self.place(murmur3(name, seed))

    def place(self, h: int) -> tuple[int, int]:
        """Return the column and the sign of a hash: it counts as an int32, and its absolute value is the column."""
        negative = h >= SIGN
        size = UINT32 + 1 - h if negative else h
        return size % (1 << self.bits), -1 if negative and self.record.get("signed") else 1

    def list_ngrams(self, text: str) -> Iterator[str]:
        """Yield the n-grams of a text."""
        record = self.record
        text = text.lower() if record.get("lowercase", True) else text
        if record.get("accents") == "strip":
            text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
        if "words" in record:
            found = re.findall(WORDS[record.get("word_pattern", "long_words")], text)
            units: list[Sequence[str]] = [[word for word in found if word not in record.get("stop_words", ())]]
        else:
            within = record.get("within_words", False)
            units = [f" {word} " for word in text.split()] if within else [re.sub(r"\s\s+", " ", text)]
        shortest, longest = record.get("words") or record["chars"]
        for sequence in units:
            # A word that is shorter than the shortest n-gram is one itself.
            least = min(shortest, len(sequence)) if record.get("within_words") else shortest
            for n in range(least, min(longest, len(sequence)) + 1):
                for i in range(len(sequence) - n + 1):
                    yield (" " if "words" in record else "").join(sequence[i : i + n])

    def weigh(self, sums: Entries) -> Entries:
        """Return the values of a text or a bag from the sums of its columns."""
        counts, idf = self.record.get("counts"), self.numbers["idf"]
        if counts in {"presence", "log"}:
            sums = {column: 1.0 + (math.log(total) if counts == "log" else 0.0) for column, total in sums.items()}
        if idf is not None:
            sums = {column: total * idf[column] for column, total in sums.items()}
        order = {"l1": 1, "l2": 2}.get(self.record.get("norm"))
        length = np.linalg.norm(list(sums.values()), order) if order and sums else 0.0
        return {column: total / length for column, total in sums.items()} if length else sums

    def cross(self, parts: Sequence[Entries]) -> Entries:
        """Return the products of the entries of the fields that are crossed."""
        products = []
        for combination in product(*(part.items() for part in parts)):
            columns, values = zip(*combination, strict=True)
            if self.record.get("hashing") == "vw":
                h = columns[0]
                for column in columns[1:]:
                    h = (FNV_PRIME * h ^ column) & UINT32
                column, sign = h % (1 << self.bits), 1
            else:
                h = murmur3(b"".join(column.to_bytes(4, "little") for column in columns), self.record.get("seed", 0))
                column, sign = self.place(h)
            products.append((column, sign * math.prod(values)))
        return add_up(products)


def add_up(pairs: list[tuple[int, float]]) -> Entries:
    """Return the sum of the numbers in each column, which are added in ascending order."""
    sums: Entries = {}
    for column, number in sorted(pairs):
        sums[column] = sums.get(column, 0.0) + number
    return sums


def name_category(value: str | float) -> bytes:
    """Return a text in UTF-8; a whole number or boolean as JSON after a byte with which no text begins."""
    if isinstance(value, str):
        return value.encode()
    return b"\xff" + json.dumps(value if isinstance(value, bool) else int(value)).encode()


def as_array(numbers: list[float] | str | float | None, tensors: dict[str, np.ndarray]) -> Any:  # noqa: ANN401
    """Return numbers of the manifest, or the tensor that it names; None if there are none."""
    return numbers if numbers is None else tensors[numbers] if isinstance(numbers, str) else np.array(numbers)


def murmur3(data: bytes, seed: int) -> int:
    """Return MurmurHash3 x86-32 (Austin Appleby) as a number below 2^32."""

    def mix(k: int) -> int:
        k = k * 0xCC9E2D51 & UINT32
        return (k << 15 | k >> 17) * 0x1B873593 & UINT32

    h, whole = seed, len(data) - len(data) % 4
    for i in range(0, whole, 4):
        h ^= mix(int.from_bytes(data[i : i + 4], "little"))
        h = ((h << 13 | h >> 19) * 5 + 0xE6546B64) & UINT32
    h ^= mix(int.from_bytes(data[whole:], "little")) ^ len(data)
    h = (h ^ h >> 16) * 0x85EBCA6B & UINT32
    h = (h ^ h >> 13) * 0xC2B2AE35 & UINT32
    return h ^ h >> 16


if __name__ == "__main__":
    model = Model(sys.argv[1])
    for probabilities in model.predict([json.loads(row) for row in sys.argv[2:]]):
        shown = dict(zip(model.manifest["classes"], probabilities.round(6).tolist(), strict=True))
        print(json.dumps({"label": model.label(probabilities), "probabilities": shown}))
