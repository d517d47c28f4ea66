"""Predict with a model that has learned a mixture of experts, from its two files, with NumPy alone.

    $ python read_mixture.py learned/1 '[5.1, 3.5, 1.4, 0.2]'

`softstep export` writes such a model if the rule `mixture` has learned. read_model.py reads everything but the mixture,
whose formulas are in docs/mathematics/mixture.md and mixture_inputs.md. The random features are not in the files: they
are drawn again from their seed.
"""

import json
import sys
from typing import Any

import numpy as np
from read_model import Entries, Model, softmax

TWO_PI = 2 * np.pi
# The part of a uniform distribution in the logarithms that are mixed.
UNIFORM = 0.01
# The least probability of which a logarithm is taken.
LEAST = 1e-300


class MixtureModel(Model):
    """A model whose logits are the logarithms of a mixture's probabilities, if it has learned one."""

    def mix(self, entries: Entries, z: np.ndarray) -> np.ndarray:
        """Return the logits (K,) of the mixture from a row and the logits of the layers."""
        record = self.manifest.get("mixture")
        if record is None:
            return z
        x = np.zeros(self.n_features)
        x[list(entries)] = list(entries.values())
        weights, K = record["weights"], len(z)
        n_experts = len(weights) // 2 - 1
        answers = [
            softmax(logits if K > 1 else np.array([0.0, logits[0]]))
            for logits in self.compute_experts(record, x, z, n_experts)
        ]
        C = len(answers[0])
        logs = [np.log((1 - UNIFORM) * answer + UNIFORM / C) for answer in answers]
        mixed = softmax(sum(a * log for a, log in zip(weights, logs, strict=False)))
        members = [mixed, np.array(record["frequencies"]), *answers]
        answer = sum(v * member for v, member in zip(weights[n_experts:], members, strict=True))
        if weights[n_experts] == 0:  # nothing is learned yet
            return z
        logs = np.log(np.maximum(answer, LEAST))
        return logs if K > 1 else np.array([logs[1] - logs[0]])

    def compute_experts(self, record: dict[str, Any], x: np.ndarray, z: np.ndarray, n_experts: int) -> list[np.ndarray]:
        """Return the logits of each expert: one or two on features, then the base one, then the linear one."""
        stage = self.tensors[record["stage"]].astype(np.float64)
        mean, inverse, factor, log_mean, log_inverse = stage
        standardized = np.where(inverse > 0, (x - mean) * inverse, 0.0)
        scaled = np.where(log_inverse > 0, (np.sign(x) * np.log1p(factor * np.abs(x)) - log_mean) * log_inverse, 0.0)
        # A wide model has neither sparse features nor a linear expert.
        narrow = "linear" in record
        cut = np.clip(standardized, -2, 2)
        phi = self.compute_features(record, cut, np.clip(scaled, -2.5, 2.5), narrow=narrow)
        inputs = np.concatenate([cut, phi]) if narrow else phi
        weights = self.tensors[record["features"]]
        heads = [weights[:, k : k + len(z)] for k in range(0, weights.shape[1], len(z))]
        logits = [head[0] + inputs @ head[1:] for head in heads]
        for name, limit in (("base", 1.25), ("linear", 4.0)):
            if name in record:
                layer = self.tensors[record[name]]
                logits.append(layer[0] + np.clip(standardized, -limit, limit) @ layer[1:])
        # The second expert on features leaves the trained layers out.
        return [own if len(heads) > 1 and at == 1 else own + z for at, own in enumerate(logits)][:n_experts]

    def compute_features(self, record: dict[str, Any], v: np.ndarray, logs: np.ndarray, *, narrow: bool) -> np.ndarray:
        """Return the random features (M,) of a standardized row v (N,) and of its log-scaled form."""
        N, M = len(v), record["random_features"]
        n_dense = M // 2 if narrow else M
        n_sparse, n_pair = M - n_dense, min(2, N)
        numbers = Numbers(record["seed"])
        dense = orthogonal(numbers.gaussian(n_dense, N)) * ((1.7 if narrow else 1.2) / np.sqrt(N))
        dense_bias = TWO_PI * numbers.uniform(n_dense)
        first = numbers.integers(n_sparse, N)
        second = numbers.integers(n_sparse, N - 1) if N > 1 else first
        second = second + (second >= first) * (N > 1)
        weights = numbers.gaussian(n_sparse, n_pair) * (4.0 / np.sqrt(n_pair))
        sparse_bias = TWO_PI * numbers.uniform(n_sparse)
        # What is drawn is rounded to the type of the model.
        drawn = (dense, dense_bias, weights, sparse_bias)
        dense, dense_bias, weights, sparse_bias = (a.astype(self.manifest["dtype"]).astype(float) for a in drawn)
        # The first half of the sparse features takes the row, and the second one its log-scaled form.
        half = np.arange(n_sparse) < n_sparse // 2
        inputs = np.stack([np.where(half, v[index], logs[index]) for index in (first, second)][:n_pair], axis=1)
        phases = np.concatenate([dense @ v + dense_bias, (inputs * weights).sum(axis=1) + sparse_bias])
        return 0.3 * np.sqrt(512 / M) * np.cos(phases)


class Numbers:
    """The numbers of a seed, one position after another (SplitMix64: Steele, Lea & Flood, OOPSLA 2014)."""

    def __init__(self, seed: int) -> None:
        self.seed, self.position = np.uint64(seed), 0

    def take(self, count: int) -> np.ndarray:
        """Return `count` numbers of 64 bits; products and sums are modulo 2^64."""
        places = np.arange(self.position + 1, self.position + 1 + count, dtype=np.uint64)
        self.position += count
        z = self.seed + places * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))

    def uniform(self, count: int) -> np.ndarray:
        """Return numbers between 0 and 1: the middles of 2^52 intervals."""
        return ((self.take(count) >> np.uint64(12)).astype(float) + 0.5) * 2.0**-52

    def integers(self, count: int, below: int) -> np.ndarray:
        """Return integers from 0 to below - 1."""
        high = self.take(count) >> np.uint64(32)
        return (high * np.uint64(below) >> np.uint64(32)).astype(np.int64)

    def gaussian(self, rows: int, count: int) -> np.ndarray:
        """Return (rows, count) Gaussian numbers (Box & Muller, 1958)."""
        u = self.uniform(2 * rows * count).reshape(rows, count, 2)
        return np.sqrt(-2 * np.log(u[..., 0])) * np.cos(TWO_PI * u[..., 1])


def orthogonal(V: np.ndarray) -> np.ndarray:
    """Return vectors of which each N are orthogonal, and as long as those of V (M, N): modified Gram-Schmidt."""
    out = V.copy()
    for start in range(0, len(V), V.shape[1]):
        group = out[start : start + V.shape[1]]
        for k, vector in enumerate(group):
            group[k + 1 :] -= np.outer(group[k + 1 :] @ vector / (vector @ vector), vector)
    return out * (np.linalg.norm(V, axis=1) / np.linalg.norm(out, axis=1))[:, None]


if __name__ == "__main__":
    model = MixtureModel(sys.argv[1])
    for probabilities in model.predict([json.loads(row) for row in sys.argv[2:]]):
        shown = dict(zip(model.manifest["classes"], probabilities.round(6).tolist(), strict=True))
        print(json.dumps({"label": model.label(probabilities), "probabilities": shown}))
